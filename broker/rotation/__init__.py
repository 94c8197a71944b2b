"""
Rotation, the shell of it: what is on disk, what is done in each step, and when.

What comes next is decided in ``broker.core.rotation`` and ``broker.core.schedule``.
This package refuses to have a value anywhere but in a backend, in memory while a
step is done, and on the standard input of the admin's own program.
"""
