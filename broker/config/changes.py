"""
What a reload changed, in lines for people.

This module refuses to show what stands in variables, commands and options: it
says that they changed.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import fields
from typing import Any, TypeVar

from broker.config import duration
from broker.config.model import BackendConfig, Config, SecretConfig, ServerConfig
from broker.config.plaintext import shown
from broker.config.problems import dotted
from broker.config.replacing import in_words
from broker.core.model import Limits

T = TypeVar("T")


def changes(old: Config, new: Config) -> list[str]:
    """Return one line for everything that is not as it was; none where only lines and files moved."""
    return [
        *_words("autostart:", _flag(old.autostart), _flag(new.autostart)),
        *_limits(old.limits, new.limits),
        *("notify: changed" for _ in (old.notify,) if old.notify != new.notify),
        *_section("backend", old.backends, new.backends, _backend),
        *_section("secret", old.secrets, new.secrets, _secret),
        *_section("server", old.servers, new.servers, _server),
    ]


def _section(
    kind: str, old: Mapping[str, T], new: Mapping[str, T], differences: Callable[[T, T], Iterable[str]]
) -> Iterator[str]:
    for name in sorted(old.keys() | new.keys()):
        if name not in old:
            yield f"{kind} {name}: added"
        elif name not in new:
            yield f"{kind} {name}: removed"
        elif old[name] != new[name]:
            for what in differences(old[name], new[name]):
                yield f"{kind} {name}: {what}"


def _backend(old: BackendConfig, new: BackendConfig) -> Iterator[str]:
    yield from _words("type", old.type, new.type)
    yield from _keys("", old.options, new.options)
    yield from _keys("", _only("rotate", old.rotate), _only("rotate", new.rotate))


def _secret(old: SecretConfig, new: SecretConfig) -> Iterator[str]:
    yield from _words("backend", old.backend, new.backend)
    yield from _words("path", shown(old.path), shown(new.path))
    yield from _words("ttl", duration.text(old.ttl), duration.text(new.ttl))
    yield from _words("stale", duration.text(old.stale), duration.text(new.stale))
    yield from _words("share", str(old.share).lower(), str(new.share).lower())
    yield from _keys("params.", old.params, new.params)
    if old.rotate is None or new.rotate is None:
        yield from _keys("", _only("rotate", old.rotate), _only("rotate", new.rotate))
        return
    yield from _words("rotate.every", _length(old.rotate.every), _length(new.rotate.every))
    yield from _words("rotate.grace", duration.text(old.rotate.grace), duration.text(new.rotate.grace))
    if old.rotate.command != new.rotate.command:
        yield "rotate.with changed"
    rest = [{**in_words(one), "every": None} for one in (old.rotate, new.rotate)]
    yield from _keys("rotate.", *rest)


def _server(old: ServerConfig, new: ServerConfig) -> Iterator[str]:
    for name in ("command", "pass_env"):
        if getattr(old, name) != getattr(new, name):
            yield f"{name} changed"
    for name in ("client_args", "unsafe_user_selector"):
        yield from _words(name, _flag(getattr(old, name)), _flag(getattr(new, name)))
    yield from _words("selectors", _list(old.selectors), _list(new.selectors))
    yield from _keys("env.", old.env, new.env)
    yield from _keys("files.", old.files, new.files)
    yield from _words("allow", _list(old.allow), _list(new.allow))


def _limits(old: Limits, new: Limits) -> Iterator[str]:
    for one in fields(Limits):
        before, after = getattr(old, one.name), getattr(new, one.name)
        if before != after:
            yield f"limits: {one.name} {before} -> {after}"


def _keys(prefix: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    for name in sorted(old.keys() | new.keys()):
        if name not in old:
            yield f"{prefix}{dotted((name,))} added"
        elif name not in new:
            yield f"{prefix}{dotted((name,))} removed"
        elif old[name] != new[name]:
            yield f"{prefix}{dotted((name,))} changed"


def _words(name: str, old: str, new: str) -> Iterator[str]:
    if old != new:
        yield f"{name} {old} -> {new}"


def _flag(value: object) -> str:
    return "true" if value else "false"


def _only(name: str, value: object) -> Mapping[str, object]:
    return {} if value is None else {name: value}


def _length(length: float | None) -> str:
    return "none" if length is None else duration.text(length)


def _list(words: Iterable[str]) -> str:
    return ", ".join(sorted(words)) or "none"
