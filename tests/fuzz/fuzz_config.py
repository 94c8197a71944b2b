"""
Fuzz the config reader: any bytes as ``broker.toml``.

``python tests/fuzz/fuzz_config.py -runs=N tests/fuzz/corpus/config`` looks for new
inputs, guided by coverage, with atheris; without it ``tests/config`` replays the corpus.
This module refuses to touch files of its own: a config is bytes in, config or error out.
"""

import json
import sys
import tomllib
from pathlib import Path
from typing import Final

from broker.config import files
from broker.config.advice import advice
from broker.config.changes import changes
from broker.config.document import parse
from broker.config.effective import as_toml, effective
from broker.config.loader import build
from broker.config.model import Config
from broker.config.problems import InvalidConfigError
from broker.paths import Mode

FILE: Final = Path("broker.toml")
TYPES: Final = frozenset({"sealed", "vault", "keyring"})
UID: Final = 1000


def one_input(raw: bytes) -> None:
    """
    Try one input in both modes.

    Raises:
        AssertionError: what is promised of every config does not hold.
        Exception: anything but the error of the config.

    """
    for mode in ("user", "system"):
        one_mode(raw, mode)


def one_mode(raw: bytes, mode: Mode) -> bool:
    """Try one input in one mode; return whether it is a config."""
    try:
        config = read(files.decode(raw, FILE), mode)
    except InvalidConfigError as error:
        check_error(error, raw)
        return False
    check_config(config)
    return True


def read(text: str, mode: Mode) -> Config:
    """Return the config that a text makes."""
    return build([parse(text, FILE)], mode=mode, uid=UID, types=TYPES)


def check_error(error: InvalidConfigError, raw: bytes) -> None:
    """Hold an error to its promises: real lines, printable text, nothing of the input taken along."""
    last = raw.count(b"\n") + 1
    require(all(0 <= problem.where.line <= last for problem in error.problems), "a line that is not there")
    require(str(error).replace("\n", "").isprintable(), "an error that a terminal would obey")
    require(error.__cause__ is None and error.__context__ is None, "an error that carries another one along")


def check_config(config: Config) -> None:
    """Hold a config to its promises."""
    require("local" in config.backends, "no local store")
    require(all(server.selectors for server in config.servers.values()), "a server that holds for nobody")
    if config.mode == "system":
        for server in config.servers.values():
            units = any(selector.startswith("unit:") for selector in server.selectors)
            require(units or server.unsafe_user_selector, "a server without a unit")
    policy = config.policy()
    for rule in policy.servers.values():
        require(rule.grants <= policy.secrets.keys(), "a grant of a secret without a rule")
    require(changes(config, config) == [], "a change where there is none")
    for one in advice(config):
        require(str(one).isprintable(), "advice that a terminal would obey")
    check_effective(config)


def check_effective(config: Config) -> None:
    """Hold the effective config to its promise: it can be read again, and says the same."""
    structure = effective(config)
    json.dumps(structure, allow_nan=False)
    text = as_toml(structure)
    require(text.replace("\n", "").isprintable(), "an effective config that a terminal would obey")
    tomllib.loads(text)
    try:
        again = read(text, config.mode)
    except InvalidConfigError as error:
        # Tables in arrays are written on one line each, which nests deeper than where they came from.
        require("levels deep" in error.message, f"an effective config that is none: {error}")
    else:
        require(effective(again) == structure, "an effective config that has another effect")


def require(holds: bool, what: str) -> None:  # noqa: FBT001 - reads like assert, and stays where assert is stripped
    """Fail unless it holds."""
    if not holds:
        raise AssertionError(what)


def main() -> None:
    """Fuzz until the runs that were asked for are done, or something is found."""
    import atheris  # noqa: PLC0415 - the replay of the corpus does without it

    atheris.instrument_all()
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
