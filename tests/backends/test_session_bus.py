"""Where the session bus is, and whose: found by the uid alone."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from backends import session_bus
from backends.base import UnavailableError
from backends.keyring_store import lock_file
from tests.running import room


@pytest.fixture
def runtime() -> Iterator[Path]:
    """Return a directory like ``/run/user``, with that of this user in it."""
    with room() as directory:
        (directory / str(os.getuid())).mkdir()
        yield directory


def test_a_bus_of_this_user_is_found(runtime: Path) -> None:
    """With nothing in the environment it is the one of the uid."""
    bus = runtime / str(os.getuid()) / "bus"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(bus))
        assert f"unix:path={bus}" == session_bus.address(None, runtime=runtime, environment={})


def test_none_is_an_error_that_names_the_sealed_store(runtime: Path) -> None:
    """On a machine without a desktop the error says what is not there, and where the secret can go."""
    with pytest.raises(UnavailableError) as caught:
        session_bus.address(None, runtime=runtime, environment={})
    bus = runtime / str(os.getuid()) / "bus"
    expected = (f"there is no session bus for uid {os.getuid()}: {bus} is not there", session_bus.NO_DESKTOP)
    assert expected == (caught.value.message, caught.value.hint)


def test_what_is_no_socket_is_refused(runtime: Path) -> None:
    """A file in the bus's place is not talked to."""
    (runtime / str(os.getuid()) / "bus").write_text("x")
    with pytest.raises(UnavailableError, match="is not a socket of uid"):
        session_bus.address(None, runtime=runtime, environment={})


@pytest.mark.root
def test_a_socket_of_somebody_else_is_refused(runtime: Path) -> None:
    """A bus that another user has put there is not talked to."""
    bus = runtime / str(os.getuid()) / "bus"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(bus))
        os.chown(bus, 12345, 12345)
        with pytest.raises(UnavailableError, match="is not a socket of uid"):
            session_bus.address(None, runtime=runtime, environment={})


def test_the_config_comes_before_the_environment(runtime: Path) -> None:
    """What the config says counts, then what the environment says."""
    environment = {"DBUS_SESSION_BUS_ADDRESS": "unix:path=/b"}
    found = [session_bus.address(chosen, runtime=runtime, environment=environment) for chosen in ("unix:path=/a", None)]
    assert ["unix:path=/a", "unix:path=/b"] == found


def test_brokers_of_one_user_take_turns_in_one_place(runtime: Path, tmp_path: Path) -> None:
    """The file that they lock is in the runtime directory, and in the broker's own where there is none."""
    name = "mcp-broker-keyring.lock"
    expected = [runtime / str(os.getuid()) / name, tmp_path / name]
    assert expected == [lock_file(tmp_path, runtime), lock_file(tmp_path, tmp_path / "none")]


@pytest.mark.parametrize(
    ("said", "found"),
    [(None, True), ("unix:path={own}", True), ("unix:path={own},guid=1f", True), ("unix:path=/tmp/other", False)],
    ids=["nothing", "the same", "with its identity", "another"],
)
def test_a_bus_that_only_the_environment_names_is_not_a_daemons(runtime: Path, said: str | None, found: bool) -> None:  # noqa: FBT001 -- a case
    """What would be kept there, the broker would never find again."""
    own = runtime / str(os.getuid()) / "bus"
    environment = {} if said is None else {session_bus.VARIABLE: said.format(own=own)}
    with socket.socket(socket.AF_UNIX) as bus:
        bus.bind(str(own))
        try:
            session_bus.require_found_by_a_daemon(runtime=runtime, environment=environment)
            answer = True
        except UnavailableError:
            answer = False
    assert found == answer
