"""
What integration tests share: a stage of real processes, and a broker whose backend mints.

A test that needs another broker than this one defines a fixture of that name
itself. This module refuses to keep anything running that a test started.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes import minting
from tests.integration.leased import CONFIG
from tests.puppets import Puppet, theatre
from tests.running import RunningBroker, room, start


@pytest.fixture(scope="module")
def stage() -> Iterator[Puppet]:
    """Give the puppet of which all others are forked."""
    with theatre() as first:
        yield first


@pytest.fixture
def place() -> Iterator[Path]:
    """Give a directory for one broker."""
    with room() as directory:
        yield directory


@pytest.fixture
def source(place: Path) -> minting.Source:
    """Return the source behind the backend."""
    return minting.Source(place / "source")


@pytest.fixture
def broker(place: Path, source: minting.Source) -> Iterator[RunningBroker]:
    """Run a broker with one static and two dynamic secrets."""
    del source
    secrets = {"static": "a made-up value", "plain": "another made-up value"}
    packages = [minting.install(place / "packages")]
    with start(place, config=CONFIG, secrets=secrets, packages=packages) as running:
        yield running


@pytest.fixture
def server(stage: Puppet, broker: RunningBroker) -> Puppet:
    """Return a process that is connected to the broker."""
    puppet = stage.fork()
    puppet.connect(broker.places.broker_socket)
    return puppet
