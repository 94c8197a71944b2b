"""
The config, from its files to one frozen whole.

This module refuses half a config: it returns all of it or raises what is wrong
with it, as much of that as can be found at once.
"""

import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Final

from backends.registry import BUILT_IN, kinds
from broker.config import audit_section, files, sections, servers, template
from broker.config.document import Document, parse
from broker.config.model import LOCAL, SEALED, BackendConfig, Config, SecretConfig, ServerConfig
from broker.config.problems import MOST, InvalidConfigError, Problem, Problems
from broker.config.table import Table
from broker.core.model import Limits
from broker.paths import Mode, Places

_SECTIONS: Final = ("backends", "secrets", "servers")
_SINGLE: Final = ("limits", "audit", "notify")
_TOP: Final = (*_SECTIONS, *_SINGLE, "autostart")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_MISPLACED: Final = {
    "mcpServers": "servers stand in tables: [servers.NAME]",
    "server": "write [servers.NAME]",
    "secret": "write [secrets.NAME]",
    "backend": "write [backends.NAME]",
    "type": "write it below [backends.NAME]",
}


def load(places: Places, *, types: Collection[str] | None = None) -> Config:
    """
    Return the config of a broker: ``broker.toml`` and ``broker.d/*.toml``.

    Where there is none at all it is an empty one, in which nobody is granted anything.

    Args:
        places: where to look.
        types: the types of backend that there are; by default what is installed.

    Raises:
        InvalidConfigError: what is wrong, with file, line and key.

    """
    uid = os.geteuid()
    found = files.find(places)
    files.check_directories(found, uid=uid)
    return build(_documents(found, uid=uid), mode=places.mode, uid=uid, types=types)


def load_drafts(places: Places, drafts: Mapping[Path, str]) -> Config:
    """
    Return the config that there would be if some files had another text, to try a change before it is made.

    Args:
        places: where to look.
        drafts: files and their text; one that is empty is left out.

    Raises:
        InvalidConfigError: what is wrong, with file, line and key.

    """
    uid = os.geteuid()
    found = files.find(places)
    files.check_directories(found, uid=uid)
    kept = _documents([path for path in found if path not in drafts], uid=uid)
    changed = [parse(text, path) for path, text in drafts.items() if text]
    return build(sorted([*kept, *changed], key=_reading_order), mode=places.mode, uid=uid)


def _reading_order(document: Document) -> tuple[bool, Path]:
    return document.file.name != files.MAIN, document.file


def load_file(path: Path, mode: Mode, *, types: Collection[str] | None = None) -> Config:
    """
    Return the config that a single file makes, to check it: who owns it does not matter yet.

    Raises:
        InvalidConfigError: what is wrong, with file, line and key.

    """
    uid = os.geteuid()
    document = parse(files.read(path, uid=uid, trusted=False), path)
    return build([document], mode=mode, uid=uid, types=types)


def build(documents: Iterable[Document], *, mode: Mode, uid: int, types: Collection[str] | None = None) -> Config:
    """
    Return what these documents say together.

    Args:
        documents: in the order in which they were read.
        mode: whose broker it is for.
        uid: whose config it is; in user mode who may use a server that names no selectors.
        types: the types of backend that there are; by default what is installed.

    Raises:
        InvalidConfigError: what is wrong, with file, line and key.

    """
    problems = Problems()
    merged = _merge(documents, problems)
    backends = _backends(merged.tables["backends"], types)
    config = Config(
        mode=mode,
        files=tuple(merged.files),
        backends=MappingProxyType(backends),
        # A secret may name a backend that is wrong itself: one mistake is told once.
        secrets=MappingProxyType(_secrets(merged.tables["secrets"], {LOCAL, *merged.tables["backends"]})),
        servers=MappingProxyType(_servers(merged.tables["servers"], mode=mode, uid=uid)),
        limits=Limits() if (limits := merged.single.get("limits")) is None else sections.limits(limits),
        audit=audit_section.audit(merged.single.get("audit")),
        notify=audit_section.notify(merged.single.get("notify")),
        autostart=merged.autostart,
    )
    problems.settle()
    return config


def installed_types() -> frozenset[str]:
    """Return the types of backend that are installed. Slow: it looks at every distribution."""
    return frozenset(kinds())


def _documents(paths: Iterable[Path], *, uid: int) -> list[Document]:
    """Return all files, or raise what is wrong with any of them."""
    wrong: list[Problem] = []
    found = []
    for path in paths:
        try:
            found.append(parse(files.read(path, uid=uid, trusted=True), path))
        except InvalidConfigError as error:
            wrong += error.problems
    if wrong:
        raise InvalidConfigError(wrong[:MOST])
    return found


@dataclass(slots=True)
class _Merged:
    """What the files say, by section and name."""

    files: list[Path] = field(default_factory=list)
    tables: dict[str, dict[str, Table]] = field(default_factory=lambda: {name: {} for name in _SECTIONS})
    single: dict[str, Table] = field(default_factory=dict)
    autostart: bool = True


def _merge(documents: Iterable[Document], problems: Problems) -> _Merged:
    merged = _Merged()
    first: dict[tuple[str, ...], Document] = {}
    for document in documents:
        merged.files.append(document.file)
        top = Table(document, (), document.rows, problems)
        top.expect(_TOP, _MISPLACED)
        for path in _definitions(document.rows):
            before = first.setdefault(path, document)
            if before is not document:
                top.reject(*path, text=f"stands in {before.where(path)} as well", hint="keep one of the two")
        for name in _SECTIONS:
            merged.tables[name] |= _named(top.take_table(name), name)
        merged.single |= {name: table for name in _SINGLE if (table := top.take_table(name)) is not None}
        flag = top.take_flag("autostart")
        merged.autostart = merged.autostart if flag is None else flag
    return merged


def _definitions(rows: Mapping[str, object]) -> Iterator[tuple[str, ...]]:
    """Yield what a file defines and no other file may define again."""
    for key, value in rows.items():
        if key in _SECTIONS and isinstance(value, dict):
            for name in value:
                yield key, name
        elif key in _TOP:
            yield (key,)


def _named(section: Table | None, kind: str) -> dict[str, Table]:
    if section is None:
        return {}
    allowed = template.SECRET_NAME if kind == "secrets" else _NAME
    letters = "letters, digits, - and _" if kind == "secrets" else "letters, digits, -, _ and ."
    found = {}
    for name in section.rows:
        if not allowed.fullmatch(name):
            section.reject(name, text=f"a name must be {letters}, and begin with a letter or digit")
            continue
        table = section.take_table(name)
        if table is not None:
            found[name] = table
    return found


def _backends(tables: Mapping[str, Table], types: Collection[str] | None) -> dict[str, BackendConfig]:
    found = {LOCAL: BackendConfig(name=LOCAL, type=SEALED)}
    for name, table in tables.items():
        one = sections.backend(name, table)
        if one is None:
            continue
        if one.type not in BUILT_IN:
            types = installed_types() if types is None else types
            sections.check_type(one, table, types)
        found[name] = one
    return found


def _secrets(tables: Mapping[str, Table], backends: Collection[str]) -> dict[str, SecretConfig]:
    found = {name: sections.secret(name, table, backends) for name, table in tables.items()}
    replaced: dict[tuple[str, str], str] = {}
    for name, secret in found.items():
        if secret.rotate is None:
            continue
        first = replaced.setdefault((secret.backend, secret.path), name)
        if first != name:
            # Two rotations of one credential would each undo what the other has set.
            tables[name].reject("rotate", text=f'the secret "{first}" is at the same path, and is replaced already')
    return found


def _servers(tables: Mapping[str, Table], *, mode: Mode, uid: int) -> dict[str, ServerConfig]:
    whole = servers.resolve({name: servers.draft(table) for name, table in tables.items()})
    return {name: servers.finish(name, whole[name], mode=mode, uid=uid) for name in tables}
