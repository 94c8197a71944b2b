"""
Tells a person what needs one: by a program of the admin's, an HTTP endpoint, or both.

Whoever raises an alarm goes on at once; one that cannot be told is still in the
broker's own log and in the audit log. This module refuses to start a program
through a shell, with the broker's environment, or without a deadline.
"""

import contextlib
import json
import logging
import os
import signal
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Final, final

from backends.worker import Worker
from broker.audit import AuditLog
from broker.config.recording import NotifyConfig
from broker.core.alarms import Alarm, Pacing
from broker.core.chain import rfc3339
from broker.web import Endpoint, PostError

_log: Final = logging.getLogger("mcp_broker.alarms")

DEADLINE: Final = 30.0
"""Seconds that the program may take, and each step of an HTTP request."""

_ENVIRONMENT: Final = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}
_MOST_WAITING: Final = 100


@final
class Alarms:
    """Takes alarms, and tells as many of them as the config allows."""

    def __init__(
        self,
        config: NotifyConfig,
        *,
        audit: AuditLog,
        clock: Callable[[], float] = time.time,
        deadline: float = DEADLINE,
    ) -> None:
        """Tell nobody yet."""
        self._audit = audit
        self._clock = clock
        self._deadline = deadline
        self._worker = Worker("alarms")
        self._waiting: set[Future[None]] = set()
        self.raised = 0
        """How many there were."""
        self.trouble: str | None = None
        """Why the last one could not be told, or None."""
        self.adopt(config)

    def adopt(self, config: NotifyConfig) -> None:
        """Tell whom this config names from now on."""
        self._config = config
        self._pacing = Pacing(again=config.again, most=config.most)

    def tell(self, kind: str, text: str, **facts: object) -> None:
        """
        Raise an alarm; returns at once.

        Args:
            kind: stable, for programs: ``rotation-failed``, ``chain-broken``, ``sink-behind``; at most 32 characters.
            text: for a person, lower case, no full stop, never a value.
            facts: names of what it is about, such as ``secret`` or ``backend``; never a value.

        """
        self.raised += 1
        said = {name: str(value) for name, value in facts.items() if value is not None}
        alarm = self._pacing.offer(self._clock(), kind, text, said)
        if alarm is None:
            return
        _log.warning("alarm: %s: %s", kind, text)
        self._audit.note("alarm/raised", why=kind, detail=text, count=alarm.before + 1)
        config = self._config
        if (config.program or config.address) and len(self._waiting) < _MOST_WAITING:
            telling = self._worker.submit(lambda: self._tell(config, alarm))
            self._waiting.add(telling)
            telling.add_done_callback(self._waiting.discard)

    @property
    def idle(self) -> bool:
        """Return whether none is being told."""
        return not self._waiting

    def close(self) -> None:
        """Tell nobody any more; what is being told may still arrive."""
        self._worker.stop()

    def _tell(self, config: NotifyConfig, alarm: Alarm) -> None:
        """Tell one alarm, on the thread."""
        body = message(alarm)
        trouble: list[str] = []
        if config.program:
            trouble += _run(config.program, body, self._deadline)
        if config.address:
            endpoint = Endpoint(
                config.address, ca_file=config.ca_file, token_file=config.token_file, deadline=self._deadline
            )
            try:
                endpoint.post(body, "application/json")
            except PostError as error:
                trouble.append(error.detail)
            endpoint.close()
        self.trouble = "; ".join(trouble) or None
        if self.trouble:
            _log.error("an alarm could not be told: %s", self.trouble)


def message(alarm: Alarm) -> bytes:
    """Return an alarm as the program and the endpoint get it: one line of JSON."""
    said = {
        "alarm": alarm.kind,
        "text": alarm.text,
        "time": rfc3339(alarm.at),
        "facts": dict(alarm.facts),
        "untold": alarm.before,
    }
    return json.dumps(said, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"


def _run(program: tuple[str, ...], body: bytes, deadline: float) -> list[str]:
    """Run a program with ``body`` on its stdin; return what went wrong. All that it started ends with it."""
    try:
        child = subprocess.Popen(  # noqa: S603 -- the admin's own program, by an absolute path
            program,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=_ENVIRONMENT,
            cwd="/",
            start_new_session=True,
            close_fds=True,
        )
    except OSError as error:
        return [f"{program[0]} cannot be started: {(error.strerror or type(error).__name__).lower()}"]
    try:
        child.communicate(body, timeout=deadline)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        return [f"{program[0]} took longer than {deadline:g} s and was ended"]
    except OSError:
        child.wait()
    return [] if child.returncode == 0 else [f"{program[0]} ended with status {child.returncode}"]
