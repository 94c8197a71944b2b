"""
The places that secrets come from, one module each.

A backend knows how to take, renew and give back credentials at one kind of
source. It decides nothing about who may have them, and imports nothing of
``broker``.
"""
