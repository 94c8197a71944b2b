"""
The server's new environment: what is written down here, what the config says, and nothing else.

This module refuses to pass on anything by accident, and to name a value in an error.
"""

import os

from broker.launch.failure import CannotStartError

PASSED = (
    *("HOME", "USER", "LOGNAME", "SHELL", "PATH", "TERM", "TMPDIR"),
    *("LANG", "LANGUAGE", "LC_*", "TZ", "XDG_*"),
    *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "all_proxy", "no_proxy"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NODE_EXTRA_CA_CERTS"),
    *("GIT_SSL_CAINFO", "AWS_CA_BUNDLE", "DOCKER_*"),
    *("NOTIFY_SOCKET", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"),
    *("RUNTIME_DIRECTORY", "STATE_DIRECTORY", "CACHE_DIRECTORY", "LOGS_DIRECTORY"),
    *("CONFIGURATION_DIRECTORY", "CREDENTIALS_DIRECTORY"),
)
"""The base environment: what of the caller's goes through to every server. ``*`` stands for anything."""

LONGEST_STRING = 128 * 1024
"""Bytes of one string in an environment, its end included, that Linux allows (MAX_ARG_STRLEN)."""


def of_the_caller() -> dict[bytes, bytes]:
    """
    Return the environment that this process was started with.

    The kernel's word, because Python adds LC_CTYPE to its own where the locale
    is C, and a server would be given it by accident.
    """
    try:
        with open("/proc/self/environ", "rb") as initial:
            pairs = [entry.partition(b"=") for entry in initial.read().split(b"\0")]
    except OSError:
        return dict(os.environb)
    return {name: value for name, equals, value in pairs if equals}


def sockets_passed(caller: dict[bytes, bytes]) -> int:
    """Return how many descriptors, from 3 on, systemd passed to this very process."""
    count = caller.get(b"LISTEN_FDS", b"")
    return int(count) if count.isdigit() and caller.get(b"LISTEN_PID") == str(os.getpid()).encode() else 0


def environment(caller: dict[bytes, bytes], *, pass_env: list[str], env: dict[str, str]) -> dict[bytes, bytes]:
    """
    Return the server's environment.

    In bytes, because the config is UTF-8 whatever the caller's locale says.
    """
    patterns = [pattern.encode() for pattern in (*PASSED, *pass_env)]
    new = {name: value for name, value in caller.items() if any(matches(name, pattern) for pattern in patterns)}
    if not sockets_passed(caller):
        # They are about another process, and would make the server listen on what is not there.
        new = {name: value for name, value in new.items() if not name.startswith(b"LISTEN_")}
    for name, value in env.items():
        _check(name, value)
        new[name.encode()] = value.encode()
    return new


def matches(name: bytes, pattern: bytes) -> bool:
    """Say whether a variable's name fits a pattern, in which ``*`` stands for anything."""
    first, *middle = pattern.split(b"*")
    if not middle:
        return name == pattern
    last = middle.pop()
    if not name.startswith(first):
        return False
    at = len(first)
    for part in middle:
        at = name.find(part, at)
        if at < 0:
            return False
        at += len(part)
    return name[at:].endswith(last)


def _check(name: str, value: str) -> None:
    """Refuse what no environment can hold, before the kernel does and does not say which."""
    if not name or "=" in name or "\0" in name:
        message = f"{name!r} cannot be the name of a variable"
        raise CannotStartError(message, code="config", hint="mcp-broker check")
    if "\0" in value:
        message = f"the value of {name} has a zero byte in it, which no environment can hold"
        hint = f"store it without (mcp-broker secret set), or write files.{name} in place of env.{name}"
        raise CannotStartError(message, code="config", hint=hint)
    if len(name.encode()) + len(value.encode()) + 2 > LONGEST_STRING:
        message = f"the value of {name} is longer than an environment can hold"
        raise CannotStartError(message, code="config", hint=f"in the config write files.{name} instead of env.{name}")
