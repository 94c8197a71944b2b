"""``[audit]`` and ``[notify]``: what they mean, and what is refused."""

from pathlib import Path

import pytest

from broker.config.changes import changes
from broker.config.effective import as_toml, effective
from broker.config.recording import AuditConfig, NotifyConfig, SinkConfig
from tests.config.build import config, problems

WHOLE = """
[audit]
segment_bytes = 1048576
segment_age = "1d"
keep = "400d"
checkpoint = "10m"
required = ["file", "siem"]
required_within = "500ms"
[audit.sinks.journal]
type = "journald"
[audit.sinks.siem]
type = "syslog"
send = "records"
address = "tls://logs.example:6514"
ca_file = "/etc/ssl/siem.pem"
[audit.sinks.far]
type = "http"
address = "https://logs.example/in"
token_file = "/etc/mcp-broker/token"
[notify]
program = ["/usr/local/bin/tell-me", "-v"]
address = "http://127.0.0.1:9/alarm"
again = "30m"
at_most = 5
""".replace('"500ms"', "0.5")


def test_says_what_stands_there() -> None:
    """Every key arrives."""
    found = config(WHOLE)
    sinks = {
        "journal": SinkConfig(name="journal", type="journald"),
        "siem": SinkConfig(
            name="siem",
            type="syslog",
            send="records",
            address="tls://logs.example:6514",
            ca_file=Path("/etc/ssl/siem.pem"),
        ),
        "far": SinkConfig(
            name="far", type="http", address="https://logs.example/in", token_file=Path("/etc/mcp-broker/token")
        ),
    }
    audit = AuditConfig(
        segment_bytes=1048576,
        segment_age=86400.0,
        keep=400 * 86400.0,
        checkpoint=600.0,
        required=("file", "siem"),
        within=0.5,
        sinks=sinks,
    )
    notify = NotifyConfig(
        program=("/usr/local/bin/tell-me", "-v"), address="http://127.0.0.1:9/alarm", again=1800.0, most=5
    )
    assert (audit, notify) == (found.audit, found.notify)


def test_the_effective_config_means_the_same() -> None:
    """What ``check`` prints of it can be read as a config again."""
    first = config(WHOLE)
    again = config(as_toml(effective(first)))
    assert (first.audit, first.notify) == (again.audit, again.notify)


def test_another_notify_is_a_change() -> None:
    """A reload that changes who is told says so."""
    assert ["notify: changed"] == changes(config(""), config("[notify]\nprogram = ['/bin/true']"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[audit]\nsegment_bytes = 10", "2: audit.segment_bytes: must be between 65536 and 1073741824"),
        ("[audit]\nkeep = 1", "2: audit.keep: must be at least 1m"),
        ("[audit]\nrequired = []", '2: audit.required: must name "file": nothing is released that is not in'),
        ("[audit]\nrequired = ['file', 'x']", "2: audit.required[1]: no such sink"),
        ("[audit.sinks.a]\ntype = 'journald'\n[audit]\nrequired = ['file', 'a']", "4: audit.required[1]: gets no rec"),
        ("[audit.sinks.file]\ntype = 'journald'", "1: audit.sinks.file: a sink's name must be letters"),
        ("[audit.sinks.a]\ntype = 'pigeon'", "2: audit.sinks.a.type: must be journald, syslog or http"),
        ("[audit.sinks.a]\ntype = 'journald'\nsend = 'x'", '3: audit.sinks.a.send: must be "checkpoints" or "records"'),
        ("[audit.sinks.a]\ntype = 'syslog'\naddress = 'tcp://h:1'", "3: audit.sinks.a.address: must be tls://HOST"),
        ("[audit.sinks.a]\ntype = 'syslog'\naddress = 'tls://h:x'", "3: audit.sinks.a.address: the port is no number"),
        ("[audit.sinks.a]\ntype = 'http'\naddress = 'http://h/'", "3: audit.sinks.a.address: must be https://…"),
        ("[audit.sinks.a]\ntype = 'http'\naddress = 'https://u:p@h/'", "3: audit.sinks.a.address: no credential stan"),
        ("[audit.sinks.a]\ntype = 'journald'\nca_file = 'x'", "3: audit.sinks.a.ca_file: must be an absolute path"),
        ("[notify]\nagain = '1h'", "1: notify: names nobody to tell"),
        ("[notify]\nprogram = ['x']", "2: notify.program: must begin with an absolute path"),
        ("[notify]\naddress = 'http://h/'", "2: notify.address: must be https://…"),
    ],
)
def test_mistakes_are_named(text: str, expected: str) -> None:
    """What cannot be meant is refused with file, line and key, and where others could read along it is refused too."""
    found = problems(text)
    assert [True] == [one.startswith(f"broker.toml:{expected}") for one in found]
