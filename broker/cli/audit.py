"""
``audit``: whether the log is still what was written, and what stands in it.

This module refuses to change the log, and to need the broker that wrote it: a
copy in a directory is read and judged in the same way.
"""

from typing import Final

import click

from broker.cli.audit_show import show_, tail
from broker.cli.audit_verify import checkpoint, verify

audit: Final = click.Group(
    "audit",
    commands=[verify, checkpoint, show_, tail],
    help="Verify and read the audit log. A value is never in it.",
)
