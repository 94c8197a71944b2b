"""
What people type.

One file for each group of commands, loaded when one of them is called. This
package refuses to print a value, except where ``get`` was asked for it, and to
know the daemon's rooms: it asks through ``broker.client``.
"""
