"""
The ``[servers.*]`` tables.

This module refuses a server that could be reached by more than it says: in
system mode it needs a unit among its selectors, or the switch that is named
for its danger.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from types import MappingProxyType
from typing import Final

from broker.config import selectors, template
from broker.config.model import ServerConfig
from broker.config.problems import Location, meant
from broker.config.table import Table
from broker.paths import Mode

KEYS: Final = frozenset(
    {"command", "client_args", "selectors", "env", "files", "pass_env", "allow", "like", "unsafe_user_selector"}
)

_MISPLACED: Final = {
    "args": 'arguments stand in command, behind the program: command = ["program", "argument"]',
    "autostart": "autostart stands at the top of broker.toml, above the first [table]",
    "cwd": "a server starts in the directory of its client",
    "url": "the broker starts servers that speak over stdin and stdout; this one needs no command of ours",
    "secrets": "secrets are referred to in env and files, {name}, or listed in allow",
    "environment": 'variables stand in env: env.NAME = "{secret}"',
    "ttl": "ttl belongs to a secret: [secrets.NAME]",
}

_VARIABLE: Final = re.compile(r"[!-<>-~]{1,128}")
_PATTERN: Final = re.compile(r"[!-<>@-Z\\^-~]{1,128}")
"""The same with ``*`` for any characters, and without what other patterns give a meaning."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """
    A server as far as its own table says: None is what the table leaves open.

    ``faulty`` is whether its selectors are there and wrong, which has been noted.
    """

    table: Table
    like: str | None = None
    command: tuple[str, ...] | None = None
    client_args: bool | None = None
    selectors: frozenset[str] | None = None
    env: Mapping[str, template.Template] = field(default_factory=dict)
    files: Mapping[str, template.Template] = field(default_factory=dict)
    pass_env: tuple[str, ...] | None = None
    allow: tuple[str, ...] | None = None
    unsafe_user_selector: bool | None = None
    faulty: bool = False
    origins: Mapping[str, Location] = field(default_factory=dict)


def draft(table: Table) -> Draft:
    """Read one table; what is wrong with it is noted."""
    table.expect(KEYS, _MISPLACED)
    env = _templates(table, "env", variable=True)
    files = _templates(table, "files", variable=False)
    for name in sorted(env.keys() & files.keys()):
        table.reject("files", name, text="stands in env as well")
    wanted = _selectors(table)
    return Draft(
        table=table,
        like=table.take_text("like"),
        command=_command(table),
        client_args=table.take_flag("client_args"),
        selectors=wanted,
        env=env,
        files=files,
        pass_env=_pass_env(table),
        allow=_allow(table),
        unsafe_user_selector=table.take_flag("unsafe_user_selector"),
        faulty=wanted is None and "selectors" in table.rows,
        origins=dict(_origins(table)),
    )


def resolve(drafts: Mapping[str, Draft]) -> dict[str, Draft]:
    """Return every server with what it takes over from the one it is ``like``; mistakes are noted."""
    done: dict[str, Draft] = {}
    for name in drafts:
        chain: dict[str, Draft] = {}
        at: str | None = name
        while at is not None and at not in done:
            if at in chain:
                chain[at].table.reject("like", text="leads back to this server")
                break
            chain[at] = drafts[at]
            at = _parent(drafts[at], drafts)
        for child, own in reversed(chain.items()):
            parent = done.get(own.like) if own.like is not None else None
            done[child] = own if parent is None else _over(parent, own)
    return done


def finish(name: str, whole: Draft, *, mode: Mode, uid: int) -> ServerConfig:
    """Return the server with its defaults; what is wrong with it as a whole is noted."""
    unsafe = whole.unsafe_user_selector is True
    wanted = whole.selectors
    if wanted is None:
        wanted = frozenset({f"uid:{uid}"}) if mode == "user" else frozenset()
    attested = any(selectors.names_unit(one) for one in wanted) or (unsafe and bool(wanted))
    if mode == "system" and not attested and not whole.faulty:
        whole.table.reject(
            text="no selector names a unit, so any program of a user would get its secrets",
            hint='selectors = ["unit:NAME.service"], or a user selector with unsafe_user_selector = true',
        )
    return ServerConfig(
        name=name,
        command=whole.command or (),
        client_args=whole.client_args is True,
        selectors=wanted,
        env=MappingProxyType(dict(whole.env)),
        files=MappingProxyType(dict(whole.files)),
        pass_env=whole.pass_env or (),
        allow=whole.allow or (),
        unsafe_user_selector=unsafe,
        where=whole.table.where(),
        origins=MappingProxyType(dict(whole.origins)),
    )


def _parent(own: Draft, drafts: Mapping[str, Draft]) -> str | None:
    if own.like is None or own.like in drafts:
        return own.like
    own.table.reject(
        "like",
        text=f"there is no such server{meant(own.like, drafts)}",
        hint="like names another server of this config",
    )
    return None


def _over(parent: Draft, own: Draft) -> Draft:
    """Return ``parent`` with what ``own`` says in its place, variable by variable."""
    given = {
        key: value
        for key in ("command", "client_args", "selectors", "pass_env", "allow", "unsafe_user_selector")
        if (value := getattr(own, key)) is not None
    }
    # What was a variable's value may become a file's content, and the other way round.
    env = {name: one for name, one in parent.env.items() if name not in own.files} | dict(own.env)
    files = {name: one for name, one in parent.files.items() if name not in own.env} | dict(own.files)
    origins = {**parent.origins, **own.origins}
    faulty = parent.faulty or own.faulty
    return replace(
        parent, **given, table=own.table, like=own.like, env=env, files=files, origins=origins, faulty=faulty
    )


def _command(table: Table) -> tuple[str, ...] | None:
    command = table.take_words("command")
    if command is not None and (not command or not command[0]):
        table.reject("command", text="names no program", hint="leave it out for an entry that only grants to scripts")
        return None
    return command


def _selectors(table: Table) -> frozenset[str] | None:
    words = table.take_words("selectors")
    if words is None:
        return None
    if not words:
        table.reject("selectors", text="an empty list holds for nobody", hint="leave it out, or name a selector")
    found = [table.read(selectors.canonical, word, "selectors", number) for number, word in enumerate(words)]
    return frozenset(one for one in found if one is not None) or None


def _templates(table: Table, key: str, *, variable: bool) -> dict[str, template.Template]:
    found = {}
    for name, text in table.take_texts(key).items():
        if not _VARIABLE.fullmatch(name):
            table.reject(key, name, text="not the name of a variable")
            continue
        one = table.read(partial(template.parse, variable=name if variable else None), text, key, name)
        if one is not None:
            found[name] = one
    return found


def _pass_env(table: Table) -> tuple[str, ...] | None:
    patterns = table.take_words("pass_env")
    table.each(patterns or (), "pass_env", _judge_pattern)
    return patterns


def _judge_pattern(pattern: str) -> str | None:
    return None if _PATTERN.fullmatch(pattern) else "not the name of a variable, with * for any characters"


def _allow(table: Table) -> tuple[str, ...] | None:
    names = table.take_words("allow")
    table.each(names or (), "allow", _judge_secret)
    return None if names is None else tuple(dict.fromkeys(names))


def _judge_secret(name: str) -> str | None:
    return None if template.SECRET_NAME.fullmatch(name) else "not the name of a secret"


def _origins(table: Table) -> Iterator[tuple[str, Location]]:
    for key, value in table.rows.items():
        yield key, table.where(key)
        if key in ("env", "files") and isinstance(value, dict):
            for name in value:
                yield f"{key}.{name}", table.where(key, name)
