"""
What ``exec`` is made of: finding the broker, asking it, becoming the server.

A client waits for this, so these modules refuse to import anything of ours but
each other, and more of the standard library than they need: ``json`` alone
costs as much as Python's own start, ``typing`` more. Types stand in quotes.
"""
