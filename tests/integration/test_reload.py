"""
The config is read again as a whole or not at all, and the broker says what came of it.

This module refuses to sleep: what must not happen is looked for after the broker has
told its service manager, three times, that a second has passed.
"""

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.running import AnswerError, RunningBroker, start, until

OLD: Final = """
[servers.old]
allow = ["first"]
"""
NEW: Final = """
[servers.new]
allow = ["second"]
"""
BROKEN: Final = """
[servers.new]
allow = ["second"]

[servers.worse]
allow = "second"
"""
OURS: Final = f'selectors = ["uid:{os.getuid()}"]\nunsafe_user_selector = true\nallow'
"""What a grant needs in system mode to be one for this process."""
SECRETS: Final = {"first": "made up", "second": "made up, too"}


class NotifySocket:
    """What a service manager hears from the broker."""

    def __init__(self) -> None:
        """Listen at an address that every user can reach."""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("")
        self._socket.settimeout(15)

    @property
    def environment(self) -> dict[str, str]:
        """Return what tells a service where to report to."""
        return {"NOTIFY_SOCKET": "@" + self._socket.getsockname()[1:].decode()}

    def hear(self, *words: str) -> list[str]:
        """Return the next messages, up to one that has each of ``words`` in it, in this order."""
        heard: list[str] = []
        for word in words:
            while True:
                heard.append(self._socket.recv(65536).decode())
                if word in heard[-1]:
                    break
        return heard

    def forget(self) -> None:
        """Skip what was said so far."""
        self._socket.settimeout(0)
        try:
            while self._socket.recv(65536):
                pass
        except BlockingIOError:
            self._socket.settimeout(15)

    def close(self) -> None:
        """Listen no more."""
        self._socket.close()


@pytest.fixture
def manager() -> Iterator[NotifySocket]:
    """Return somebody whom the broker reports to."""
    listening = NotifySocket()
    yield listening
    listening.close()


@pytest.fixture
def broker(place: Path, manager: NotifySocket) -> Iterator[RunningBroker]:
    """Run a broker that reads a changed config by itself."""
    with start(place, config=OLD, secrets=SECRETS, environment=manager.environment) as running:
        yield running


@pytest.fixture
def patient(place: Path, manager: NotifySocket) -> Iterator[RunningBroker]:
    """Run a broker that reads its config when it is told to, as one of a host does."""
    config = OLD.replace("allow", OURS)
    with start(place, config=config, mode="system", secrets=SECRETS, environment=manager.environment) as running:
        yield running


def granted(broker: RunningBroker) -> list[str]:
    """Return the secrets that this process is granted now."""
    found = []
    for secret in SECRETS:
        try:
            broker.call("credential/issue", secret=secret)
        except AnswerError:
            continue
        found.append(secret)
    return found


def refusal(broker: RunningBroker) -> AnswerError:
    """Return the error with which a reload is refused."""
    with pytest.raises(AnswerError) as caught:
        broker.admin("reload")
    return caught.value


def records(broker: RunningBroker, event: str) -> list[dict[str, Any]]:
    """Return the audit records of one kind, as soon as there is one."""
    return until(lambda: [each for each in broker.records() if each["event"] == event], said=f"a record of {event}")


def written(broker: RunningBroker, text: str, *, name: str = "broker.toml") -> Path:
    """Write a file of the config where a broker that looks for itself does not see it half written."""
    path = broker.places.config / name
    path.parent.mkdir(mode=0o700, exist_ok=True)
    new = broker.places.config / "new"
    new.write_text(text, "utf-8")
    new.chmod(0o600)
    return new.rename(path)


class TestByWord:
    """``reload`` and SIGHUP."""

    def test_a_new_config_takes_the_place_of_the_old(self, patient: RunningBroker) -> None:
        """After a reload what the new config grants is granted, and what only the old one granted is not."""
        before = granted(patient)
        patient.write_config(NEW.replace("allow", OURS))
        patient.admin("reload")
        assert (["first"], ["second"]) == (before, granted(patient))

    def test_it_says_what_changed(self, patient: RunningBroker) -> None:
        """The answer has one line for each change, and so has the audit log."""
        patient.write_config("")
        changed = patient.admin("reload")["changed"]
        assert (["server old: removed"], ["server old: removed"]) == (
            changed,
            records(patient, "config/changed")[-1]["changed"],
        )

    def test_a_reload_of_the_same_changes_nothing(self, patient: RunningBroker) -> None:
        """Where the config is what it was nothing is said to have changed, here or in the audit log."""
        assert [] == patient.admin("reload")["changed"]
        assert [] == [each for each in patient.records() if each["event"] == "config/changed"]

    def test_sighup_does_the_same(self, patient: RunningBroker, manager: NotifySocket) -> None:
        """SIGHUP reads the config, says what changed, and tells the service manager when that begins and ends."""
        manager.forget()
        patient.write_config("")
        patient.signal(signal.SIGHUP)
        heard = manager.hear("RELOADING=1", "READY=1")
        said = [text for text in heard if "RELOADING=1" in text]
        assert ["MONOTONIC_USEC"] == [line.partition("=")[0] for line in said[0].splitlines()[1:]]
        assert ([], True) == (granted(patient), "config: server old: removed" in patient.log)

    def test_many_signals_at_once_end_in_the_last_config(self, patient: RunningBroker) -> None:
        """A hundred signals, one on the other, leave a broker that answers by the config that is on disk."""
        patient.write_config("")
        for _ in range(100):
            patient.signal(signal.SIGHUP)
        until(lambda: not granted(patient), said="the reload")
        assert None is patient.admin("status")["config"]["error"]

    def test_reloads_that_meet_wait_for_each_other(self, patient: RunningBroker) -> None:
        """Two admins who reload at the same moment both have their answer."""
        with patient.connect(admin=True) as one, patient.connect(admin=True) as other:
            for connection in (one, other) * 5:
                connection.send("reload")
            answers = [connection.receive() for connection in (one, other) * 5]
        assert [[]] * 10 == [answer.get("result", answer).get("changed", answer) for answer in answers]


class TestMistakes:
    """A bad config never stops a running broker."""

    def test_one_mistake_keeps_all_of_the_old_config(self, patient: RunningBroker) -> None:
        """Of a config with a mistake nothing is put in force, what is right in it included."""
        patient.write_config(BROKEN)
        error = refusal(patient)
        assert ("config", ["first"]) == (error.code, granted(patient))

    def test_the_mistake_is_named(self, patient: RunningBroker) -> None:
        """The message names the file, the line and the key."""
        patient.write_config(BROKEN)
        message = refusal(patient).message
        assert f"{patient.places.config / 'broker.toml'}:6" in message
        assert "servers.worse.allow" in message

    def test_what_is_no_toml_is_refused(self, patient: RunningBroker) -> None:
        """A file that cannot be read as TOML keeps the old config, and its line is named."""
        patient.write_config("[servers.old]\nallow = [\n")
        assert (True, ["first"]) == ("broker.toml:" in refusal(patient).message, granted(patient))

    def test_status_says_so_until_it_is_mended(self, patient: RunningBroker) -> None:
        """While the config on disk is not the one in force status says that and why, and afterwards no more."""
        patient.write_config(BROKEN)
        refusal(patient)
        bad = patient.admin("status")
        patient.write_config("")
        patient.admin("reload")
        good = patient.admin("status")
        assert (True, False) == ("broker.toml:6" in bad["config"]["error"], bad["healthy"])
        assert (None, True) == (good["config"]["error"], good["healthy"])

    def test_it_is_on_record(self, patient: RunningBroker) -> None:
        """The audit log says that a config was refused, and where it was wrong."""
        patient.write_config(BROKEN)
        refusal(patient)
        assert "broker.toml:6" in records(patient, "config/refused")[0]["reason"]

    def test_sighup_with_a_mistake_stops_nothing(self, patient: RunningBroker, manager: NotifySocket) -> None:
        """After SIGHUP with a bad config the broker serves on by the old one, says so, and is ready again."""
        manager.forget()
        patient.write_config(BROKEN)
        patient.signal(signal.SIGHUP)
        manager.hear("RELOADING=1", "READY=1")
        assert ["first"] == granted(patient)
        assert "the config stays as it was: " in patient.log
        assert f"{patient.places.config / 'broker.toml'}:6" in patient.log

    def test_other_backends_need_a_restart(self, patient: RunningBroker) -> None:
        """A config with another backend is refused as a whole, with what to do."""
        patient.write_config('[backends.more]\ntype = "sealed"\n')
        error = refusal(patient)
        assert ("config", True, ["first"]) == (error.code, "needs a restart" in error.message, granted(patient))

    def test_what_others_can_write_is_refused(self, patient: RunningBroker) -> None:
        """A config that others could have written is not put in force."""
        patient.write_config("")
        (patient.places.config / "broker.toml").chmod(0o666)
        assert ("config", ["first"]) == (refusal(patient).code, granted(patient))

    def test_a_part_that_is_wrong_spoils_the_whole(self, patient: RunningBroker) -> None:
        """A mistake in one file of ``broker.d`` keeps the changes of all others out."""
        patient.write_config("")
        written(patient, "nonsense = 1\n", name="broker.d/part.toml")
        assert (True, ["first"]) == ("part.toml:1" in refusal(patient).message, granted(patient))


class TestByItself:
    """In user mode a changed config is read without anybody's word."""

    def test_a_changed_file_is_noticed(self, broker: RunningBroker) -> None:
        """A changed config is in force soon after it was written, and the log says so."""
        written(broker, NEW)
        until(lambda: granted(broker) == ["second"], said="the new config")
        assert "config: server new: added" in broker.log

    def test_a_new_part_is_noticed(self, broker: RunningBroker) -> None:
        """A file that appears in ``broker.d``, and one that goes, are noticed too."""
        part = written(broker, NEW, name="broker.d/part.toml")
        until(lambda: granted(broker) == ["first", "second"], said="the new part")
        part.unlink()
        until(lambda: granted(broker) == ["first"], said="its end")

    def test_a_mistake_is_told_once(self, broker: RunningBroker, manager: NotifySocket) -> None:
        """A bad config that nobody mends is complained of once, and the old one stays in force."""
        written(broker, BROKEN)
        until(lambda: broker.admin("status")["config"]["error"], said="the refusal")
        manager.forget()
        manager.hear("STATUS=", "STATUS=", "STATUS=")
        assert (1, ["first"]) == (broker.log.count("the config stays as it was"), granted(broker))

    def test_a_mended_mistake_is_noticed(self, broker: RunningBroker) -> None:
        """A config that was bad and is mended is put in force."""
        written(broker, BROKEN)
        until(lambda: broker.admin("status")["config"]["error"], said="the refusal")
        written(broker, NEW)
        until(lambda: granted(broker) == ["second"], said="the new config")
        assert None is broker.admin("status")["config"]["error"]

    def test_a_host_waits_for_an_admins_word(self, patient: RunningBroker, manager: NotifySocket) -> None:
        """In system mode a changed config is not in force until somebody says so."""
        patient.write_config("")
        manager.forget()
        manager.hear("STATUS=", "STATUS=", "STATUS=")
        assert ["first"] == granted(patient)


class TestWhatRuns:
    """What a reload does to those who are there."""

    def test_a_lease_outlives_its_grant(self, broker: RunningBroker) -> None:
        """A process keeps the lease whose grant has gone, and gets that secret no more."""
        accessor = broker.call("credential/issue", secret="first")["accessor"]
        broker.write_config("")
        broker.admin("reload")
        with pytest.raises(AnswerError) as caught:
            broker.call("credential/issue", secret="first")
        held = [row["accessor"] for row in broker.admin("lease/list")["leases"]]
        assert ("denied", [accessor]) == (caught.value.code, held)

    def test_connections_that_are_open_go_by_the_new_config(self, broker: RunningBroker) -> None:
        """A connection from before the reload is answered by the new config."""
        with broker.connect() as connection:
            connection.call("credential/issue", secret="first")
            broker.write_config(NEW)
            broker.admin("reload")
            with pytest.raises(AnswerError) as caught:
                connection.call("credential/issue", secret="first")
            assert ("denied", "second") == (
                caught.value.code,
                connection.call("credential/issue", secret="second")["secret"],
            )

    def test_new_limits_hold_at_once(self, broker: RunningBroker) -> None:
        """A limit that a reload brings holds for the next requests."""
        broker.write_config(f"{OLD}\n[limits]\nrequests_per_second = 1\n")
        broker.admin("reload")
        with broker.connect() as connection:
            for _ in range(3):
                connection.send("whoami")
            codes = [connection.receive().get("error", {}).get("data", {}).get("code") for _ in range(3)]
        assert [None, "rate_limited", "rate_limited"] == codes
