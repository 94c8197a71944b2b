"""Telling a person: a real program, a real endpoint, and those that hang or fail."""

import asyncio
import json
import os
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from broker.alarms import Alarms
from broker.audit import AuditLog
from broker.config.recording import NotifyConfig
from tests.audit_steps import QUICK, records
from tests.running import start, until

TELLER = """#!/bin/sh
{ cat; env | sort | tr '\\n' ' '; echo; } > "$1.part" && mv "$1.part" "$1"
"""


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """Write a program that keeps what it is told and its environment."""
    path = tmp_path / "tell"
    path.write_text(TELLER)
    path.chmod(0o700)
    return path


def lived(place: Path, config: NotifyConfig, body: Callable[[Alarms], object], *, deadline: float = 10.0) -> str | None:
    """Raise alarms on a log of its own, wait until they were told, and return what went wrong."""

    async def whole() -> str | None:
        log = AuditLog(place / "audit", settings=QUICK)
        await log.open()
        alarms = Alarms(config, audit=log, deadline=deadline)
        body(alarms)
        await asyncio.to_thread(until, lambda: alarms.idle, said="the telling")
        alarms.close()
        await log.close()
        return alarms.trouble

    return asyncio.run(whole())


def test_a_program_gets_json_and_a_clean_environment(tmp_path: Path, program: Path) -> None:
    """The program reads what happened from its stdin, and nothing of the broker's environment."""
    out = tmp_path / "out"
    os.environ["LEFT_OVER"] = "a canary"
    try:
        config = NotifyConfig(program=(str(program), str(out)))
        lived(tmp_path, config, lambda each: each.tell("rotation-failed", "it failed", secret="github", none=None))
    finally:
        del os.environ["LEFT_OVER"]
    said, environment = out.read_text().splitlines()
    found = json.loads(said)
    assert ("rotation-failed", "it failed", {"secret": "github"}, 0) == (
        found["alarm"],
        found["text"],
        found["facts"],
        found["untold"],
    )
    assert {"LANG", "PATH", "PWD"} >= {each.partition("=")[0] for each in environment.split()} - {
        "_",
        "SHLVL",
        "OLDPWD",
    }


def test_every_alarm_is_on_record(tmp_path: Path) -> None:
    """Who is to be told or not: the audit log has it, once for those that are the same."""

    def raise_it(alarms: Alarms) -> None:
        for _ in range(5):
            alarms.tell("chain-broken", "line 3")

    lived(tmp_path, NotifyConfig(), raise_it)
    found = [each for each in records(tmp_path / "audit") if each["event"] == "alarm/raised"]
    assert [("chain-broken", "line 3")] == [(each["why"], each["detail"]) for each in found]


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (("/nowhere/program",), "/nowhere/program cannot be started: no such file or directory"),
        (("/bin/false",), "/bin/false ended with status 1"),
        (("/bin/sleep", "60"), "/bin/sleep took longer than 0.3 s and was ended"),
    ],
)
def test_a_program_that_fails_is_said(tmp_path: Path, command: tuple[str, ...], expected: str) -> None:
    """A program that is missing, fails or hangs is in the log, and the broker goes on."""
    config = NotifyConfig(program=command)
    assert expected == lived(tmp_path, config, lambda each: each.tell("a", "b"), deadline=0.3)


class Listener(BaseHTTPRequestHandler):
    """Keeps what is posted and answers with a status."""

    def do_POST(self) -> None:  # as the library wants it
        """Take one."""
        length = int(self.headers["Content-Length"])
        self.server.posted.append((self.path, self.headers["Authorization"], self.rfile.read(length)))  # type: ignore[attr-defined]
        self.send_response(self.server.status)  # type: ignore[attr-defined]
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 -- as the library has it
        """Say nothing."""


@pytest.fixture
def endpoint() -> Iterator[HTTPServer]:
    """Listen on a port of this host."""
    server = HTTPServer(("127.0.0.1", 0), Listener)
    server.posted, server.status = [], 204  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("status", "trouble"), [(204, None), (500, "127.0.0.1 answered 500"), (302, "127.0.0.1 answered 302")]
)
def test_an_endpoint_gets_it_too(tmp_path: Path, endpoint: HTTPServer, status: int, trouble: str | None) -> None:
    """The same JSON is posted with the token of a file; a no and a redirect are told as what they are."""
    endpoint.status = status  # type: ignore[attr-defined]
    token = tmp_path / "token"
    token.write_text("made-up\n")
    token.chmod(0o600)
    config = NotifyConfig(address=f"http://127.0.0.1:{endpoint.server_port}/in?x=1", token_file=token)
    assert trouble == lived(tmp_path, config, lambda each: each.tell("sink-behind", "for an hour", sink="siem"))
    ((path, authorization, body),) = endpoint.posted  # type: ignore[attr-defined]
    assert ("/in?x=1", "Bearer made-up", "sink-behind") == (path, authorization, json.loads(body)["alarm"])


def test_an_endpoint_that_is_not_there_is_said(tmp_path: Path) -> None:
    """Nobody listens: that is logged, and nothing waits."""
    config = NotifyConfig(address="http://127.0.0.1:1/in")
    assert "127.0.0.1 cannot be reached: Connection refused" == lived(
        tmp_path, config, lambda each: each.tell("a", "b")
    )


def test_another_notify_is_in_force_after_a_reload_and_another_audit_needs_a_restart(tmp_path: Path) -> None:
    """Whom to tell can change under a running broker; how the log is kept cannot, and the message says so."""
    with start(tmp_path / "b") as broker:
        broker.write_config("[notify]\nprogram = ['/bin/true']\n")
        assert "notify: changed" in broker.admin("reload")["changed"]
        broker.write_config("[audit]\nsegment_age = '1h'\n")
        with pytest.raises(Exception, match="a changed \\[audit\\] table needs a restart"):
            broker.admin("reload")
