"""Tests of the rules: pure, synchronous, without a disk."""
