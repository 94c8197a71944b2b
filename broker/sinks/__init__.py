"""
Copies of checkpoints, and if wanted of records, to places that the host's attacker does not own.

Each sink has a thread of its own that may wait, and a cursor on disk. Nothing
in here refuses a record or holds one up: ``broker.audit_gate`` does, where the
config says that a sink is required.
"""
