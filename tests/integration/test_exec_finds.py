"""Where ``exec`` and the commands look for a broker, and whose they believe."""

import os
import pwd
import subprocess
import sys
from pathlib import Path

import pytest

from broker import paths
from broker.launch.wire import Where, sockets
from tests.integration.exec_run import CLIENT_ENVIRONMENT, PREFIX

UID = os.getuid()
OWN = [
    (f"/run/user/{UID}/mcp-broker/broker.sock", {UID}),
    (f"{pwd.getpwuid(UID).pw_dir}/.local/state/mcp-broker/run/broker.sock", {UID}),
]

LISTEN = """
import json, os, signal, socket, sys
path, owner, mode, listener = sys.argv[1], *map(int, sys.argv[2:5])
os.makedirs(os.path.dirname(path))
listening = socket.socket(socket.AF_UNIX)
listening.bind(path)
os.chmod(path, 0o666)
os.chown(os.path.dirname(path), owner, owner)
os.chmod(os.path.dirname(path), mode)
if os.fork() == 0:
    os.setresuid(listener, listener, listener)
    listening.listen()
    os.write(4, b"x")
    os.close(4)
    signal.alarm(10)
    for descriptor in (1, 2):
        os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
    connection, _ = listening.accept()
    for line in connection.makefile("rb"):
        request = json.loads(line)
        result = {"command": ["/bin/echo", "started"], "client_args": False, "env": {}, "files": {}, "pass_env": [],
                  "leases": []}
        connection.sendall(json.dumps({"id": request["id"], "result": result}).encode() + b"\\n")
    os._exit(0)
os.close(4)
os.read(3, 1)
os.execv(sys.argv[5], sys.argv[5:])
"""
"""Listens as somebody, at a path in a directory of somebody's, and becomes the command that follows."""


def from_a_place_of_its_own(path: str, owner: int, mode: int, listener: int, words: list[str]) -> tuple[int, bytes]:
    """Run ``exec`` where /run is empty but for a broker at ``path``; return its status and what it says."""
    reading, writing = os.pipe()
    script = f'mount -t tmpfs -o mode=0755 none /run; exec 3<&{reading} 4>&{writing}; exec "$@"'
    inside = [sys.executable, "-c", LISTEN, path, str(owner), str(mode), str(listener), *PREFIX, "x", *words]
    done = subprocess.run(
        ["unshare", "--mount", "--propagation=private", "/bin/bash", "-c", script, "sh", *inside],
        env=dict(CLIENT_ENVIRONMENT),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        pass_fds=[reading, writing],
        timeout=60,
        check=False,
    )
    os.close(reading)
    os.close(writing)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        (("--user", ""), OWN),
        (("--system", ""), [("/run/mcp-broker/broker.sock", {0})]),
        (("", ""), [*OWN, ("/run/mcp-broker/broker.sock", {0})]),
        (("--dir", "/d"), [("/d/run/broker.sock", {UID})]),
        (("--socket", "/s/broker.sock"), [("/s/broker.sock", {0, UID})]),
        (("--socket", "/s/admin.sock"), [("/s/broker.sock", {0, UID})]),
        (("--socket", "/s/other"), [("/s/other", {0, UID})]),
    ],
)
def test_the_places_follow_from_the_options_and_the_uid(where: Where, expected: list[tuple[str, set[int]]]) -> None:
    """Each option leads to its sockets, and none to the user's own and then the host's."""
    assert expected == sockets(where, "broker.sock")


def test_a_relative_directory_is_the_caller_s(tmp_path: Path) -> None:
    """A directory that does not begin at the root begins where the caller stands."""
    words = [*PREFIX, "x", "--dir", "here"]
    done = subprocess.run(words, cwd=tmp_path, stdin=subprocess.DEVNULL, capture_output=True, timeout=30, check=False)
    assert f"{tmp_path}/here/run/broker.sock" in done.stderr.decode()


def test_exec_and_the_daemon_mean_the_same_places() -> None:
    """What exec repeats, since it can import nothing, is what the daemon listens at."""
    looked_at = {path for path, _ in sockets(("--user", ""), "broker.sock")}
    assert str(paths.user().broker_socket) in looked_at
    assert [str(paths.system().broker_socket)] == [path for path, _ in sockets(("--system", ""), "broker.sock")]
    assert [str(paths.within(Path("d")).admin_socket)] == [path for path, _ in sockets(("--dir", "d"), "admin.sock")]


@pytest.mark.root
@pytest.mark.parametrize(
    ("path", "owner", "mode", "listener", "words", "status"),
    [
        ("/run/mcp-broker/broker.sock", 4242, 0o755, 4242, ["--system"], 0),
        ("/run/mcp-broker/broker.sock", 4242, 0o755, 4242, [], 0),
        ("/run/mcp-broker/broker.sock", 4242, 0o755, 4242, ["--socket", "/run/mcp-broker/broker.sock"], 0),
        ("/run/mcp-broker/broker.sock", 4242, 0o755, 0, ["--system"], 0),
        ("/run/mcp-broker/broker.sock", 4242, 0o755, 4243, ["--system"], 3),
        ("/run/mcp-broker/broker.sock", 4242, 0o775, 4242, ["--system"], 3),
        ("/run/mcp-broker/broker.sock", 4242, 0o755, 4242, ["--user"], 4),
        ("/run/elsewhere/broker.sock", 4242, 0o755, 4242, ["--socket", "/run/elsewhere/broker.sock"], 3),
        ("/run/user/0/mcp-broker/broker.sock", 0, 0o700, 0, [], 0),
        ("/run/user/0/mcp-broker/broker.sock", 0, 0o700, 4242, [], 3),
    ],
)
def test_only_a_broker_of_one_s_own_or_of_the_host_is_believed(  # noqa: PLR0917 - the columns of the table
    path: str, owner: int, mode: int, listener: int, words: list[str], status: int
) -> None:
    """The listener is the caller, root, or the owner of the host's directory that only its owner can write in."""
    found, said = from_a_place_of_its_own(path, owner, mode, listener, words)
    assert (status, status == 0) == (found, said == b"started\n")
