"""Inputs with declared outcomes, for ours and for other programs."""
