"""
What the tests of leases have in common: a config with dynamic secrets, and what they look up.

This module refuses to start anything; the fixtures do.
"""

import json
import re
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import pytest

import backends as backends_package
import broker as broker_package
from tests.fakes import minting
from tests.puppets import Puppet
from tests.running import AnswerError, RunningBroker

CONFIG: Final = """
[backends.mint]
type = "minting"
source = "../source"
roles = ["db", "short"]

[secrets.db]
backend = "mint"
path = "db"
ttl = "10m"

[secrets.short]
backend = "mint"
path = "short"
ttl = "3s"

[servers.app]
command = ["true"]
env.TOKEN = "{static}"
env.DATABASE = "{db.username}:{db.password}"

[servers.scripts]
allow = ["short", "plain"]
"""

SOON: Final = 2.0
"""Seconds within which the end of a process has to be known at the backend."""


def issue(puppet: Puppet, secret: str, **more: Any) -> str:  # noqa: ANN401
    """Have a process ask for a credential; return the lease's accessor."""
    return str(puppet.call("credential/issue", secret=secret, **more)["accessor"])


def refused(puppet: Puppet, method: str, **params: Any) -> str:  # noqa: ANN401
    """Return the code with which a request is refused."""
    with pytest.raises(AnswerError) as caught:
        puppet.call(method, **params)
    return caught.value.code


def leases(broker: RunningBroker) -> dict[str, str]:
    """Return the state of each lease, by its accessor."""
    return {row["accessor"]: row["state"] for row in broker.admin("lease/list")["leases"]}


def revoked(source: minting.Source, accessor: str) -> bool:
    """Return whether what was minted for this lease has been revoked at the source."""
    return any(each.intent == accessor and each.revocations for each in source.minted().values())


def newer(directory: Path) -> Path:
    """Return a copy of our packages that calls itself a later version."""
    for package in (broker_package, backends_package):
        home = Path(package.__file__ or "").parent
        shutil.copytree(home, directory / home.name, ignore=shutil.ignore_patterns("__pycache__"))
    init = directory / "broker" / "__init__.py"
    init.write_text(re.sub(r'__version__(.*)= ".*"', r'__version__\1= "99.0"', init.read_text("utf-8")), "utf-8")
    return directory


def rows_text(broker: RunningBroker) -> str:
    """Return the rows of all leases on disk, as text."""
    with closing(sqlite3.connect(f"file:{broker.places.state}/state.db?mode=ro", uri=True)) as connection:
        return "\n".join(row[0].decode() for row in connection.execute("SELECT record FROM leases"))


def rows(broker: RunningBroker) -> set[str]:
    """Return the leases on disk."""
    return {json.loads(line)["accessor"] for line in rows_text(broker).splitlines()}


def events(broker: RunningBroker, event: str) -> list[dict[str, Any]]:
    """Return the audit records of one kind."""
    return [each for each in broker.records() if each["event"] == event]
