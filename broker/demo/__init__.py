"""
The guided tour: the real broker in a throwaway directory, step by step, every step a command to type.

It stands outside of the house: it runs the commands as a person would and looks
at what they say. It refuses to reach into the broker, and to leave anything
behind.
"""

from broker.demo.tour import run

__all__ = ["run"]
