"""
The engine for what people store, in both versions.

It refuses to forget that something was deleted: version 2 keeps the fact, and answers 404 with a body.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final

from tests.fakes.vault.core import Mount, Plain, Vault
from tests.fakes.vault.wire import NOTHING, Answer, Refusal, Request, bad, moment, seconds

_WRONG_PATH: Final = (
    "Invalid path for a versioned K/V secrets engine. See the API docs for the appropriate API endpoints to use. "
    "If using the OpenBao CLI, use 'bao kv {}' for this operation."
)


def absent() -> Refusal:
    """Return a 404 that says nothing."""
    return Refusal(HTTPStatus.NOT_FOUND)


def keys_below(paths: Iterable[str], prefix: str) -> Answer:
    """Return the names right below a path, folders with a slash. Raises ``Refusal`` where there are none."""
    prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
    names = {path.removeprefix(prefix) for path in paths if path.startswith(prefix)}
    keys = sorted({head + slash for head, slash, _ in (name.partition("/") for name in names)})
    if not keys:
        raise absent()
    return Answer(data={"keys": keys})


class Kv1(Plain):
    """Version 1: one value at a path."""

    kind = "kv"

    def __init__(self) -> None:
        """Begin empty."""
        self.values: dict[str, Mapping[str, Any]] = {}

    def exists(self, request: Request, rest: str) -> bool | None:
        """Return whether something is stored there."""
        del request
        return rest in self.values

    def answer(self, request: Request, rest: str) -> Answer:
        """Read, write, delete, list."""
        if request.method == "LIST":
            return keys_below(self.values, rest)
        if request.writes:
            if not request.body:
                raise bad("missing data fields")
            self.values[rest] = dict(request.body)
            return NOTHING
        if request.method == "DELETE":
            self.values.pop(rest, None)
            return NOTHING
        if rest not in self.values:
            raise absent()
        value = self.values[rest]
        hint = value.get("ttl", value.get("lease", 0))
        return Answer(data=value, lease_duration=int(seconds(hint)) or 2764800)


@dataclass(slots=True, kw_only=True)
class Version:
    """One version of a value; None where it was destroyed."""

    number: int
    value: Mapping[str, Any] | None = field(repr=False)
    created: float
    deleted: float | None = None

    def metadata(self, custom: Mapping[str, str] | None) -> dict[str, Any]:
        """Return what is said of it beside its value."""
        return {"created_time": moment(self.created), "custom_metadata": custom, **self.fate(), "version": self.number}

    def fate(self) -> dict[str, Any]:
        """Return whether and when it was, or will be, deleted."""
        when = "" if self.deleted is None else moment(self.deleted)
        return {"deletion_time": when, "destroyed": self.value is None}

    def gone(self, now: float) -> bool:
        """Return whether it cannot be read any more."""
        return self.value is None or (self.deleted is not None and self.deleted <= now)


@dataclass(slots=True, kw_only=True)
class Item:
    """One path of version 2."""

    created: float
    versions: dict[int, Version] = field(default_factory=dict)
    cas_required: bool = False
    delete_after: float = 0
    custom: Mapping[str, str] | None = None

    @property
    def current(self) -> int:
        """Return the number of the newest version; 0 for none."""
        return max(self.versions, default=0)


class Kv2(Plain):
    """Version 2: versions at a path, below ``data/``."""

    kind = "kv"

    def __init__(self, vault: Vault) -> None:
        """Begin empty. ``behind`` is how many seconds late a standby sees a write; 0 for none."""
        self._vault = vault
        self.items: dict[str, Item] = {}
        self.cas_required = False

    def exists(self, request: Request, rest: str) -> bool | None:
        """Return whether there is a version."""
        del request
        verb, _, path = rest.partition("/")
        return path in self.items if verb == "data" else None

    def answer(self, request: Request, rest: str) -> Answer:
        """Do what the first part of the path says."""
        verb, _, path = rest.partition("/")
        found = getattr(self, f"_{verb}", None) if verb in _VERBS else None
        if found is None or (not path and verb not in {"config", "metadata"}):
            text = _WRONG_PATH.format("put" if request.writes else "list" if request.method == "LIST" else "get")
            return Answer(status=HTTPStatus.NOT_FOUND, warnings=[text])
        answer: Answer = found(request, path)
        return answer

    def _config(self, request: Request, path: str) -> Answer:
        del path
        if request.writes:
            self.cas_required = bool(request.body.get("cas_required", self.cas_required))
            return NOTHING
        return Answer(data={"cas_required": self.cas_required, "delete_version_after": "0s", "max_versions": 0})

    def _data(self, request: Request, path: str) -> Answer:
        now = self._vault.clock.now()
        if request.writes:
            return self._put(request, path, now)
        item = self.items.get(path)
        if request.method == "DELETE":
            if item is not None and item.current:
                item.versions[item.current].deleted = now
            return NOTHING
        if item is None:
            raise absent()
        seen = now - float(request.headers.get("x-fake-behind", "0"))
        known = {number: version for number, version in item.versions.items() if version.created <= seen}
        number = int(request.query.get("version") or 0) or max(known, default=0)
        version = known.get(number)
        if version is None:
            raise absent()
        gone = version.gone(now)
        fields = {"data": None if gone else version.value, "metadata": version.metadata(item.custom)}
        return Answer(status=HTTPStatus.NOT_FOUND if gone else None, data=fields)

    def _put(self, request: Request, path: str, now: float) -> Answer:
        value = request.body.get("data")
        if not isinstance(value, Mapping):
            raise bad("no data provided")
        item = self.items.get(path)
        cas = (request.body.get("options") or {}).get("cas")
        if cas is None and (self.cas_required or (item is not None and item.cas_required)):
            raise bad("check-and-set parameter required for this call")
        if cas is not None and int(cas) != (item.current if item else 0):
            raise bad("check-and-set parameter did not match the current version")
        if item is None:
            item = self.items[path] = Item(created=now)
        number = item.current + 1
        version = Version(number=number, value=dict(value), created=now)
        if item.delete_after:
            version.deleted = now + item.delete_after
        item.versions[number] = version
        return Answer(data=version.metadata(item.custom))

    def _delete(self, request: Request, path: str) -> Answer:
        for version in self._named(request, path):
            version.deleted = self._vault.clock.now()
        return NOTHING

    def _undelete(self, request: Request, path: str) -> Answer:
        for version in self._named(request, path):
            version.deleted = None
        return NOTHING

    def _destroy(self, request: Request, path: str) -> Answer:
        for version in self._named(request, path):
            version.value = None
        return NOTHING

    def _named(self, request: Request, path: str) -> list[Version]:
        item = self.items.get(path)
        numbers = [int(number) for number in request.body.get("versions", [])]
        return [] if item is None else [item.versions[number] for number in numbers if number in item.versions]

    def _metadata(self, request: Request, path: str) -> Answer:
        if request.method == "LIST":
            return keys_below(self.items, path)
        if request.method == "DELETE":
            self.items.pop(path, None)
            return NOTHING
        if request.writes:
            item = self.items.setdefault(path, Item(created=self._vault.clock.now()))
            item.cas_required = bool(request.body.get("cas_required", item.cas_required))
            item.delete_after = seconds(request.body.get("delete_version_after", item.delete_after))
            item.custom = request.body.get("custom_metadata", item.custom)
            return NOTHING
        if path not in self.items:
            raise absent()
        return Answer(data=_described(self.items[path]))


def _described(item: Item) -> dict[str, Any]:
    newest = item.versions.get(item.current)
    return {
        "cas_required": item.cas_required,
        "created_time": moment(item.created),
        "current_metadata_version": 0,
        "current_version": item.current,
        "custom_metadata": item.custom,
        "delete_version_after": "0s",
        "max_versions": 0,
        "metadata_cas_required": False,
        "oldest_version": 0,
        "updated_time": moment(newest.created if newest else item.created),
        "versions": {
            str(number): {"created_time": moment(version.created), **version.fate()}
            for number, version in item.versions.items()
        },
    }


_VERBS: Final = frozenset({"config", "data", "delete", "undelete", "destroy", "metadata"})


def make(vault: Vault, mount: Mount) -> Kv1 | Kv2:
    """Return the engine of the version that the mount asks for."""
    return Kv2(vault) if str(mount.options.get("version", "1")) == "2" else Kv1()
