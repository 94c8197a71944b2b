"""A broker that the commands talk to, with a few servers, secrets and leases."""

from collections.abc import Iterator, Mapping

import pytest

from tests import running
from tests.running import RunningBroker

CONFIG = """
[servers.app]
command = ["true"]
env.GITHUB_TOKEN = "{github}"
allow = ["app-db", "cloud"]

[servers.other]
command = ["true"]
selectors = ["uid:4242"]
env.TOKEN = "{github}"
"""

CANARY = "canary-4f1d"
"""The beginning of every value: it appears in no output but that of ``get``."""

SECRETS: Mapping[str, str | Mapping[str, str]] = {
    "github": f"{CANARY}-github",
    "app-db": {"username": f"{CANARY}-user", "password": f"{CANARY}-p\"w 'd$"},
    "cloud": {"access_key": f"{CANARY}-key", "secret_key": f"{CANARY}-secret", "security_token": f"{CANARY}-token"},
}


@pytest.fixture(scope="module")
def broker() -> Iterator[RunningBroker]:
    """Return a broker for the tests of one file."""
    with running.room() as directory, running.start(directory, config=CONFIG, secrets=SECRETS) as started:
        yield started


@pytest.fixture
def where(broker: RunningBroker) -> list[str]:
    """Return the options that lead a command to the broker."""
    return ["--dir", str(broker.places.run.parent)]
