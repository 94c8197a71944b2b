"""Copies: all of them, in order, at least once, whatever the sink does meanwhile; nobody waits but who is told to."""

import json
import re
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.audit.listening import Heard, certificate, endpoint, journal, syslog
from tests.running import ONE_SERVER, AnswerError, RunningBroker, start, until

SECRETS = {"github": "made up"}


@pytest.fixture
def place() -> Iterator[Path]:
    """Give a directory whose path is short enough for a socket."""
    import tempfile  # noqa: PLC0415 -- here alone

    with tempfile.TemporaryDirectory(prefix="broker-") as name:
        yield Path(name)


def config(address: str, kind: str, *, audit: str = "", more: str = "") -> str:
    """Return a config with one sink for records."""
    sink = f'[audit.sinks.there]\ntype = "{kind}"\nsend = "records"\naddress = "{address}"\n{more}\n'
    return f"[audit]\nsegment_bytes = 65536\n{audit}\n{sink}{ONE_SERVER}"


def issue(broker: RunningBroker, count: int) -> None:
    """Have so many releases recorded."""
    with broker.connect() as connection:
        for _ in range(count):
            connection.call("credential/issue", secret="github")


def sink(broker: RunningBroker) -> dict[str, Any]:
    """Return how the sink is."""
    found: dict[str, Any] = broker.admin("status")["audit"]["sinks"][0]
    return found


def all_there(broker: RunningBroker, heard: Heard) -> bool:
    """Return whether the sink has every record that there is now."""
    return sink(broker)["behind"] == 0 and bool(heard.numbers)


def in_order(numbers: list[int]) -> bool:
    """Return whether every number is there, each after the one before; what was sent twice begins again earlier."""
    first = list(dict.fromkeys(numbers))
    return first == list(range(1, len(first) + 1))


def test_journald_gets_every_record_as_a_field(place: Path) -> None:
    """The native protocol: one datagram for each, the record itself as its message."""
    text = config(str(place / "j"), "journald")
    with journal(place / "j") as heard, start(place / "b", config=text, secrets=SECRETS) as broker:
        issue(broker, 50)
        until(lambda: all_there(broker, heard), said="the copies")
        until(lambda: bool(heard.checkpoints), said="the checkpoint")
        assert in_order(heard.numbers)
        assert broker.records()[: len(heard.numbers)] == [each for each in heard.texts if "seq" in each]
        assert {b"SYSLOG_IDENTIFIER=mcp-broker", b"PRIORITY=5"} <= set(heard.raw[0].splitlines())
        assert [1] == heard.checkpoints[:1]


def test_syslog_gets_them_over_tls_with_their_length(place: Path) -> None:
    """RFC 5424 with octet counting, from a host whose certificate is checked; the time is the record's own."""
    pem = certificate(place / "pem")
    with ExitStack() as stack:
        heard, port = stack.enter_context(syslog(pem))
        text = config(f"tls://127.0.0.1:{port}", "syslog", more=f'ca_file = "{pem}"')
        broker = stack.enter_context(start(place / "b", config=text, secrets=SECRETS))
        issue(broker, 400)
        until(lambda: all_there(broker, heard), said="the copies")
        assert in_order(heard.numbers)
        form = rb"<109>1 [0-9TZ:.-]+ \S+ mcp-broker [0-9]+ [a-z-]+/[a-z-]+ - \{.*\}"
        assert [] == [raw for raw in heard.raw if not re.fullmatch(form, raw)]
        times = [(each["time"], raw.split()[1].decode()) for each, raw in zip(heard.texts, heard.raw, strict=True)]
        assert [] == [pair for pair in times if pair[0] != pair[1]]


def test_a_host_that_is_somebody_else_gets_nothing(place: Path) -> None:
    """A certificate that is not the expected one: nothing is sent, and status says why."""
    pem, other = certificate(place / "pem"), certificate(place / "other")
    with ExitStack() as stack:
        heard, port = stack.enter_context(syslog(pem))
        text = config(f"tls://127.0.0.1:{port}", "syslog", more=f'ca_file = "{other}"')
        broker = stack.enter_context(start(place / "b", config=text, secrets=SECRETS))
        issue(broker, 3)
        until(lambda: sink(broker)["state"] == "failing", said="the failure")
        assert ([], True) == (heard.raw, "certificate" in sink(broker)["detail"])
        assert any(each["text"].startswith("copies to there: ") for each in broker.admin("status")["problems"])


def test_an_endpoint_gets_lines_of_json_and_may_say_no(place: Path) -> None:
    """What an endpoint refuses is sent again, in order; releases go on meanwhile."""
    with ExitStack() as stack:
        heard, port = stack.enter_context(endpoint())
        heard.status = 503
        text = config(f"http://127.0.0.1:{port}/in", "http")
        broker = stack.enter_context(start(place / "b", config=text, secrets=SECRETS))
        issue(broker, 20)
        until(lambda: sink(broker)["state"] == "failing", said="the failure")
        assert "127.0.0.1 answered 503" == sink(broker)["detail"]
        issue(broker, 20)
        heard.status = 204
        until(lambda: all_there(broker, heard), said="the copies")
        assert in_order(heard.numbers)


def test_a_sink_that_hangs_holds_up_nobody(place: Path) -> None:
    """While a sink takes nothing, releases are as quick as ever and segments go by; it gets all of them afterwards."""
    with ExitStack() as stack:
        heard = stack.enter_context(journal(place / "j"))
        heard.open.clear()
        broker = stack.enter_context(start(place / "b", config=config(str(place / "j"), "journald"), secrets=SECRETS))
        began = time.monotonic()
        issue(broker, 1500)
        took = time.monotonic() - began
        assert took < 60
        assert sink(broker)["behind"] > 0
        heard.open.set()
        until(lambda: all_there(broker, heard), deadline=90.0, said="the copies")
        assert in_order(heard.numbers)
        assert len(list(broker.places.audit.glob("audit-*"))) >= 5


def test_nothing_is_lost_over_restarts_while_a_sink_is_away(place: Path) -> None:
    """A sink that was not there for a while, with crashes of the broker meanwhile, gets every record, in order."""
    with ExitStack() as stack:
        broker = stack.enter_context(start(place / "b", config=config(str(place / "j"), "journald"), secrets=SECRETS))
        for _ in range(3):
            issue(broker, 100)
            broker.kill()
            broker.launch()
        issue(broker, 10)
        with journal(place / "j") as first:
            until(lambda: len(first.numbers) > 50, said="some copies")
            broker.kill()
        broker.launch()
        issue(broker, 100)
        with journal(place / "j") as second:
            until(lambda: all_there(broker, second), deadline=60.0, said="the copies")
            numbers = [*first.numbers, *second.numbers]
        assert in_order(numbers), numbers
        assert set(numbers) >= {each["seq"] for each in broker.records() if each["seq"] <= max(numbers)}
        cursor = json.loads((broker.places.state / "copies/there.json").read_text())
        assert (0o600, str(place / "j")) == (
            (broker.places.state / "copies/there.json").stat().st_mode & 0o777,
            cursor["address"],
        )


def test_what_is_required_comes_before_the_release(place: Path) -> None:
    """A release waits for a required sink; without it nothing is released, and with it everything goes on by itself."""
    audit = 'required = ["file", "there"]\nrequired_within = 1\n'
    text = config(str(place / "j"), "journald", audit=audit)
    with ExitStack() as stack:
        heard = stack.enter_context(journal(place / "j"))
        broker = stack.enter_context(start(place / "b", config=text, secrets=SECRETS))
        for _ in range(20):
            accessor = broker.call("credential/issue", secret="github")["accessor"]
            released = [each for each in heard.texts if each.get("event") == "credential/authorised"]
            assert accessor in {each["accessor"] for each in released}
    with start(place / "b", config=text) as broker:
        with pytest.raises(AnswerError) as caught:
            broker.call("credential/issue", secret="github")
        assert "audit_unavailable" == caught.value.code
        state = broker.admin("status")["audit"]
        assert ("failed", True) == (state["state"], "there has not taken a record" in state["detail"])
        with journal(place / "j"):
            until(lambda: broker.admin("status")["audit"]["state"] == "ok", deadline=90.0, said="the recovery")
            assert broker.call("credential/issue", secret="github")["accessor"]
        withheld = [each["code"] for each in broker.records() if each["event"] == "credential/withheld"]
        assert ["audit_unavailable"] == withheld[:1]
