"""
The whole broker, its log included, on a disk that is full or frozen.

It refuses, says so, gives back what ends meanwhile, and recovers by itself. The disk
is a real one, in a file of a few megabytes; the source of what is minted is elsewhere.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.fakes import minting
from tests.integration.leased import CONFIG, SOON, issue, leases, refused, revoked
from tests.puppets import Puppet
from tests.running import AnswerError, RunningBroker, start, until
from tests.volumes import Volume, volume

pytestmark = [pytest.mark.root, pytest.mark.live("disks", commands=["mkfs.ext4", "fsfreeze", "losetup", "findmnt"])]

WAYS: dict[str, tuple[Callable[[Volume], None], Callable[[Volume], None]]] = {
    "full": (Volume.fill, Volume.empty),
    "frozen": (Volume.freeze, Volume.thaw),
}


@pytest.fixture
def disk(place: Path) -> Iterator[Volume]:
    """Mount a small file system."""
    with volume(place) as made:
        made.path.chmod(0o711)
        yield made


@pytest.fixture
def broker(disk: Volume, source: minting.Source, place: Path) -> Iterator[RunningBroker]:
    """Run a broker that lives on that file system."""
    config = CONFIG.replace("../source", str(source.directory))
    packages = [minting.install(place / "packages")]
    with start(disk.path / "b", config=config, secrets={"static": "made up"}, packages=packages) as running:
        yield running


def accepts(broker: RunningBroker) -> bool:
    """Return whether the audit log and the store can be written."""
    status = broker.admin("status")
    told = [each["text"] for each in status["problems"]]
    return status["audit"]["state"] in {"ok", "damaged"} and not any("state.db" in each for each in told)


def outcome(puppet: Puppet, secret: str) -> str:
    """Return ``issued`` or the code of the refusal of a new lease."""
    try:
        issue(puppet, secret, fresh=True)
    except AnswerError as error:
        return error.code
    return "issued"


@pytest.mark.parametrize("way", WAYS)
def test_a_failing_disk_releases_nothing_and_loses_nothing(  # noqa: PLR0917 -- fixtures
    disk: Volume, server: Puppet, stage: Puppet, broker: RunningBroker, source: minting.Source, way: str
) -> None:
    """
    While the disk fails nothing is released and status answers; what ends is revoked; afterwards all goes on.

    What was minted for a request that could then not be recorded is revoked, too.
    """
    fail, mend = WAYS[way]
    other = stage.fork()
    other.connect(broker.places.broker_socket)
    kept, ending = issue(server, "db"), issue(other, "db")
    fail(disk)
    try:
        until(lambda: outcome(server, "static") == "audit_unavailable", said="the refusal of what needs a record")
        code = outcome(server, "db")
        problems = broker.admin("status")["problems"]
        other.kill()
        until(lambda: revoked(source, ending), deadline=SOON, said="the revocation")
    finally:
        mend(disk)
    until(lambda: accepts(broker), said="the recovery")
    until(lambda: set(source.valid().values()) == {kept}, said="the revocation of what was not released")
    assert (True, True) == (code in {"audit_unavailable", "unavailable"}, bool(problems))
    assert kept in leases(broker)
    assert "issued" == outcome(server, "db")
    until(lambda: ending in {each.get("accessor") for each in broker.records()}, said="the record of its end")


@pytest.mark.parametrize("way", WAYS)
def test_a_crash_on_a_failing_disk_revokes_nothing_in_use(
    disk: Volume, server: Puppet, broker: RunningBroker, source: minting.Source, way: str
) -> None:
    """A broker that dies while its disk fails finds, when that is mended, what was in use, and keeps nothing else."""
    fail, mend = WAYS[way]
    kept = issue(server, "db")
    fail(disk)
    try:
        until(lambda: outcome(server, "static") == "audit_unavailable", said="the refusal of what needs a record")
        outcome(server, "db")
        broker.signal(9)
    finally:
        mend(disk)
    broker.wait()
    broker.launch()
    unknown = len(broker.admin("status")["unknown"])
    until(lambda: len(source.valid()) <= 1 + unknown, said="the revocation of what was not released")
    assert ({kept: "active"}, True) == (leases(broker), kept in source.valid().values())


@pytest.mark.parametrize("way", WAYS)
def test_a_kill_switch_works_on_a_failing_disk(
    disk: Volume, server: Puppet, broker: RunningBroker, source: minting.Source, way: str
) -> None:
    """An admin's word revokes at the backend though nothing can be written, and says that a restart would forget it."""
    fail, mend = WAYS[way]
    accessor = issue(server, "db")
    fail(disk)
    try:
        with pytest.raises(AnswerError) as caught:
            broker.admin("lease/revoke", accessor=accessor)
        until(lambda: revoked(source, accessor), deadline=SOON, said="the revocation")
        code = refused(server, "credential/issue", secret="db")
    finally:
        mend(disk)
    until(lambda: accepts(broker), said="the recovery")
    assert ("unavailable", "denied") == (caught.value.code, code)
    assert {accessor: "barred"} == leases(broker)
