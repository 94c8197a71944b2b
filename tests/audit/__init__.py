"""What goes with the audit log: checkpoints, segments that are compressed and removed, copies, and who changes what."""
