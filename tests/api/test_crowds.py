"""
More connections than one uid may have: its own are refused, and nobody else's.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

import pytest

from broker.api.door import MOST_TURNED_AWAY
from tests import running
from tests.api.wire import GET, WHOAMI, Wire, bystander

MOST: Final = 20
STRANGER: Final = 54321
THOUSANDS: Final = 4000

CONFIG: Final = f"""
[servers.gh]
command = ["true"]
env.GITHUB_TOKEN = "{{github}}"

[limits]
requests_per_second = 0
connections = {MOST}
"""

DEFAULT_LIMITS: Final = """
[servers.gh]
command = ["true"]
unsafe_user_selector = true
selectors = ["uid:0"]
env.GITHUB_TOKEN = "{github}"
"""

CROWD: Final = """
import json, resource, socket, sys
path, count, said = sys.argv[1], int(sys.argv[2]), sys.argv[3].encode() + b"\\n"
most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
held, found = [], {}
for _ in range(count):
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(15)
    held.append(sock)
    try:
        sock.connect(path)
        sock.sendall(said)
        answer = json.loads(sock.makefile("rb").readline() or b"null")
    except (BrokenPipeError, ConnectionResetError):
        answer = None
    what = "closed" if answer is None else "answered" if "result" in answer else answer["error"]["data"]["code"]
    found[what] = found.get(what, 0) + 1
print(json.dumps(found), flush=True)
sys.stdin.read()
"""
"""Opens many connections, keeps them, says what became of each, and waits to be let go."""


@pytest.fixture
def broker() -> Iterator[running.RunningBroker]:
    """Give a broker that lets a uid have a few connections."""
    with running.room() as directory, running.start(directory, config=CONFIG, secrets={"github": "made up"}) as started:
        yield started


@contextmanager
def crowd(path: Path, count: int) -> Iterator[list[Wire]]:
    """Give many connections that have each asked something, so that they are known to be in."""
    with ExitStack() as stack:
        held = [stack.enter_context(Wire(path)) for _ in range(count)]
        for wire in held:
            wire.send(WHOAMI)
            assert wire.line() is not None
        yield held


def test_one_more_is_refused_in_its_dialect(broker: running.RunningBroker) -> None:
    """Over the limit a connection is told so, by a line or by a response, and closed; what was there goes on."""
    path = broker.places.broker_socket
    with crowd(path, MOST) as held, Wire(path) as lines, Wire(path) as http:
        lines.send(WHOAMI)
        http.send(GET)
        line, response = lines.line(), http.response()
        assert line is not None
        assert response is not None
        told = (line["error"]["data"]["code"], response.status, response.code)
        assert ("rate_limited", 429, "rate_limited", True, True) == (*told, lines.hung_up(), http.hung_up())
        held[0].send(WHOAMI)
        assert held[0].line() is not None


def test_a_place_is_free_again_when_one_has_left(broker: running.RunningBroker) -> None:
    """Who hangs up makes room for the next."""

    def admitted() -> bool:
        with Wire(broker.places.broker_socket) as wire:
            wire.send(WHOAMI)
            answer = wire.line()
        return answer is not None and "result" in answer

    with crowd(broker.places.broker_socket, MOST) as held:
        before = admitted()
        held[-1].close()
        assert (False, True) == (before, running.until(admitted, said="a free place"))


def test_the_limit_of_one_socket_is_not_that_of_the_other(broker: running.RunningBroker) -> None:
    """An admin comes in though programs of the same uid have filled the other socket."""
    with crowd(broker.places.broker_socket, MOST):
        assert MOST + 1 == broker.admin("status")["connections"]


def test_who_is_turned_away_and_stays_is_hung_up_on(broker: running.RunningBroker) -> None:
    """Connections over the limit that say nothing, and so cannot be told, are not kept."""
    path = broker.places.broker_socket
    with crowd(path, MOST), ExitStack() as stack:
        silent = [stack.enter_context(Wire(path)) for _ in range(MOST_TURNED_AWAY * 2)]
        assert [True] * len(silent) == [wire.hung_up() for wire in silent]


@pytest.mark.root
def test_thousands_of_one_uid_are_nothing_to_another() -> None:
    """With the limits of a config that names none, one uid gets its thousand and no more, another its credential."""
    with running.room() as directory:
        directory.chmod(0o755)
        held = {"github": "made up"}
        with running.start(directory, config=DEFAULT_LIMITS, mode="system", secrets=held) as broker, bystander(broker):
            words = [*running.as_user(STRANGER), sys.executable, "-I", "-c", CROWD]
            command = [*words, str(broker.places.broker_socket), str(THOUSANDS), WHOAMI.decode().strip()]
            with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as stranger:
                assert stranger.stdout is not None
                found = json.loads(stranger.stdout.readline())
                held_now = broker.admin("status")["connections"]
                with bystander(broker):
                    stranger.communicate(b"")
    refused = found.get("rate_limited", 0) + found.get("closed", 0)
    assert (1024, THOUSANDS - 1024, True) == (found["answered"], refused, 1024 <= held_now <= 1030)
