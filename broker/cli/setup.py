"""
``init`` and ``check``: before the first start, and before a change is put in force.

This module refuses to need a running broker.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import click

from backends.base import BackendError, Surroundings
from backends.registry import make
from broker.cli import options, show
from broker.cli.show import Cell
from broker.client import ADMIN, ANYWHERE, Client, Where
from broker.config import Config, load, load_file
from broker.config.advice import Advice, advice
from broker.config.effective import as_toml, effective
from broker.errors import BrokerError, ConfigError, UnavailableError
from broker.paths import Places
from broker.setup import Choice, initialise


@click.command()
@click.option("--yes", is_flag=True, help="Ask nothing, and take the best place for the master key.")
@options.which_broker
def init(*, where: Where, yes: bool) -> None:
    """
    Make what a broker needs before its first start.

    That is a config to fill in, the state directory, and a master key in the
    best place that this machine has. What is there already stays as it is.
    """
    asks = not yes and sys.stdin is not None and sys.stdin.isatty()
    report = initialise(options.places(where), choose=_ask if asks else None)
    for step in report.steps:
        show.line(Cell("made  " if step.created else "there ", "green" if step.created else "dim"), str(step.path))
    show.line(f"the master key: {report.key} ({report.why})")
    for warning in report.warnings:
        show.line(Cell("note: ", "yellow"), warning)
    if report.changed:
        first, again = "reload" if _runs(where) else "serve", options.again(where)
        show.line(f"next: mcp-broker {first}{again}, then mcp-broker secret set NAME{again}")
    else:
        show.line("nothing was changed")


def _runs(where: Where) -> bool:
    """Return whether the broker that this config is for runs already."""
    try:
        options.admin(("--user", "") if where == ANYWHERE else where, autostart=False).close()
    except UnavailableError:
        return False
    except BrokerError:
        return True
    return True


def _ask(offered: Sequence[Choice]) -> Choice:
    """Let a person choose among what works; the best one is the answer to no answer."""
    usable = [choice for choice in offered if choice.usable]
    for choice in offered:
        if not choice.usable:
            show.line(Cell(f"   -  {choice.kind}: {choice.why}", "dim"))
    if len(usable) == 1:
        return usable[0]
    for number, choice in enumerate(usable, 1):
        show.line(Cell(f"  {number:>2}  {choice.kind}", "bold"), f": {choice.why}")
        if choice.warning:
            show.line(f"      {choice.warning}")
    chosen = click.prompt("where should the master key be?", type=click.IntRange(1, len(usable)), default=1, err=True)
    return usable[int(chosen) - 1]


@click.command()
@click.option("--config", "file", type=click.Path(path_type=Path), help="Check this file alone, as CI does.")
@options.as_json
@options.which_broker
def check(*, where: Where, file: Path | None, as_json: bool) -> None:
    """
    Print the config as it is in force, and say what in it will not work.

    No broker is needed, and none is changed. A config that is wrong ends with
    status 78; a warning changes no status.
    """
    places = options.places(where)
    config = load(places) if file is None else load_file(file, places.mode)
    _try_backends(config, places)
    found, kept = advice(config), _kept(where) if file is None else []
    if as_json:
        rows = [_row(each) for each in found]
        files = [str(path) for path in config.files]
        show.as_json({"files": files, "config": effective(config), "advice": rows, "kept": kept})
        return
    click.echo(as_toml(effective(config)), nl=False)
    for each in found:
        show.line(Cell(f"{each.severity}: ", "yellow"), f"{each.where}: {each.key}: {each.text}", err=True)
        if each.hint:
            show.line(f"  hint: {each.hint}", err=True)
    for text in kept:
        show.line(f"note: {text}", err=True)
    if not config.files:
        show.line(f"note: there is no config in {places.config}; mcp-broker init makes one", err=True)


def _kept(where: Where) -> list[str]:
    """Return who keeps a version that was replaced, as a broker that runs knows it; nothing where none does."""
    try:
        with Client(where, socket=ADMIN, within=0.0, autostart=False) as client:
            rows = client.call("rotation/list")["rotations"]
    except BrokerError:
        return []
    return [f"secret {each['name']!r}: {each['says']}" for each in rows if each["says"]]


def _try_backends(config: Config, places: Places) -> None:
    """Have every backend read its options, which none but itself knows."""
    surroundings = Surroundings(mode=places.mode, config=places.config, state=places.state)
    for name, backend in config.backends.items():
        try:
            make(backend.type, name, backend.options, surroundings)
        except BackendError as error:
            message = f"{backend.where}: backends.{name}: {error.message}"
            raise ConfigError(message, hint=error.hint) from None


def _row(each: Advice) -> dict[str, object]:
    return {
        "severity": each.severity,
        "file": str(each.where.file),
        "line": each.where.line,
        "key": each.key,
        "text": each.text,
        "hint": each.hint,
    }
