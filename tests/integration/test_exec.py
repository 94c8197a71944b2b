"""
``exec`` becomes the server: what the server finds itself with, and what it does not.

The broker here says what it is told to; who may have what is tested elsewhere.
"""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.wire_broker import WireBroker, opened
from tests.integration.exec_run import CLIENT_ENVIRONMENT, PREFIX, ROOT, run, teller, told


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[WireBroker]:
    """Return a broker that opens a server which says what it was given."""
    with WireBroker(tmp_path / "b", {"server/open": lambda _: opened(command=teller())}) as listening:
        yield listening


def answer(broker: WireBroker, **changes: object) -> None:
    """Have the broker open a server with ``changes``."""
    broker.verbs["server/open"] = lambda _: opened(**{"command": teller(), **changes})


def test_the_environment_is_the_base_and_the_config_s_variables_and_nothing_else(broker: WireBroker) -> None:
    """A server finds exactly what a client passes on and what the config names, to the last variable."""
    answer(broker, env={"GITHUB_TOKEN": "canary-1"})
    caller = {**CLIENT_ENVIRONMENT, "SECRET_OF_THE_CALLER": "1", "LD_PRELOAD": "", "PYTHONPATH": "/nowhere"}
    done = told(run(["github", *broker.where], environment=caller))
    assert {**CLIENT_ENVIRONMENT, "GITHUB_TOKEN": "canary-1"} == done["environment"]


@pytest.mark.parametrize(
    ("name", "passes"),
    [
        *((name, True) for name in "LANG LC_ALL TZ TMPDIR XDG_CONFIG_HOME https_proxy NO_PROXY DOCKER_HOST".split()),
        *((name, True) for name in "SSL_CERT_FILE NODE_EXTRA_CA_CERTS NOTIFY_SOCKET STATE_DIRECTORY".split()),
        *((name, True) for name in "GRAFANA_URL GRAFANA_ A_MIDDLE_Z EXACT".split()),
        *((name, False) for name in "GRAFAN A_Z_ XEXACT EXACTX AWS_SECRET_ACCESS_KEY VAULT_TOKEN NODE_OPTIONS".split()),
        *((name, False) for name in "LISTEN_FDS LISTEN_PID LISTEN_FDNAMES".split()),
    ],
)
def test_what_passes_is_what_is_written_down_or_asked_for(broker: WireBroker, name: str, *, passes: bool) -> None:
    """A variable of the caller goes through where the base or a pattern of the config names it, else it does not."""
    answer(broker, pass_env=["GRAFANA_*", "A_*_Z", "EXACT"])
    done = told(run(["github", *broker.where], environment={**CLIENT_ENVIRONMENT, name: "1"}))
    assert passes == (name in done["environment"])


def test_a_value_arrives_byte_for_byte_whatever_the_locale_says(broker: WireBroker) -> None:
    """A value with letters that the caller's locale does not know arrives as UTF-8."""
    answer(broker, command=["/usr/bin/env"], env={"TOKEN": "pä✓\n\x7f\"'"})
    done = run(["github", *broker.where], environment={**CLIENT_ENVIRONMENT, "LC_ALL": "de_DE.ISO-8859-1"})
    assert "TOKEN=pä✓\n\x7f\"'\n".encode() in done.stdout


def test_the_config_wins_over_the_caller(broker: WireBroker) -> None:
    """A variable that both the caller and the config have is the config's."""
    answer(broker, env={"TZ": "UTC"})
    assert (
        "UTC" == told(run(["x", *broker.where], environment={**CLIENT_ENVIRONMENT, "TZ": "CET"}))["environment"]["TZ"]
    )


def test_no_descriptor_is_inherited(broker: WireBroker, tmp_path: Path) -> None:
    """A server has the first three descriptors and no other, though the caller left one open."""
    with (tmp_path / "left-open").open("w") as left:
        done = told(run(["github", *broker.where], pass_fds=[left.fileno()]))
    assert [0, 1, 2] == done["descriptors"]


def test_a_socket_that_systemd_passes_goes_on_to_the_server(broker: WireBroker) -> None:
    """Descriptors that systemd passed to this very process are passed on, with the variables that say so."""
    with socket.socket(socket.AF_UNIX) as passed:
        number = passed.fileno()
        shell = f'exec 3<&{number}; [ {number} = 3 ] || exec {number}<&-; LISTEN_PID=$$ LISTEN_FDS=1 exec "$@"'
        done = told(run([*PREFIX, "x", *broker.where], prefix=["/bin/bash", "-c", shell, "sh"], pass_fds=[number]))
    assert ([0, 1, 2, 3], "1") == (done["descriptors"], done["environment"]["LISTEN_FDS"])


@pytest.mark.parametrize("mask", ["SigIgn", "SigBlk"])
def test_no_signal_is_ignored_or_blocked(broker: WireBroker, mask: str) -> None:
    """A server starts with every signal at its default, though Python and the caller ignore and block some."""
    code = "import os, signal, sys; signal.signal(1, signal.SIG_IGN); signal.pthread_sigmask(0, [15]); os.execv"
    prefix = [sys.executable, "-c", f"{code}(sys.argv[1], sys.argv[1:])", *PREFIX]
    bits = {"SigIgn": 1 << signal.SIGPIPE - 1 | 1 << signal.SIGXFSZ - 1 | 1, "SigBlk": ~0}[mask]
    answer(broker, command=["/bin/cat", "/proc/self/status"])
    done = run(["github", *broker.where], prefix=prefix)
    lines = dict(line.split(b":\t", 1) for line in done.stdout.splitlines())
    assert 0 == int(lines[mask.encode()], 16) & bits


def test_the_server_is_the_process_that_asked(broker: WireBroker) -> None:
    """A server has the pid of the process that connected, so that its leases hang on itself."""
    child = subprocess.Popen([*PREFIX, "x", *broker.where], stdout=subprocess.PIPE, env=dict(CLIENT_ENVIRONMENT))
    output, _ = child.communicate(timeout=60)
    assert child.pid == told(subprocess.CompletedProcess([], 0, output))["pid"]


def test_the_server_starts_where_the_caller_is(broker: WireBroker, tmp_path: Path) -> None:
    """A server's directory is the caller's."""
    assert str(tmp_path) == told(run(["x", *broker.where], directory=tmp_path))["directory"]


def test_no_value_is_on_the_command_line(broker: WireBroker) -> None:
    """A server's arguments are the config's; a value is in its environment alone."""
    answer(broker, command=["/bin/cat", "/proc/self/cmdline"], env={"T": "canary-2"})
    assert b"/bin/cat\0/proc/self/cmdline\0" == run(["x", *broker.where]).stdout


def test_arguments_of_the_client_are_appended_where_the_config_allows_it(broker: WireBroker) -> None:
    """What follows the two dashes comes after the command's own arguments."""
    answer(broker, command=teller("own"), client_args=True)
    assert ["own", "--read-only", "--"] == told(run(["x", *broker.where, "--", "--read-only", "--"]))["argv"]


def test_arguments_of_the_client_are_refused_where_the_config_does_not_allow_them(broker: WireBroker) -> None:
    """Arguments are not dropped in silence: the server does not start, and the leases go back."""
    done = run(["x", *broker.where, "--", "--read-only"])
    assert (3, b"", [{"accessor": "a1"}]) == (done.returncode, done.stdout, broker.asked("lease/release"))


def test_the_command_is_looked_up_in_the_caller_s_path(broker: WireBroker, tmp_path: Path) -> None:
    """A command without a slash is the first of that name in PATH that can be executed."""
    for name, mode in (("first", 0o600), ("second", 0o700)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "my-server").write_text(f"#!/bin/sh\necho {name}\n")
        (tmp_path / name / "my-server").chmod(mode)
    answer(broker, command=["my-server"])
    path = f"{tmp_path}/first:{tmp_path}/second"
    assert b"second\n" == run(["x", *broker.where], environment={"PATH": path}).stdout


def test_a_command_is_not_looked_up_where_the_caller_stands(broker: WireBroker, tmp_path: Path) -> None:
    """A program in the current directory is not started by its name, whatever PATH says."""
    (tmp_path / "my-server").write_text("#!/bin/sh\necho taken over\n")
    (tmp_path / "my-server").chmod(0o700)
    answer(broker, command=["my-server"])
    done = run(["x", *broker.where], environment={"PATH": f".::{tmp_path.name}"}, directory=tmp_path)
    assert (78, b"") == (done.returncode, done.stdout)


@pytest.mark.parametrize("prefix", [PREFIX, [sys.executable, str(ROOT / "broker/exec.py")]], ids=["shut-off", "plain"])
@pytest.mark.parametrize("module", ["json", "os", "errno", "_json", "_socket", "broker", "pwd"])
def test_modules_where_the_client_stands_are_not_run(
    broker: WireBroker, tmp_path: Path, module: str, prefix: list[str]
) -> None:
    """A file that has the name of a module, in the current directory and in PYTHONPATH, is not imported."""
    hostile = tmp_path / "hostile"
    (hostile / "broker").mkdir(parents=True)
    for file in (hostile / f"{module}.py", hostile / "broker/__init__.py"):
        file.write_text("print('taken over', flush=True)\n")
    environment = {**CLIENT_ENVIRONMENT, "PYTHONPATH": f"{hostile}:.:"}
    done = run(["x", *broker.where], environment=environment, directory=hostile, prefix=prefix)
    assert b"{" == done.stdout[:1]


def test_what_the_broker_says_first_does_not_matter(broker: WireBroker) -> None:
    """Notifications and lines that are none of ours are passed over until the answer comes."""
    broker.before = [b'{"jsonrpc":"2.0","method":"lease/changed","params":{}}\n', b"garbage\n", b"[1]\n", b"\n"]
    assert 0 == run(["x", *broker.where]).returncode


def test_exec_asks_by_the_name_it_was_given(broker: WireBroker) -> None:
    """The broker is asked for the server, once, after it was asked who it sees."""
    run([*broker.where, 'odd "näme"'])
    assert ["whoami", "server/open"] == [request["method"] for request in broker.requests]
    assert [{"server": 'odd "näme"'}] == broker.asked("server/open")


@pytest.mark.parametrize("missing", [0, 1, 2])
def test_a_missing_standard_descriptor_is_not_taken_by_a_socket(broker: WireBroker, missing: int) -> None:
    """Where the caller closed stdin, stdout or stderr, the server finds /dev/null there and not the broker."""
    code = f"import os; open(os.environ['HOME'] + '/found', 'w').write(os.readlink('/proc/self/fd/{missing}'))"
    answer(broker, command=[sys.executable, "-I", "-S", "-c", code])
    home = broker.directory
    prefix = ["/bin/sh", "-c", f'exec "$@" {missing}<&-', "sh", *PREFIX]
    run(["x", *broker.where], prefix=prefix, environment={**CLIENT_ENVIRONMENT, "HOME": str(home)})
    assert os.devnull == (home / "found").read_text()


def test_help_says_what_it_is() -> None:
    """Help goes to stdout and costs no broker."""
    done = run(["--help"])
    assert (0, b"Usage: mcp-broker exec NAME") == (done.returncode, done.stdout[:27])
