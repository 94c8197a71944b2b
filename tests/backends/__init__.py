"""Tests of the places that secrets come from."""
