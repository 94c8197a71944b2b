"""
``exec`` where the server cannot be started: it stays, and every request is answered with what to do.

Byte by byte, because a client that cannot read the answer shows nothing.
"""

import json
import os
import pty
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from broker.errors import MEANINGS
from broker.launch import failure, wire
from tests.fakes.wire_broker import Refuse, WireBroker, opened
from tests.integration.exec_run import CLIENT_ENVIRONMENT, PREFIX, run

MESSAGE = "mcp-broker cannot start the server 'github': not allowed. To mend it: mcp-broker explain github"
ERROR = (
    '{"code":-32001,"message":"' + MESSAGE + '","data":{"code":"denied","hint":"mcp-broker explain github"}}'
).encode()

INITIALIZE = (
    b'{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{},'
    b'"clientInfo":{"name":"c","version":"1"}}}'
)
DISCOVER = (
    b'{"jsonrpc":"2.0","id":"probe-1","method":"server/discover","params":{"_meta":'
    b'{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}}'
)


def denied(_: dict[str, Any]) -> None:
    """Refuse."""
    raise Refuse(code="denied", message="not allowed", hint="mcp-broker explain github")


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[WireBroker]:
    """Return a broker that refuses to open any server."""
    with WireBroker(tmp_path / "b", {"server/open": denied}) as listening:
        yield listening


def reply(identifier: bytes) -> bytes:
    """Return the answer to the request of that id."""
    return b'{"jsonrpc":"2.0","id":' + identifier + b',"error":' + ERROR + b"}"


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        (INITIALIZE, reply(b"0")),
        (DISCOVER, reply(b'"probe-1"')),
        (b'{"jsonrpc":"2.0","id":7,"method":"tools/list"}', reply(b"7")),
        (b'{"id":9007199254740993,"method":"ping"}', reply(b"9007199254740993")),
        (b'{"id":' + b"9" * 6000 + b',"method":"ping"}', reply(b"9" * 6000)),
        (b'{"id":1.0,"method":"ping"}', reply(b"1.0")),
        (b'{"id":-1E400,"method":"ping"}', reply(b"-1E400")),
        (b'{"id":"","method":"ping"}', reply(b'""')),
        ('{"id":"ä\\n\\u2028\\ud800\\"","method":"ping"}'.encode(), reply(b'"\\u00e4\\n\\u2028\\ud800\\""')),
        (b'{"id":null,"method":"ping"}', reply(b"null")),
        (b'{"id":{"a":[1]},"method":"ping"}', reply(b"null")),
        (b'{"method":"ping","params":{"id":5},"id":6}', reply(b"6")),
        (b'  \t{"id":1,"method":"ping"}\r', reply(b"1")),
        (b'{"id":1,"method":"ping","params":"\xff\xfe"}', reply(b"1")),
        (b'{"id":1,"method":"x","params":' + b"[" * 200_000 + b"]" * 200_000 + b"}", reply(b"1")),
        (
            b'{"params":' + b'{"id":2,"a":' * 90_000 + b"1" + b"}" * 90_000 + b',"method":"x","id":"\\"1"}',
            reply(b'"\\"1"'),
        ),
        (
            b'[{"id":1,"method":"a"},{"method":"notifications/x"},{"id":"b","method":"b"},3]',
            b"[" + reply(b"1") + b"," + reply(b'"b"') + b"]",
        ),
        (b'{"method":"notifications/initialized"}', None),
        (b'[{"method":"notifications/initialized"}]', None),
        (b'{"id":1,"result":{}}', None),
        (b'{"id":1,"error":{"code":1,"message":"m"}}', None),
        (b"", None),
        (b"garbage", None),
        (b'{"id":1,"method":"x"', None),
        (b"\x00\xff", None),
        (b'"id"', None),
        (b"[]", None),
    ],
    ids=lambda value: value[:40].decode("utf-8", "replace") if isinstance(value, bytes) else "nothing",
)
def test_each_line_gets_its_answer(broker: WireBroker, line: bytes, answer: bytes | None) -> None:
    """A request of either era is answered under its own id, and what asks nothing gets no answer."""
    done = run(["github", *broker.where], send=line + b"\n" + DISCOVER + b"\n")
    expected = [each for each in (answer, reply(b'"probe-1"')) if each is not None]
    assert (expected, 3) == (done.stdout.splitlines(), done.returncode)


def test_a_last_line_without_its_end_is_answered(broker: WireBroker) -> None:
    """The end of the input ends the last line."""
    assert reply(b"0") + b"\n" == run(["github", *broker.where], send=INITIALIZE).stdout


@pytest.mark.parametrize(("longer", "count"), [(0, 2), (1, 1)])
def test_a_line_is_answered_up_to_the_longest_that_clients_send(broker: WireBroker, longer: int, count: int) -> None:
    """A request of 10 MiB is answered; a longer one is passed over, and the next is answered."""
    frame = b'{"id":1,"method":"x","params":""}'
    line = frame[:-2] + b"x" * (10 * 1024 * 1024 - len(frame) + longer) + frame[-2:]
    assert count == len(run(["github", *broker.where], send=line + b"\n" + INITIALIZE + b"\n").stdout.splitlines())


def test_stderr_says_it_too(broker: WireBroker) -> None:
    """What is wrong and what mends it stand on stderr, in the form of every command."""
    done = run(["github", *broker.where])
    assert b"mcp-broker: not allowed\nhint: mcp-broker explain github\n" == done.stderr


@pytest.mark.parametrize("code", MEANINGS)
def test_each_code_of_the_broker_has_its_number_and_its_status(broker: WireBroker, code: str) -> None:
    """A refusal keeps the broker's code, the number of it in JSON-RPC, and ends with its exit status."""

    def refuse(_: dict[str, Any]) -> None:
        raise Refuse(code)

    broker.verbs["server/open"] = refuse
    done = run(["x", *broker.where], send=INITIALIZE)
    error = json.loads(done.stdout)["error"]
    meaning = MEANINGS[code]
    assert (meaning.exit, meaning.jsonrpc, {"code": code, "hint": None}) == (
        done.returncode,
        error["code"],
        error["data"],
    )


def test_the_table_of_codes_is_the_broker_s() -> None:
    """What exec cannot import it repeats without a difference."""
    assert {code: (each.jsonrpc, each.exit) for code, each in MEANINGS.items()} == failure.MEANINGS


@pytest.mark.parametrize(
    ("result", "says"),
    [
        (None, "not one that this version understands"),
        ({"server": "x"}, "not one that this version understands"),
        (opened(env={"T": 1}), "not one that this version understands"),
        (opened(command=[]), "has no command"),
        (opened(command=["no-such-server"]), "there is no 'no-such-server' in the PATH"),
        (opened(command=["/etc/passwd"]), "cannot start /etc/passwd: it may not be executed"),
        (opened(command=["/nowhere/x"]), "cannot start /nowhere/x: there is no such file"),
        (opened(env={"T": "canary-3\0"}), "the value of T has a zero byte in it"),
        (opened(env={"T": "canary-3" * 20_000}), "the value of T is longer than an environment can hold"),
        (opened(env={"A=B": "canary-3"}), "'A=B' cannot be the name of a variable"),
        (opened(env={"T": "canary-3\ud800"}), "exec failed unexpectedly (UnicodeEncodeError)"),
        (opened(files={"../T": "canary-3"}), "'../T' cannot be the name of a variable"),
    ],
)
def test_what_cannot_be_started_is_said_without_its_value(tmp_path: Path, result: Any, says: str) -> None:  # noqa: ANN401
    """An answer that makes no server is refused in words that name what is wrong and hold no value."""
    with WireBroker(tmp_path / "b", {"server/open": lambda _: result, "lease/release": lambda _: {}}) as broker:
        done = run(["x", *broker.where], send=INITIALIZE)
        assert says in json.loads(done.stdout)["error"]["message"]
        assert b"canary" not in done.stdout + done.stderr


def test_what_was_released_goes_back_when_the_server_cannot_start(broker: WireBroker) -> None:
    """Leases of a server that does not start are given back, because exec may stay for long."""
    broker.verbs["server/open"] = lambda _: opened(command=["/nowhere/x"], leases=["a1", "b2"])
    run(["x", *broker.where], send=INITIALIZE)
    assert [{"accessor": "a1"}, {"accessor": "b2"}] == broker.asked("lease/release")


def test_a_missing_broker_is_named_with_what_starts_it(tmp_path: Path) -> None:
    """Where no broker listens, the answer names the socket and the command."""
    done = run(["x", "--dir", str(tmp_path)], send=INITIALIZE)
    error = json.loads(done.stdout)["error"]
    assert f"no broker answers at {tmp_path}/run/broker.sock" in error["message"]
    assert ({"code": "unavailable", "hint": f"mcp-broker init --dir {tmp_path}"}, 4) == (
        error["data"],
        done.returncode,
    )


def test_a_broker_that_is_just_starting_is_waited_for(tmp_path: Path) -> None:
    """A socket that appears a moment later is found."""
    pipe = subprocess.PIPE
    words = [*PREFIX, "x", "--dir", str(tmp_path / "b")]
    with subprocess.Popen(words, stdin=pipe, stdout=pipe, env=dict(CLIENT_ENVIRONMENT)) as child:
        time.sleep(0.3)
        with WireBroker(tmp_path / "b", {"server/open": lambda _: opened(command=["/bin/echo", "started"])}):
            assert b"started\n" == child.communicate(timeout=60)[0]


def test_a_broker_that_hangs_is_told_from_one_that_is_missing(broker: WireBroker) -> None:
    """A broker that accepts and says nothing is given up within seconds, and named."""
    broker.mute = True
    begun = time.monotonic()
    done = run(["x", *broker.where])
    assert b"accepts connections but does not answer" in done.stderr
    assert (4, True) == (done.returncode, time.monotonic() - begun < 15)


def test_a_backend_that_is_slow_is_waited_for(broker: WireBroker) -> None:
    """A broker that has said who it is may take longer for the rest than one that says nothing."""

    def slow(_: dict[str, Any]) -> dict[str, Any]:
        time.sleep(wire.SPEAK_WITHIN + 0.5)
        return opened(command=["/bin/echo", "started"])

    broker.verbs["server/open"] = slow
    assert b"started\n" == run(["x", *broker.where]).stdout


def test_a_broker_that_hangs_up_is_said(broker: WireBroker) -> None:
    """A connection that ends before the answer is an error of its own."""
    broker.hang_up = True
    assert b"closed the connection without an answer" in run(["x", *broker.where]).stderr


@pytest.mark.root
def test_somebody_else_s_broker_is_not_asked(tmp_path: Path) -> None:
    """Where another uid listens at the broker's place, nothing is sent and nothing started."""
    (tmp_path / "run").mkdir()
    code = (
        "import os, socket, sys; s = socket.socket(socket.AF_UNIX); os.setuid(65534); s.bind(sys.argv[1]); s.listen()"
    )
    read = "print(1, flush=True); c = s.accept()[0]; c.settimeout(5); print(len(c.recv(1)), flush=True)"
    os.chown(tmp_path / "run", 65534, 65534)
    for directory in (tmp_path, *tmp_path.parents[:-2]):
        directory.chmod(0o755)
    words = [sys.executable, "-I", "-S", "-c", f"{code}; {read}", str(tmp_path / "run/broker.sock")]
    with subprocess.Popen(words, stdout=subprocess.PIPE, cwd="/") as other:
        assert other.stdout is not None
        other.stdout.readline()
        done = run(["x", "--dir", str(tmp_path)])
        assert (3, b"belongs to uid 65534" in done.stderr, b"0\n") == (done.returncode, True, other.stdout.readline())


def test_a_terminal_is_not_kept_waiting() -> None:
    """A person who types the command gets the message and the status at once."""
    master, slave = pty.openpty()
    words = [*PREFIX, "x", "--dir", "/nowhere"]
    done = subprocess.run(
        words, stdin=slave, capture_output=True, env=dict(CLIENT_ENVIRONMENT), timeout=30, check=False
    )
    os.close(master)
    os.close(slave)
    assert (4, b"", b"mcp-broker: no broker") == (done.returncode, done.stdout, done.stderr[:21])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_at_once(broker: WireBroker, number: signal.Signals) -> None:
    """A client that ends the process by a signal does not wait, and sees no traceback."""
    pipe = subprocess.PIPE
    words = [*PREFIX, "x", *broker.where]
    with subprocess.Popen(words, stdin=pipe, stdout=pipe, stderr=pipe, env=dict(CLIENT_ENVIRONMENT)) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(INITIALIZE + b"\n")
        child.stdin.flush()
        child.stdout.readline()
        child.send_signal(number)
        assert (-number, False) == (child.wait(timeout=5), b"Traceback" in child.communicate()[1])


def test_answers_come_while_the_input_is_open_and_end_when_nobody_reads(broker: WireBroker) -> None:
    """Each request is answered before the next, and a closed stdout ends the process."""
    ours, theirs = socket.socketpair()
    words = [*PREFIX, "x", *broker.where]
    with (
        ours,
        subprocess.Popen(words, stdin=theirs.fileno(), stdout=theirs.fileno(), env=dict(CLIENT_ENVIRONMENT)) as child,
    ):
        theirs.close()
        for _ in range(3):
            ours.sendall(INITIALIZE + b"\n")
            assert b'"code":-32001' in ours.recv(4096)
        ours.close()
        assert 3 == child.wait(timeout=10)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "no server is named"),
        (["a", "b"], "does not understand 'b'"),
        (["--sytem", "a"], "does not understand '--sy"),
    ],
)
def test_a_wrong_command_line_is_told_to_the_client_too(words: list[str], says: str) -> None:
    """A mistake in the client's config is shown by the client, and ends with the status of a usage error."""
    done = run(words, send=INITIALIZE)
    assert (2, True) == (done.returncode, says in json.loads(done.stdout)["error"]["message"])
