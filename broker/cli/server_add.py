"""
``server add``: from a token to a server that runs, in one step.

All of it happens or none: what was stored and written is taken back where a
later part fails. This module refuses a value on the command line, and to ask for
one before everything else is known to be right.
"""

import re
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any, Final

import click

from broker import config_files, trial
from broker.cli import client_config, options, show, values
from broker.cli.show import Cell
from broker.client import ANYWHERE, Where
from broker.clients.entry import Entry, entry
from broker.clients.known import CLIENTS
from broker.clients.launcher import launcher
from broker.config import Config, drafts
from broker.config.advice import advice
from broker.config.plaintext import looks_secret
from broker.config.template import FIELD_NAME, SECRET_NAME
from broker.errors import BrokerError, RequestError
from broker.paths import Places

NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_SHOWN: Final = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """A variable of the server, and the secret and field whose value it gets."""

    variable: str
    secret: str
    field: str | None
    file: bool

    @property
    def template(self) -> str:
        """Return it as the config writes it."""
        return f"{{{self.secret}}}" if self.field is None else f"{{{self.secret}.{self.field}}}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """
    What is going to be done.

    Attributes:
        wanted: the server's table.
        change: the file that it goes into.
        asked: the references whose secret is still to be stored.
        there: the secrets that are stored already.
        backend: where new ones are kept, where that was said.

    """

    wanted: drafts.Wanted
    change: config_files.Change
    asked: Sequence[Reference]
    there: Sequence[str]
    backend: str | None


@click.command("add")
@click.argument("name")
@click.argument("command", nargs=-1, type=click.UNPROCESSED, metavar="-- COMMAND...")
@click.option("--secret", "secrets", multiple=True, metavar="VAR[=SECRET]", help="A variable that gets a secret.")
@click.option("--file", "files", multiple=True, metavar="VAR[=SECRET]", help="The same, as a file in memory.")
@click.option("--like", metavar="SERVER", help="The same as another server, but for what is said here.")
@click.option("--client-args", is_flag=True, help="What the client adds behind -- goes through.")
@click.option("--allow", multiple=True, metavar="SECRET", help="A secret that it may ask for over the socket.")
@click.option("--selector", "selectors", multiple=True, metavar="SELECTOR", help="Who may start it: unit:NAME.service.")
@click.option("--backend", metavar="NAME", help="The backend that keeps what is stored now.")
@click.option("--client", metavar="CLIENT", help="Print the entry for this client.")
@click.option("--no-start", is_flag=True, help="Do not start it to see whether it works.")
@click.option("--dry-run", is_flag=True, help="Say what would be done.")
@options.as_json
@options.which_broker
def add(
    *,
    where: Where,
    name: str,
    command: tuple[str, ...],
    secrets: tuple[str, ...],
    files: tuple[str, ...],
    backend: str | None,
    client: str | None,
    no_start: bool,
    dry_run: bool,
    as_json: bool,
    **rest: Any,  # noqa: ANN401 - what goes into the table as it is
) -> None:
    """
    Add the MCP server NAME: store its secrets, write its config, try it, print the client's entry.

    Each value is asked for without echo; where stdin is not a terminal it is the
    value, or with several a JSON object of them by variable:

        mcp-broker server add github --secret GITHUB_PERSONAL_ACCESS_TOKEN -- npx -y @modelcontextprotocol/server-github
        mcp-broker server add github-work --like github --secret GITHUB_PERSONAL_ACCESS_TOKEN
    """
    _refuse_name(name)
    references = [*_references(name, secrets, file=False), *_references(name, files, file=True)]
    chosen = client_config.named(client or client_config.USUAL)
    _refuse(name, command, rest["like"], references)
    found = launcher()
    wanted = drafts.Wanted(
        name=name,
        command=command,
        env={one.variable: one.template for one in references if not one.file},
        files={one.variable: one.template for one in references if one.file},
        **rest,
    )
    if dry_run:
        _refuse_backend(config_files.current(options.places(where)), references, backend)
        _show_plan(_planned(options.places(where), wanted, references, [], backend), as_json=as_json)
        return
    plan, places = _prepared(where, wanted, references, backend)
    given = _values(plan, where)
    made = client_config.start(name, where, found)
    tries = not no_start and places.mode == "user"
    answered = _carried_out(plan, given, places, where, words=[made.command, *made.arguments] if tries else [])
    text = entry(CLIENTS[chosen], made)
    if as_json:
        show.as_json(_told(plan, answered, client_config.told(chosen, text)))
        return
    _say(plan, answered, places, text)
    server = plan.change.config.servers[name]
    client_config.explain(CLIENTS[chosen], text, server, found, with_path=False)
    if client is None:
        more = f"mcp-broker client-config {name} --client CLIENT{options.again(where)}"
        show.line(f"for another client: {more}", err=True)


def _prepared(
    where: Where, wanted: drafts.Wanted, references: Sequence[Reference], backend: str | None
) -> tuple[Plan, Places]:
    """Return what is to be done, and to whose config; say what will not work."""
    with options.admin(where) as broker:
        places = _places(where, broker.broker["mode"])
        _refuse_backend(config_files.current(places), references, backend)
        rows = broker.call("secret/list")["secrets"]
        if backend is not None:
            rows += broker.call("secret/list", backend=backend)["secrets"]
    plan = _planned(places, wanted, references, rows, backend)
    _advise(plan.change.config, wanted.name, err=True)
    return plan, places


def _carried_out(
    plan: Plan, given: Mapping[str, str], places: Places, where: Where, *, words: Sequence[str]
) -> trial.Answered | None:
    """Store, write and try, or take back what was done. Without ``words`` nothing is tried."""
    with _undoing() as undo:
        _store(plan, given, where, undo)
        _write(plan, places, where, undo)
        answered = _tried(words, plan, given, where) if words else None
        undo.pop_all()
    return answered


def _references(name: str, words: Sequence[str], *, file: bool) -> list[Reference]:
    """Read ``VAR``, ``VAR=SECRET`` and ``VAR=SECRET.FIELD``."""
    found = []
    for word in words:
        variable, equals, rest = word.partition("=")
        secret, dot, part = rest.partition(".")
        if not equals:
            secret = _usual_name(name, variable, alone=len(words) == 1)
        if looks_secret(word) or (rest and looks_secret(rest, variable) and not SECRET_NAME.fullmatch(secret)):
            raise _on_the_command_line(variable)
        if not _VARIABLE.fullmatch(variable):
            message = "--secret and --file want the name of a variable, and after an = the name of a secret"
            raise RequestError(message, hint="mcp-broker server add --help")
        if not SECRET_NAME.fullmatch(secret) or (dot and not FIELD_NAME.fullmatch(part)):
            raise _on_the_command_line(variable)
        found.append(Reference(variable=variable, secret=secret, field=part if dot else None, file=file))
    return found


def _usual_name(server: str, variable: str, *, alone: bool) -> str:
    """Return the name of a secret where none was given: the server's, with the variable's where it has several."""
    base = server.replace(".", "-")
    return base if alone else f"{base}-{variable.lower().replace('_', '-')}"


def _on_the_command_line(variable: str) -> RequestError:
    message = (
        "what follows the = is the name of a secret, and this is none; if it is a value, it is now in your shell's "
    )
    message += "history, and ps showed it"
    safe = variable if _VARIABLE.fullmatch(variable) and not looks_secret(variable) else "VARIABLE"
    hint = f"--secret {safe}, which asks for the value; replace one that was shown where it came from"
    return RequestError(message, hint=hint)


def _refuse_name(name: str) -> None:
    if not NAME.fullmatch(name) or looks_secret(name):
        message = "a server's name is letters, digits, -, _ and ., and begins with a letter or digit"
        raise RequestError(message, hint="mcp-broker server add github --secret VARIABLE -- COMMAND")


def _refuse(name: str, command: Sequence[str], like: str | None, references: Sequence[Reference]) -> None:
    """Refuse what cannot be a server, before anything else is looked at."""
    if like is None and not (command and command[0]):
        message = "there is no command that starts it"
        raise RequestError(message, hint=f"mcp-broker server add {name} --secret VARIABLE -- npx -y PACKAGE")
    names = [one.variable for one in references]
    twice = next((one for one in names if names.count(one) > 1), None)
    if twice is not None:
        message = f"{twice} is there twice"
        raise RequestError(message, hint="mcp-broker server add --help")


def _places(where: Where, mode: str) -> Places:
    """Return where the config of the broker is that answers."""
    return options.places(("--system", "") if where == ANYWHERE and mode == "system" else where)


def _planned(
    places: Places,
    wanted: drafts.Wanted,
    references: Sequence[Reference],
    rows: Sequence[Mapping[str, Any]],
    backend: str | None,
) -> Plan:
    """Return what is to be done, having seen that the config will be valid."""
    before = config_files.current(places)
    if wanted.name in before.servers:
        message = f"the config names {wanted.name} already, in {before.servers[wanted.name].where}"
        raise RequestError(message, hint=f"mcp-broker server rm {wanted.name}, or another name")
    stored = {row["name"] for row in rows if row["stored"] is not False}
    elsewhere = {row["name"] for row in rows if row["backend"] != (backend or row["backend"])}
    asked = [one for one in references if one.secret not in stored - elsewhere]
    new = {one.secret for one in references if one.secret not in before.secrets}
    kept = {} if backend is None else dict.fromkeys(sorted(new), backend)
    wanted = replace(wanted, kept=kept)
    path = config_files.part(places, wanted.name)
    text = config_files.text_of(path)
    change = config_files.planned(places, path, drafts.added(text or "", wanted), expected=text)
    there = sorted({one.secret for one in references}.difference(one.secret for one in asked))
    return Plan(wanted=wanted, change=change, asked=asked, there=there, backend=backend)


def _refuse_backend(before: Config, references: Sequence[Reference], backend: str | None) -> None:
    if backend is None:
        return
    if backend not in before.backends:
        message = "the config names no such backend"
        raise RequestError(message, hint=f"--backend {' | '.join(before.backends)}")
    for one in references:
        named = before.secrets.get(one.secret)
        if named is not None and named.backend != backend:
            message = f"the config keeps {one.secret} in {named.backend}"
            raise RequestError(message, hint="leave --backend out, or give the secret another name: --secret VAR=NAME")


def _advise(config: Config, name: str, *, err: bool) -> None:
    for each in advice(config):
        if each.key.startswith(f"servers.{name}."):
            show.line(Cell(f"{each.severity}: ", "yellow"), f"{each.key}: {each.text}", err=err)
            if each.hint:
                show.line(f"  hint: {each.hint}", err=err)


def _values(plan: Plan, where: Where) -> Mapping[str, str]:
    """Ask for what is still to be stored, by variable."""
    again = options.again(where)
    for name in plan.there:
        note = f"{name} is stored already and is used as it is; mcp-broker secret set {name}{again} replaces it"
        show.line(Cell("note: ", "yellow"), note, err=True)
    file = next((one for one in plan.asked if one.file), None)
    if file is not None and (show.is_asked() or len(plan.asked) > 1):
        message = f"the content of a file cannot be typed: {file.secret} has to be stored first"
        raise RequestError(message, hint=f"mcp-broker secret set {file.secret} --file PATH{again}")
    place = plan.backend or "the broker"
    kept = {one.variable: f"kept by {place} as {one.template[1:-1]}" for one in plan.asked}
    return values.of_variables(kept, f"mcp-broker secret set NAME --file PATH{again}, and then this again")


@contextmanager
def _undoing() -> Iterator[ExitStack]:
    """Take back what was done where something fails, also where the terminal goes."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    before = {one: signal.signal(one, stop) for one in (signal.SIGTERM, signal.SIGHUP)}
    try:
        with ExitStack() as undo:
            yield undo
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def _taking_back(undo: ExitStack, what: str, body: Callable[[], object]) -> None:
    """Have something taken back if need be; where that fails, somebody has to know."""

    def back() -> None:
        try:
            body()
        except BrokerError as error:
            show.line(f"mcp-broker: {what} could not be taken back: {error.message}", err=True)

    undo.callback(back)


def _ask(where: Where, verb: str, **params: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
    with options.admin(where) as broker:
        return broker.call(verb, **params)


def _store(plan: Plan, given: Mapping[str, str], where: Where, undo: ExitStack) -> None:
    """Store each new secret with all of its fields."""
    fields: dict[str, dict[str, str]] = {}
    for one in plan.asked:
        fields.setdefault(one.secret, {})[one.field or values.ONE] = given[one.variable]
    for secret, found in fields.items():
        named = plan.change.config.secret(secret)
        params = {"name": secret, "backend": plan.backend if named.backend == plan.backend else None}

        def remove(params: Mapping[str, Any] = params) -> None:
            with suppress(RequestError):  # it never came to be stored
                _ask(where, "secret/rm", **params)

        _taking_back(undo, f"the secret {secret}", remove)
        _ask(where, "secret/set", values=found, **params)


def _write(plan: Plan, places: Places, where: Where, undo: ExitStack) -> None:
    """Write the file and have it read."""

    def back() -> None:
        config_files.unmake(plan.change, places)
        _ask(where, "reload")

    config_files.make(plan.change, places)
    _taking_back(undo, str(plan.change.path), back)
    _ask(where, "reload")


def _tried(words: Sequence[str], plan: Plan, given: Mapping[str, str], where: Where) -> trial.Answered:
    """Start the server once."""
    show.line("starting it once, to see its tools …", err=True)
    try:
        return trial.attempt(words, given.values())
    except trial.TrialError as error:
        if plan.there or plan.wanted.like or plan.wanted.allow:
            # What it says may hold a value that was stored before, which we do not know and cannot clean.
            show.line("what it wrote is not shown: it has secrets that were stored before", err=True)
        else:
            for line in error.said:
                show.line(Cell(f"  {line}", "dim"), err=True)
        show.line("nothing was added: what was stored and written is taken back", err=True)
        again = f"mcp-broker server add {plan.wanted.name} … --no-start{options.again(where)} adds it untried"
        raise TrialFailedError(error.message, hint=f"{error.hint}; {again}" if error.hint else again) from None


class TrialFailedError(BrokerError):
    """The server that was to be added does not answer."""


def _show_plan(plan: Plan, *, as_json: bool) -> None:
    if as_json:
        show.as_json({**_told(plan, None, None), "text": plan.change.after})
        return
    for one in plan.asked:
        show.line(f"would ask for {one.variable}, unless {one.secret} is stored already")
    show.line(f"would write {plan.change.path}:")
    for line in plan.change.after.splitlines():
        show.line(f"    {line}")
    _advise(plan.change.config, plan.wanted.name, err=False)


def _told(plan: Plan, answered: trial.Answered | None, entry: Mapping[str, object] | None) -> dict[str, object]:
    tools = None if answered is None else list(answered.tools)
    return {
        "server": plan.wanted.name,
        "file": str(plan.change.path),
        "stored": sorted({one.secret for one in plan.asked}),
        "there": list(plan.there),
        "answered": None if answered is None else {"name": answered.name, "protocol": answered.version},
        "tools": tools,
        "entry": entry,
    }


def _say(plan: Plan, answered: trial.Answered | None, places: Places, text: Entry) -> None:
    for secret in dict.fromkeys(one.secret for one in plan.asked):
        kept = plan.change.config.secret(secret).backend
        show.line(f"{secret} is stored in {kept}", err=True)
    show.line(f"{plan.wanted.name} is in {plan.change.path}", err=True)
    if answered is not None:
        shown = ", ".join(answered.tools[:_SHOWN]) + (", …" if len(answered.tools) > _SHOWN else "")
        count = f"{len(answered.tools)} tool{'' if len(answered.tools) == 1 else 's'}"
        about = f"{answered.name}, protocol {answered.version}"
        show.line(Cell("it works: ", "green"), f"{about}, {count}{': ' if shown else ''}{shown}", err=True)
    elif places.mode == "system":
        show.line("not tried: only its own unit may start it", err=True)
    click.echo(text.text)
