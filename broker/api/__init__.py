"""
What the sockets say: one table of verbs, carried by two dialects.

``verbs`` is the table, ``messages`` its parameters and results, ``lines`` and
``http`` the dialects, ``door`` the place where a connection is attested and
its dialect found out.
"""
