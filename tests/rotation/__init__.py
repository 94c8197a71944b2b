"""Rotations as the broker drives them."""
