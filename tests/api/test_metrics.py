"""What is counted: that it is counted, and that Prometheus can read it."""

import http.client
import re
import socket
from pathlib import Path

import pytest

from broker.core.meters import BOUNDS, Histogram, Metric, Timings, text
from tests.running import AnswerError, RunningBroker, start

SAMPLE = re.compile(r'(mcp_broker_[a-z_]+)(\{[a-z]+="(?:[^"\\\n]|\\.)*"(?:,[a-z]+="(?:[^"\\\n]|\\.)*")*\})? (\S+)')


def over_http(broker: RunningBroker, method: str = "GET") -> tuple[int, str, str]:
    """Ask for the metrics as Prometheus would; return status, content type and text."""
    connection = http.client.HTTPConnection("broker")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(str(broker.places.admin_socket))
    connection.request(method, "/v1/admin/metrics")
    answer = connection.getresponse()
    found = answer.status, answer.headers["Content-Type"], answer.read().decode()
    connection.close()
    return found


def values(found: str) -> dict[str, float]:
    """Return every sample by its name and labels."""
    samples = [SAMPLE.fullmatch(line) for line in found.splitlines() if not line.startswith("#")]
    assert None not in samples
    return {f"{one[1]}{one[2] or ''}": float(one[3]) for one in samples if one is not None}


def test_prometheus_reads_what_happened(tmp_path: Path) -> None:
    """Releases, refusals, leases, latencies, the log and the backends are there, each family with its type."""
    with start(tmp_path / "b", secrets={"github": "a canary"}) as broker:
        for _ in range(3):
            broker.call("credential/issue", secret="github")
        with pytest.raises(AnswerError):
            broker.call("credential/issue", secret="nothing")
        status, kind, found = over_http(broker)
        assert (200, "text/plain; version=0.0.4; charset=utf-8") == (status, kind)
        seen = values(found)
        assert (3, 1, 1) == (
            seen["mcp_broker_issues_total"],
            seen['mcp_broker_refusals_total{code="denied"}'],
            seen['mcp_broker_leases{backend="local"}'],
        )
        assert 4 == seen['mcp_broker_request_seconds_count{verb="credential/issue"}']
        assert 1 == seen['mcp_broker_backend_up{backend="local",type="sealed",state="ok"}']
        assert 1 == seen['mcp_broker_audit_up{state="ok"}']
        typed = set(re.findall(r"# TYPE (\S+) (?:counter|gauge|histogram)", found))
        assert {re.sub(r"(_bucket|_sum|_count)?(\{.*)?$", "", name) for name in seen} <= typed
        assert "a canary" not in found
        assert broker.admin("metrics")["text"].startswith("# HELP mcp_broker_build ")


def test_only_an_admin_sees_them(tmp_path: Path) -> None:
    """The socket for workloads does not know the verb."""
    with start(tmp_path / "b") as broker, pytest.raises(AnswerError) as caught:
        broker.call("metrics")
    assert -32601 == caught.value.number


def test_a_histogram_counts_each_once() -> None:
    """Every length of time is in the first bucket that has room for it and in all above; none is lost."""
    timings = Timings()
    for seconds in (0.0, BOUNDS[0], BOUNDS[0] * 1.01, 31.0):
        timings.add("status", seconds)
    seen = values(text([], timings))
    name = "mcp_broker_request_seconds_bucket"
    assert [2, 3, 4] == [seen[f'{name}{{verb="status",le="{bound}"}}'] for bound in ("0.0005", "0.001", "+Inf")]
    assert 4 == seen['mcp_broker_request_seconds_count{verb="status"}']
    assert [0] * (len(BOUNDS) + 1) == Histogram().counts


def test_labels_are_escaped() -> None:
    """A name with quotes, backslashes and newlines in it breaks no line."""
    metric = Metric(name="x", kind="gauge", about="x", values=[({"name": 'a"b\\c\nd'}, 1.5)])
    assert 'mcp_broker_x{name="a\\"b\\\\c\\nd"} 1.5' == text([metric], Timings()).splitlines()[2]
