"""What every backend has to do, as classes to inherit."""
