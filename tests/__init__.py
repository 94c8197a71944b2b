"""Tests: one behaviour each, its docstring one true sentence about it."""
