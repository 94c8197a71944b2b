"""
The verbs over HTTP: that each is there, says what the line dialect says, and that events flow.
"""

import contextlib
import json
import socket
from collections.abc import Iterator
from typing import Any, Final

import pytest

from broker.api.examples import EXAMPLES
from broker.api.http import HEARTBEAT
from broker.api.openapi import document
from broker.api.verbs import ADMIN, WORKLOAD
from tests import running
from tests.api import over_unix
from tests.api.wire import DEADLINE, GET, Wire

CONFIG: Final = """
[servers.gh]
command = ["true"]
env.GITHUB_TOKEN = "{github}"

[limits]
requests_per_second = 50
"""

ASKED_ONCE: Final = ("whoami", "server/list", "lease/list", "secret/list", "audit/segments")
"""Verbs that need no parameters and whose answer is the same a moment later."""


@pytest.fixture
def broker() -> Iterator[running.RunningBroker]:
    """Give a broker that has one secret."""
    with running.room() as directory, running.start(directory, config=CONFIG, secrets={"github": "made up"}) as started:
        yield started


class Client:
    """Speaks HTTP as this process, with a library that knows nothing of us."""

    def __init__(self, broker: running.RunningBroker) -> None:
        """Talk to the admin socket, which knows every verb."""
        self._session = over_unix.session(broker.places.admin_socket)

    def ask(self, method: str, path: str, body: Any = None, **query: Any) -> tuple[int, Any]:  # noqa: ANN401
        """Return the status and the body of the answer."""
        response = self._session.request(method, f"http://broker{path}", json=body, params=query, timeout=DEADLINE)
        plain = response.headers["Content-Type"].startswith("text/plain")
        return response.status_code, {"text": response.text} if plain else response.json()

    def close(self) -> None:
        """Hang up."""
        self._session.close()


@pytest.fixture
def client(broker: running.RunningBroker) -> Iterator[Client]:
    """Give a client of the admin socket."""
    with contextlib.closing(Client(broker)) as made:
        yield made


@pytest.mark.parametrize("verb", ASKED_ONCE)
def test_both_dialects_say_the_same(broker: running.RunningBroker, client: Client, verb: str) -> None:
    """A verb answers the same over HTTP as in a line."""
    broker.call("credential/issue", secret="github")
    method, path = ADMIN[verb].http or ("", "")
    assert (200, broker.admin(verb)) == client.ask(method, path)


def test_a_credential_over_http(client: Client) -> None:
    """``POST /v1/secrets/NAME/issue`` gives the value with its lease."""
    status, issued = client.ask("POST", "/v1/secrets/github/issue")
    assert (200, {"value": "made up"}, 1) == (status, issued["values"], issued["version"])


def test_the_record_says_which_dialect_it_was(broker: running.RunningBroker, client: Client) -> None:
    """An audit record of a release over HTTP says so."""
    client.ask("POST", "/v1/secrets/github/issue")
    said = [each["dialect"] for each in broker.records() if each["event"] == "credential/authorised"]
    assert ["http"] == said


def test_a_lease_over_http(client: Client) -> None:
    """A lease that was issued can be renewed and given back, and then it is gone."""
    _, issued = client.ask("POST", "/v1/secrets/github/issue", {"ttl": "10m"})
    path = f"/v1/leases/{issued['accessor']}"
    renewed, _ = client.ask("POST", f"{path}/renew", {"ttl": 60})
    released = client.ask("DELETE", path)
    gone, error = client.ask("DELETE", path)
    assert (200, (200, {"done": True}), (410, "expired")) == (renewed, released, (gone, error["error"]["code"]))


def test_a_secret_over_http(client: Client) -> None:
    """A secret can be written, listed with its versions, and removed; what is not there is said to be not there."""
    path = "/v1/admin/secrets/app-db"
    written, _ = client.ask("PUT", path, {"values": {"username": "app", "password": "made up"}})
    _, versions = client.ask("GET", f"{path}/versions", backend="local")
    removed, _ = client.ask("DELETE", path)
    again, error = client.ask("DELETE", path)
    fields = versions["versions"][0]["fields"]
    assert (200, ["password", "username"], 200) == (written, sorted(fields), removed)
    assert (400, "invalid_request") == (again, error["error"]["code"])


def test_a_query_may_hold_numbers_and_truths(broker: running.RunningBroker, client: Client) -> None:
    """In a query every parameter is a text, and is read as what the verb wants."""
    pid = broker.pid
    _, explained = client.ask("GET", "/v1/admin/explain", server="gh", pid=str(pid), last="false")
    _, page = client.ask("GET", "/v1/admin/audit/segments/audit.jsonl", offset="0", limit="1")
    assert (pid, True) == (explained["pid"], page["text"].startswith('{"seq":1,'))


def test_what_is_denied_is_denied_in_both_dialects(broker: running.RunningBroker, client: Client) -> None:
    """A secret that nobody is granted is refused with the same message and the same hint."""
    status, said = client.ask("POST", "/v1/secrets/other/issue")
    with pytest.raises(running.AnswerError) as refused:
        broker.call("credential/issue", secret="other")
    error = refused.value
    assert (403, {"code": error.code, "message": error.message, "hint": error.hint}) == (status, said["error"])


def test_who_asks_too_often_is_told_so(broker: running.RunningBroker) -> None:
    """Over its share of requests a uid gets 429, and later gets answers again."""
    with Wire(broker.places.broker_socket) as wire:
        wire.send(GET * 500)
        statuses = [response.status for response in (wire.response() for _ in range(500)) if response is not None]
    assert {200, 429} == set(statuses)
    assert running.until(lambda: _answered(broker), said="an answer")


def _answered(broker: running.RunningBroker) -> bool:
    with Wire(broker.places.broker_socket) as wire:
        wire.send(GET)
        response = wire.response()
    return response is not None and response.status == 200


def test_who_sends_too_many_broken_lines_is_hung_up_on(broker: running.RunningBroker) -> None:
    """What cannot be read counts against the share, and over it the connection ends."""
    with Wire(broker.places.broker_socket) as wire:
        wire.send(b"{\n" * 500)
        codes = [json.loads(line)["error"]["data"]["code"] for line in wire.everything().splitlines()]
    assert ("rate_limited", {"invalid_request"}, True) == (codes[-1], set(codes[:-1]), 40 < len(codes) < 500)


class Events:
    """A stream of server-sent events, read by hand."""

    def __init__(self, broker: running.RunningBroker) -> None:
        """Begin to watch."""
        self.wire = Wire(broker.places.broker_socket)
        self.wire.send(b"GET /v1/leases/watch HTTP/1.1\r\nHost: broker\r\n\r\n")
        self._file = self.wire.socket.makefile("rb")
        self.head = self._until_blank()

    def _until_blank(self) -> list[bytes]:
        lines = []
        while (line := self._file.readline()) not in {b"\r\n", b""}:
            lines.append(line.strip())
        return lines

    def next(self) -> tuple[str, Any]:
        """Return the name and the content of the next event."""
        size = int(self._file.readline(), 16)
        name, content = self._file.read(size).decode().rstrip("\n").split("\n")
        self._file.readline()
        return name.removeprefix("event: "), json.loads(content.removeprefix("data: "))

    def close(self) -> None:
        """Hang up."""
        self._file.close()
        self.wire.close()


def test_a_change_is_told_at_once(broker: running.RunningBroker) -> None:
    """A watcher first hears which leases it has, and then what becomes of them."""
    accessor = broker.call("credential/issue", secret="github")["accessor"]
    with contextlib.closing(Events(broker)) as events:
        first = events.next()
        broker.admin("secret/set", name="github", values={"value": "made up, too"})
        second = events.next()
        broker.admin("lease/revoke", accessor=accessor)
        third = events.next()
    changed = {"accessor": accessor, "secret": "github"}
    assert ("lease/watching", {"leases": [accessor]}) == first
    assert ("lease/changed", changed | {"reason": "rotated"}) == second
    assert ("lease/changed", changed | {"reason": "revoked"}) == third


def test_a_stream_is_one_that_no_cache_keeps(broker: running.RunningBroker) -> None:
    """The head of the stream says what it is."""
    with contextlib.closing(Events(broker)) as events:
        assert {b"Content-Type: text/event-stream", b"Cache-Control: no-store"} <= set(events.head)


def test_who_stops_watching_is_let_go(broker: running.RunningBroker) -> None:
    """When the reader of a stream hangs up, the broker does so too, and tells the next change to nobody."""
    broker.call("credential/issue", secret="github")
    for how in (socket.SHUT_WR, socket.SHUT_RDWR):
        with contextlib.closing(Events(broker)) as events:
            events.next()
            events.wire.socket.shutdown(how)
            left = running.until(
                lambda: broker.admin("status")["connections"] == 1, deadline=HEARTBEAT / 2, said="its end"
            )
            assert left
    broker.admin("secret/set", name="github", values={"value": "made up, too"})
    assert "failed" not in broker.log


def test_stop_is_answered_before_it_happens(broker: running.RunningBroker) -> None:
    """``POST /v1/admin/stop`` gets its answer, and then the broker ends in order."""
    with Wire(broker.places.admin_socket) as wire:
        wire.send(b"POST /v1/admin/stop HTTP/1.1\r\nHost: broker\r\n\r\n")
        response = wire.response()
        assert response is not None
        assert (200, {"done": True}, 0) == (response.status, response.json, broker.wait())


def test_a_broker_ends_though_somebody_watches(broker: running.RunningBroker) -> None:
    """Open connections of both dialects, streams among them, do not keep the broker from ending."""
    with contextlib.closing(Events(broker)) as events, broker.connect() as idle:
        events.next()
        idle.call("lease/watch")
        assert 0 == broker.stop()


def test_the_first_request_of_all_is_answered(broker: running.RunningBroker) -> None:
    """The dialect is loaded when the first request comes; those that come meanwhile wait for it and are answered."""
    with contextlib.ExitStack() as stack:
        wires = [stack.enter_context(Wire(broker.places.broker_socket)) for _ in range(20)]
        for wire in wires:
            wire.send(GET)
        answers = [wire.response() for wire in wires]
    assert [200] * 20 == [None if answer is None else answer.status for answer in answers]


@pytest.mark.parametrize("name", [name for name, verb in ADMIN.items() if verb.http is not None])
def test_every_path_is_there(client: Client, broker: running.RunningBroker, name: str) -> None:
    """Each verb of the table answers at its path, with its example, something other than that nothing is there."""
    if name in {"lease/watch", "stop"}:
        return
    method, path = ADMIN[name].http or ("", "")
    params = dict(EXAMPLES[name].params)
    in_path = {field: params.pop(field) for field in list(params) if "{" + field + "}" in path}
    with_body = method in {"POST", "PUT"}
    status, _ = client.ask(
        method, path.format(**in_path), params if with_body else None, **({} if with_body else params)
    )
    assert status not in {404, 405}
    assert "unexpectedly" not in broker.log


def test_workloads_know_nothing_of_what_admins_can_do(broker: running.RunningBroker) -> None:
    """On ``broker.sock`` no path of an admin is there."""
    admin = {path for name, verb in ADMIN.items() if name not in WORKLOAD and verb.http for path in [verb.http[1]]}
    found = []
    with Wire(broker.places.broker_socket) as wire:
        for path in admin:
            wire.send(f"GET {path} HTTP/1.1\r\nHost: broker\r\n\r\n".replace("{", "").replace("}", "").encode())
            response = wire.response()
            assert response is not None
            found.append(response.status)
    assert (True, {404}) == (all(path in document()["paths"] for path in admin), set(found))
