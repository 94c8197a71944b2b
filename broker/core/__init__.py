"""
The rules: pure, synchronous, without I/O and without a clock.

What lives here decides and returns what has to be done; the shell around it
does it and reports back. Time comes in as an argument. No value of a secret
ever does.
"""
