"""
The units in ``broker/units/``, as systemd itself reads them.

Nothing here starts a service: the units are read by ``systemd-analyze``, with
the command swapped for one that exists, because where the broker will be
installed it is not yet.
"""

import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import pytest

from broker import paths

UNITS: Final = Path(__file__).resolve().parent.parent / "broker/units"
SYSTEM: Final = sorted((UNITS / "system").iterdir())
USER: Final = sorted((UNITS / "user").iterdir())

BLINDING: Final = {"PrivateUsers": {"no"}, "ProtectProc": {"default"}, "ProcSubset": {"all"}, "PrivatePIDs": {"no"}}
"""Options that hide from the broker who is asking, and what they may be set to."""

needs_systemd = pytest.mark.live("systemd-analyze", commands=["systemd-analyze"])


def settings(unit: Path) -> Mapping[str, Sequence[str]]:
    """Return every key of a unit with its values, in order."""
    found: dict[str, list[str]] = {}
    for key, value in re.findall(r"^(\w+)=(.*)$", unit.read_text(), re.MULTILINE):
        found.setdefault(key, []).append(value)
    return found


def installed(units: Sequence[Path], directory: Path) -> list[Path]:
    """Copy units to where their command exists; return the copies."""
    for unit in units:
        text = re.sub(r"=\S+/bin/mcp-broker ", "=/bin/true ", unit.read_text())
        (directory / unit.name).write_text(text)
    return [directory / unit.name for unit in units]


def analyze(*words: str | Path, runtime: Path) -> tuple[int, str]:
    """Run ``systemd-analyze`` and return its status and all that it says."""
    run = subprocess.run(
        ["systemd-analyze", *words],
        env={**os.environ, "XDG_RUNTIME_DIR": str(runtime), "SYSTEMD_COLORS": "0"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=60,
    )
    return run.returncode, run.stdout


@needs_systemd
@pytest.mark.parametrize(("scope", "units"), [("--system", SYSTEM), ("--user", USER)], ids=["system", "user"])
def test_systemd_accepts_the_units_without_a_word(scope: str, units: Sequence[Path], tmp_path: Path) -> None:
    """The units of either mode verify together, with no warning."""
    assert (0, "") == analyze("verify", scope, *installed(units, tmp_path), runtime=tmp_path)


@needs_systemd
def test_the_system_service_is_rated_safe(tmp_path: Path) -> None:
    """The exposure of the system service is at most 1.0 of 10."""
    (service,) = installed([UNITS / "system/mcp-broker.service"], tmp_path)
    status, _ = analyze("security", "--offline=yes", "--no-pager", "--threshold=10", service, runtime=tmp_path)
    assert 0 == status


@pytest.mark.parametrize("unit", [*SYSTEM, *USER], ids=lambda unit: f"{unit.parent.name}/{unit.name}")
def test_no_unit_blinds_attestation(unit: Path) -> None:
    """No unit has an option that hides other processes or their users from the broker."""
    assert [] == [key for key, harmless in BLINDING.items() if set(settings(unit).get(key, ())) - harmless]


def test_the_user_service_needs_no_namespace() -> None:
    """The user service sets nothing that a user's manager can only do in a user namespace."""
    namespaced = re.compile("Protect|Private|Bind|ReadOnly|ReadWrite|Inaccessible|TemporaryFile|Root|ExecPaths|NoExec")
    assert [] == [key for key in settings(UNITS / "user/mcp-broker.service") if namespaced.match(key)]


@pytest.mark.parametrize("mode", ["system", "user"])
@pytest.mark.parametrize("unit", ["mcp-broker.service", "mcp-broker.socket", "mcp-broker-admin.socket"])
def test_there_is_a_unit_for_each_mode(mode: str, unit: str) -> None:
    """Service and both sockets exist for both modes."""
    assert (UNITS / mode / unit).is_file()


@pytest.mark.parametrize(
    ("unit", "name", "socket", "mode"),
    [
        ("system/mcp-broker.socket", "broker", str(paths.system().broker_socket), "0666"),
        ("system/mcp-broker-admin.socket", "admin", str(paths.system().admin_socket), "0660"),
        ("user/mcp-broker.socket", "broker", "%t/mcp-broker/broker.sock", "0600"),
        ("user/mcp-broker-admin.socket", "admin", "%t/mcp-broker/admin.sock", "0600"),
    ],
)
def test_each_socket_is_where_clients_look_and_no_wider(unit: str, name: str, socket: str, mode: str) -> None:
    """A socket unit listens where clients connect, under the name the daemon expects, with the mode of its kind."""
    found = settings(UNITS / unit)
    expected = ([name], [socket], [mode])
    assert expected == (found["FileDescriptorName"], found["ListenStream"], found["SocketMode"])


def test_admins_of_the_host_are_a_group() -> None:
    """The admin socket of the host belongs to the group that the documents name, and sysusers makes that group."""
    (group,) = settings(UNITS / "system/mcp-broker-admin.socket")["SocketGroup"]
    groups = re.findall(r"^g (\S+)", (UNITS / "sysusers.d/mcp-broker.conf").read_text(), re.MULTILINE)
    assert (["mcp-broker-admin"], "mcp-broker-admin") == (groups, group)


@pytest.mark.parametrize("service", [UNITS / "system/mcp-broker.service", UNITS / "user/mcp-broker.service"])
def test_values_in_memory_reach_no_disk(service: Path) -> None:
    """Neither service dumps core or swaps."""
    found = settings(service)
    assert (["0"], ["0"]) == (found["LimitCORE"], found["MemorySwapMax"])


@pytest.mark.root
@pytest.mark.live("systemd-sysusers", commands=["systemd-sysusers"])
def test_sysusers_makes_the_uid_and_the_group(tmp_path: Path) -> None:
    """The sysusers fragment makes the uid of the service and the group of the admins."""
    (tmp_path / "etc").mkdir()
    subprocess.run(["systemd-sysusers", f"--root={tmp_path}", UNITS / "sysusers.d/mcp-broker.conf"], check=True)
    users = [line.split(":")[0] for line in (tmp_path / "etc/passwd").read_text().splitlines()]
    groups = [line.split(":")[0] for line in (tmp_path / "etc/group").read_text().splitlines()]
    assert (["mcp-broker"], {"mcp-broker", "mcp-broker-admin"}) == (users, set(groups))
