"""
``service install`` and ``uninstall`` without a systemd: below a directory taken for ``/``, or in a broker's own.
"""

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pytest

from broker.service_units import CARRIED, placed
from tests.running import room, start

SYSTEM: Final = {
    "etc/systemd/system/mcp-broker.service",
    "etc/systemd/system/mcp-broker.socket",
    "etc/systemd/system/mcp-broker-admin.socket",
    "etc/sysusers.d/mcp-broker.conf",
    "etc/tmpfiles.d/mcp-broker.conf",
}


def run(command: Path, *words: str | Path) -> subprocess.CompletedProcess[str]:
    """Run our command; systemd's are not in its PATH."""
    return subprocess.run(
        [command, *words],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        timeout=60,
        env={"PATH": "/nonexistent", "HOME": "/nonexistent"},
    )


def files(root: Path) -> set[str]:
    """Return every file below a directory."""
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


def install(command: Path, root: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Put the host's units into a directory."""
    return run(command, "service", "install", "--system", "--root", root, *words)


def test_the_host_s_units_are_put_and_taken_away(mcp_broker: Path, tmp_path: Path) -> None:
    """Every file comes to its place, a second time changes nothing, and all of it goes again."""
    first = install(mcp_broker, tmp_path)
    there = files(tmp_path)
    again = install(mcp_broker, tmp_path)
    gone = install(mcp_broker, tmp_path, "--remove")
    assert (0, SYSTEM, 0) == (first.returncode, there, gone.returncode)
    assert (5, 0) == (again.stdout.count("there  "), again.stdout.count("put  "))
    assert set() == files(tmp_path)


def test_a_dry_run_does_nothing(mcp_broker: Path, tmp_path: Path) -> None:
    """It says what it would do, in either direction, and nothing else happens."""
    said = install(mcp_broker, tmp_path, "--dry-run").stdout
    nothing = files(tmp_path)
    install(mcp_broker, tmp_path)
    install(mcp_broker, tmp_path, "--remove", "--dry-run")
    assert (True, set(), SYSTEM) == ("would: put" in said, nothing, files(tmp_path))


def test_the_units_start_this_installation(mcp_broker: Path, tmp_path: Path) -> None:
    """What systemd is to start is the command that has put the unit there."""
    install(mcp_broker, tmp_path)
    unit = (tmp_path / "etc/systemd/system/mcp-broker.service").read_text()
    assert f"\nExecStart={mcp_broker.absolute()} serve --system\n" in unit


@pytest.mark.parametrize(
    ("command", "word"),
    [
        ("/opt/mcp-broker/bin/mcp-broker", "/opt/mcp-broker/bin/mcp-broker"),
        ("/opt/with a space/bin/mcp-broker", '"/opt/with a space/bin/mcp-broker"'),
        ('/opt/100%$"\\/bin/mcp-broker', '"/opt/100%%$$\\"\\\\/bin/mcp-broker"'),
        ("/home/p/.local/bin/mcp-broker", "/home/p/.local/bin/mcp-broker"),
    ],
)
def test_systemd_reads_the_command_as_it_is(command: str, word: str) -> None:
    """Whatever the path has in it, systemd understands it as that path."""
    found = placed("user", command=Path(command), home=Path("/home/p"), root=Path("/"))
    (service,) = (file.text for file in found if file.path.name == "mcp-broker.service")
    assert f"\nExecStart={word} serve --user\n" in service


def test_the_link_that_outlives_an_upgrade_is_preferred(tmp_path: Path) -> None:
    """Where pipx or uv has made a link to this installation, a user's unit starts that."""
    command = tmp_path / "venv/bin/mcp-broker"
    link = tmp_path / ".local/bin/mcp-broker"
    for path in (command, link):
        path.parent.mkdir(parents=True)
    command.touch()
    link.symlink_to(command)
    found = placed("user", command=command, home=tmp_path, root=Path("/"))
    assert any("\nExecStart=%h/.local/bin/mcp-broker serve --user\n" in file.text for file in found)


@pytest.mark.parametrize("text", ["[Unit]\n# somebody's own\n", None])
def test_what_somebody_else_wrote_stays(mcp_broker: Path, tmp_path: Path, text: str | None) -> None:
    """A file that is not from this command, or was changed since, is neither replaced nor removed."""
    install(mcp_broker, tmp_path)
    unit = tmp_path / "etc/systemd/system/mcp-broker.service"
    mine = unit.read_text() + "# and more\n" if text is None else text
    unit.write_text(mine)
    refused = install(mcp_broker, tmp_path)
    removed = install(mcp_broker, tmp_path, "--remove")
    assert (78, 0, mine) == (refused.returncode, removed.returncode, unit.read_text())
    assert {"etc/systemd/system/mcp-broker.service"} == files(tmp_path)


def test_an_older_version_s_file_is_replaced(mcp_broker: Path, tmp_path: Path) -> None:
    """What an earlier version has put there, and nobody has changed, becomes this version's."""
    (unit,) = (
        file
        for file in placed("system", command=Path("/old/bin/mcp-broker"), home=tmp_path, root=tmp_path)
        if file.path.name == "mcp-broker.service"
    )
    unit.put()
    done = install(mcp_broker, tmp_path)
    assert (0, True) == (done.returncode, str(mcp_broker) in unit.path.read_text())


def test_the_wheel_carries_every_unit() -> None:
    """The files are inside of the package, and nowhere else."""
    assert {"system", "user", "sysusers.d", "tmpfiles.d"} == {path.name for path in CARRIED.iterdir()}


@pytest.mark.parametrize(
    ("words", "left"),
    [
        ([], {"config", "state", "run"}),
        (["--state", "--dry-run", "--yes"], {"config", "state", "run"}),
        (["--state"], {"config", "state", "run"}),
        (["--state", "--yes"], {"config"}),
        (["--config", "--yes"], {"state"}),
        (["--all", "--yes"], set()),
    ],
)
def test_uninstall_takes_what_is_named(mcp_broker: Path, words: Sequence[str], left: set[str]) -> None:
    """Nothing goes that was not asked for, and nothing without a yes; a broker that runs is stopped before."""
    with room() as directory, start(directory / "b", secrets={"github": "made up"}):
        run(mcp_broker, "uninstall", "--dir", directory / "b", *words)
        there = {path.name for path in (directory / "b").iterdir() if path.is_dir() and any(path.iterdir())}
    assert left == there


def test_uninstall_leaves_a_directory_that_is_no_broker_s(mcp_broker: Path) -> None:
    """A directory in which nothing is ours is not offered, whatever it is called."""
    with room() as directory:
        (directory / "b/state").mkdir(parents=True)
        (directory / "b/state/thesis.txt").write_text("years of work")
        run(mcp_broker, "uninstall", "--all", "--yes", "--dir", directory / "b")
        assert {"state/thesis.txt"} == files(directory / "b")
