"""
The plan of the house, read from the source with ``ast``: who may know whom, and what the rules may not do.

docs/architecture.md has the plan in words. What stands here is what a reviewer
need not look for. This module refuses to import what it reads.
"""

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

import pytest

ROOT: Final = Path(__file__).resolve().parent.parent
OURS: Final = frozenset({"broker", "backends"})

PURE: Final = frozenset(
    "__future__ base64 bisect collections dataclasses datetime difflib enum functools hashlib heapq hmac itertools "
    "json math msgspec operator re string types typing zlib".split()
)
"""All that the rules may import from elsewhere: nothing in it opens, connects, sleeps, draws lots or knows the time."""

IMPURE_CALLS: Final = frozenset({"open", "print", "input", "exec", "eval", "compile", "__import__", "breakpoint"})
CLOCKS: Final = frozenset({"now", "utcnow", "today"})

ROOMS: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {
        "broker": frozenset(),
        "broker.errors": frozenset(),
        "broker.paths": frozenset({"broker.errors"}),
        "broker.core": frozenset({"broker.core", "broker.errors"}),
        "broker.config": frozenset(
            {"broker.config", "broker.core", "broker.errors", "broker.paths", "backends.base", "backends.registry"},
        ),
        "broker.api.messages": frozenset(
            {"backends.base", "broker.api.audit_messages", "broker.api.words", "broker.core"},
        ),
        "broker.api.audit_messages": frozenset({"broker.api.words"}),
        "broker.api.words": frozenset(),
        "broker.audit_keys": frozenset({"broker.core"}),
        "broker.audit_pages": frozenset({"broker.core", "broker.errors"}),
        "broker.demo": frozenset({"broker.demo", "broker.client", "broker.errors", "broker.launch"}),
        "broker.exec": frozenset({"broker.launch"}),
        "broker.launch": frozenset({"broker.launch"}),
        "broker.client": frozenset({"broker", "broker.errors", "broker.launch", "broker.paths", "broker.api.messages"}),
        "broker.cli": frozenset(
            "broker broker.cli broker.client broker.config broker.core broker.errors broker.paths broker.setup "
            "broker.clients broker.config_files broker.trial "
            "broker.service_units broker.lock "
            "broker.launch broker.api.messages broker.audit_pages broker.audit_keys backends.base "
            "backends.registry".split(),
        ),
        "backends": frozenset({"backends"}),
    }
)
"""
What of ours each room may import: itself and what is named, with all that is inside of it.

The longest name that fits counts. A room that does not stand here is part of the
shell: it may import what it likes but ``cli`` and ``client``, and never in a circle.
"""

LAZILY: Final = frozenset({("broker.cli.serve", "broker.daemon"), ("broker.cli.demo", "broker.demo")})
"""Who may import what it otherwise may not, inside of a function: the daemon's rooms are loaded by `serve` alone."""

LIBRARIES: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {
        "aiohttp": frozenset({"broker.api.http"}),
        "apscheduler": frozenset(),
        "click": frozenset({"broker.cli"}),
        "cryptography": frozenset({"backends", "broker.audit"}),
        "hvac": frozenset({"backends"}),
        "keyring": frozenset({"backends"}),
        "mcp": frozenset({"broker.demo"}),
        "msgspec": frozenset({"broker", "backends"}),
        "rich": frozenset({"broker.cli", "broker.demo"}),
        "urllib3": frozenset({"backends"}),
        "uvloop": frozenset({"broker.daemon"}),
    }
)
"""In which rooms a library may be imported at the top of a file. It makes every start slower that touches the room."""

EXPOSING: Final = MappingProxyType(
    {
        "backends": "seal what they store, and show a source what it asks for",
        "broker.api.encode": "is where a value leaves",
        "broker.audit": "takes a keyed fingerprint of it",
        "broker.config.template": "puts it into the text that the server gets, which is a secret again",
        "broker.rotation.staging": "has what is pending sealed, in one piece",
        "broker.rotation.program": "tells the admin's own program on its standard input, and finds them in its words",
        "broker.rotation.oauth2": "shows a token endpoint what it asks for",
    }
)
"""Who may look at a value, and what for. Whoever wants to be added has that to defend."""

WEASEL_WORDS: Final = ("Manager", "Helper", "Util", "Utils", "Data", "Info", "Handle")
LONGEST_FILE: Final = 450
LONGEST_TABLE_OF_CASES: Final = 600
LONGEST_FUNCTION: Final = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Import:
    """One imported module, where, and whether inside of a function."""

    name: str
    line: int
    lazy: bool


@dataclass(frozen=True, slots=True)
class Module:
    """One source file."""

    name: str
    path: Path
    tree: ast.Module

    @property
    def imports(self) -> Iterator[Import]:
        """Yield what it imports, with ``from a import b`` as ``a.b`` where that is a module of ours."""
        inside = {id(n) for f in ast.walk(self.tree) if isinstance(f, FUNCTION) for n in ast.walk(f)}
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [resolved(node.module or "", alias.name) for alias in node.names]
            else:
                continue
            for name in names:
                yield Import(name=name, line=node.lineno, lazy=id(node) in inside)


FUNCTION: Final = (ast.FunctionDef, ast.AsyncFunctionDef)


def read(*rooms: str) -> list[Module]:
    """Read every source file below ``rooms``."""
    paths = sorted(path for room in rooms for path in (ROOT / room).rglob("*.py"))
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in paths]
    return [Module(name, path, ast.parse(path.read_text())) for name, path in zip(names, paths, strict=True)]


def resolved(package: str, name: str) -> str:
    """Return the module that ``from package import name`` needs."""
    path = ROOT.joinpath(*package.split("."), name)
    ours = package.partition(".")[0] in OURS
    return f"{package}.{name}" if ours and (path.is_dir() or path.with_suffix(".py").exists()) else package


def within(name: str, room: str) -> bool:
    """Return whether a module is the room or inside of it. The package ``broker`` itself is no room of all others."""
    return name == room or (room != "broker" and name.startswith(f"{room}."))


def room_of(name: str) -> str | None:
    """Return the room that a module belongs to, or None for the shell."""
    return max((room for room in ROOMS if within(name, room)), key=len, default=None)


def metaclass(node: ast.ClassDef) -> bool:
    """Return whether a class names its metaclass."""
    return any(keyword.arg == "metaclass" for keyword in node.keywords)


SOURCES: Final = read("broker", "backends")
ALL: Final = [*SOURCES, *read("tests", "benchmarks", "tools", "examples")]

each_source = pytest.mark.parametrize("module", SOURCES, ids=lambda module: module.name)
each_file = pytest.mark.parametrize("module", ALL, ids=lambda module: module.name)


def forbidden(module: Module) -> Iterator[str]:
    """Yield each import of ours that breaks the plan."""
    room = room_of(module.name)
    for found in module.imports:
        if found.name.partition(".")[0] not in OURS or (found.lazy and (module.name, found.name) in LAZILY):
            continue
        if room is None:
            allowed = not any(within(found.name, upward) for upward in ("broker.cli", "broker.client"))
        else:
            allowed = any(within(found.name, other) for other in ROOMS[room])
        if not allowed and module.name != "broker.__main__":
            yield f"{module.path.relative_to(ROOT)}:{found.line} imports {found.name}"


@each_source
def test_a_room_imports_only_what_the_plan_allows(module: Module) -> None:
    """Each room knows only the rooms that the plan names."""
    assert [] == list(forbidden(module))


def test_modules_import_each_other_in_no_circle() -> None:
    """No module needs itself, by whatever way round, so that there is an order to read them in."""
    names = {module.name for module in SOURCES}
    needs = {m.name: {i.name for i in m.imports if i.name in names and i.name != m.name} for m in SOURCES}
    while free := [name for name, wanted in needs.items() if not wanted]:
        needs = {name: wanted.difference(free) for name, wanted in needs.items() if name not in free}
    assert {} == needs


@pytest.mark.parametrize("module", [m for m in SOURCES if within(m.name, "broker.core")], ids=lambda m: m.name)
def test_the_rules_can_do_no_input_or_output_and_read_no_clock(module: Module) -> None:
    """A file of core imports nothing that could, and calls nothing built in that could."""
    imports = {found.name.partition(".")[0] for found in module.imports} - OURS
    calls = [node.func for node in ast.walk(module.tree) if isinstance(node, ast.Call)]
    builtin = {call.id for call in calls if isinstance(call, ast.Name)}
    methods = {call.attr for call in calls if isinstance(call, ast.Attribute)}
    assert (set(), set(), set()) == (imports - PURE, builtin & IMPURE_CALLS, methods & CLOCKS)


def test_the_rules_never_touch_a_value() -> None:
    """No file of core so much as names what holds a value."""
    core = [module for module in SOURCES if within(module.name, "broker.core")]
    assert [] == [module.name for module in core if "expose" in module.path.read_text()]


@each_source
def test_values_are_looked_at_only_where_there_is_a_reason(module: Module) -> None:
    """Nobody exposes a secret but the few that have to."""
    exposed = [n.lineno for n in ast.walk(module.tree) if isinstance(n, ast.Attribute) and n.attr == "expose"]
    allowed = any(module.name == room or module.name.startswith(f"{room}.") for room in EXPOSING)
    assert [] == [line for line in exposed if not allowed]


@each_source
def test_a_library_is_loaded_only_where_it_is_needed(module: Module) -> None:
    """A library stands at the top of a file only in the rooms that the table names."""
    eager = {found.name.partition(".")[0] for found in module.imports if not found.lazy} & LIBRARIES.keys()
    homes = {name: LIBRARIES[name] for name in eager}
    assert [] == [n for n, rooms in homes.items() if not any(module.name.startswith(room) for room in rooms)]


def test_exec_needs_nothing_but_the_standard_library() -> None:
    """What a client waits for imports no library, not even late."""
    modules = [m for m in SOURCES if m.name == "broker.exec" or within(m.name, "broker.launch")]
    imports = {found.name.partition(".")[0] for module in modules for found in module.imports}
    assert set() == imports & LIBRARIES.keys()


@each_file
def test_every_file_says_what_it_is(module: Module) -> None:
    """Every file begins with a docstring."""
    assert ast.get_docstring(module.tree)


@each_file
def test_imports_are_absolute(module: Module) -> None:
    """No import is relative, so that each says where it leads."""
    assert [] == [n.lineno for n in ast.walk(module.tree) if isinstance(n, ast.ImportFrom) and n.level]


@each_file
def test_files_and_functions_stay_short(module: Module) -> None:
    """No file and no function is longer than one can keep in mind."""
    functions = [node for node in ast.walk(module.tree) if isinstance(node, FUNCTION)]
    long = [f.name for f in functions if (f.end_lineno or 0) - f.lineno >= LONGEST_FUNCTION]
    lines = len(module.path.read_text().splitlines())
    longest = LONGEST_TABLE_OF_CASES if module.path.is_relative_to(ROOT / "tests") else LONGEST_FILE
    assert (True, []) == (lines <= longest, long)


@each_source
def test_importing_does_nothing(module: Module) -> None:
    """No file calls something for its effect while it is imported."""
    effects = [
        node.lineno for node in module.tree.body if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
    ]
    assert [] == effects


@each_source
def test_there_are_no_globals_metaclasses_or_abstract_classes(module: Module) -> None:
    """What the style leaves out is left out."""
    nodes = list(ast.walk(module.tree))
    assert [] == [
        *(f"global in line {node.lineno}" for node in nodes if isinstance(node, ast.Global)),
        *(f"{node.name} has a metaclass" for node in nodes if isinstance(node, ast.ClassDef) and metaclass(node)),
        *(found.name for found in module.imports if found.name == "abc"),
    ]


@each_file
def test_names_say_something(module: Module) -> None:
    """No class and no file has a name that would fit any other."""
    classes = [node.name for node in ast.walk(module.tree) if isinstance(node, ast.ClassDef)]
    file = module.path.stem.rpartition("_")[2].capitalize()
    assert [] == [name for name in [*classes, file] if name.endswith(WEASEL_WORDS)]


@pytest.mark.parametrize("module", read("tests"), ids=lambda module: module.name)
def test_tests_put_nothing_in_the_place_of_something_else(module: Module) -> None:
    """No test mocks or patches: what stands in for something implements it."""
    mocks = [found.line for found in module.imports if "mock" in found.name]
    arguments = [a for node in ast.walk(module.tree) if isinstance(node, FUNCTION) for a in node.args.args]
    assert ([], []) == (mocks, [a.lineno for a in arguments if a.arg in {"monkeypatch", "mocker"}])


def test_ci_requires_every_live_test() -> None:
    """Each real thing that a test uses stands in CI's list of what must not be skipped, but for what is too large."""
    listed = {line.partition("#")[0].strip() for line in (ROOT / ".ci/live").read_text().splitlines()} - {""}
    calls = [node for module in read("tests") for node in ast.walk(module.tree) if isinstance(node, ast.Call)]
    live = [call for call in calls if ast.unparse(call.func) == "pytest.mark.live"]
    named = {ast.literal_eval(call.args[0]) for call in live}
    assert {"root"} | (named - {"vault", "clients-own-parsers"}) == listed
