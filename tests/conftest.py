"""
What all tests share: markers that skip with a reason, and a list of tests that must not be skipped.

A live test uses the real thing and is skipped, with the reason, where that is
missing. So that a whole class of them cannot vanish unnoticed, CI names in
``MCP_BROKER_REQUIRED_LIVE`` what must run, and the session fails when a named
one was skipped or is not there. This module refuses to stand in for anything:
there are no mocks here.
"""

import os
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import hypothesis
import pytest

from tests.live import postgres as postgresql

ROOT: Final = Path(__file__).resolve().parent.parent

# Speed is measured in benchmarks/, never asserted in a test: a slow machine must not make a property false.
hypothesis.settings.register_profile("ours", deadline=None)
hypothesis.settings.load_profile("ours")


@pytest.fixture(scope="session")
def root() -> Path:
    """Return the root of the repository."""
    return ROOT


@pytest.fixture(scope="session")
def mcp_broker() -> Path:
    """Return the command as it is installed beside the Python that runs the tests."""
    command = Path(sys.executable).with_name("mcp-broker")
    if not command.exists():
        pytest.fail(f"{command} is not installed\nhint: make test")
    return command


@pytest.fixture(scope="session")
def postgres() -> Iterator[postgresql.Postgres]:
    """Give a PostgreSQL that all tests of a session share. Such a test is marked ``live("postgresql")``."""
    if postgresql.binaries() is None:
        pytest.skip("needs PostgreSQL's server, which is not installed")
    with postgresql.running() as found:
        yield found


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test that this machine or this user cannot run, and say what is missing."""
    if item.get_closest_marker("root") and os.geteuid() != 0:
        pytest.skip("needs root")
    for marker in item.iter_markers("live"):
        for command in marker.kwargs.get("commands", ()):
            if shutil.which(command) is None:
                pytest.skip(f"needs {command}, which is not installed")


def names_of(item: pytest.Item) -> Iterator[str]:
    """Yield every name by which CI may require a test: of its live markers, and ``root``."""
    for marker in item.iter_markers("live"):
        yield str(marker.args[0])
    if item.get_closest_marker("root"):
        yield "root"


class Required:
    """
    Remembers what ran under each required name, and fails the session for what did not.

    A name is that of a live marker, ``root``, or the start of a test's node id.
    """

    def __init__(self, required: list[str]) -> None:
        """Require ``required``."""
        self._ran: dict[str, int] = dict.fromkeys(required, 0)
        self._skipped: dict[str, list[str]] = {name: [] for name in required}
        self._tests: dict[str, list[str]] = {}

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Note which test stands for which required names."""
        for item in items:
            names = set(names_of(item))
            self._tests[item.nodeid] = [n for n in self._ran if n in names or item.nodeid.startswith(n)]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count a test that ran, passed or failed, and keep the name of one that was skipped."""
        for name in self._tests.get(report.nodeid, ()):
            if report.skipped:
                self._skipped[name].append(report.nodeid)
            elif report.when == "call":
                self._ran[name] += 1

    def complaints(self) -> list[str]:
        """Return what is wrong, one line each."""
        absent = [f"required, but no test of it ran: {name}" for name, ran in self._ran.items() if not ran]
        return absent + [f"required, but skipped: {test} ({n})" for n, tests in self._skipped.items() for test in tests]

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Fail a session in which something required did not run."""
        if self.complaints() and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Say what did not run."""
        for complaint in self.complaints():
            terminalreporter.write_line(complaint, red=True)


def pytest_configure(config: pytest.Config) -> None:
    """Require what the environment names, separated by white space; have Ctrl-C mean to children what it means."""
    # Who starts the tests in the background of a script has them, and all that they start, ignore it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if names := os.environ.get("MCP_BROKER_REQUIRED_LIVE", "").split():
        config.pluginmanager.register(Required(names), "required-live")
