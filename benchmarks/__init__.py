"""
How fast it is, as ratios within one run.

Machines differ and are noisy, so nothing here is a test and no figure stands
alone: each is measured beside what it is compared with, in turns.
"""
