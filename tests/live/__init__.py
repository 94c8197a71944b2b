"""Tests against the real thing: each says what it needs, and is skipped with the reason where that is missing."""
