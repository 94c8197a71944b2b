"""
What a ``docker run`` in a server's command does with the variables it is given.

This module refuses to know more of Docker than that: which arguments set a
variable, and where the image stands.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Final

_PROGRAMS: Final = frozenset({"docker", "podman", "nerdctl"})
_ALONE: Final = frozenset(
    {
        *("--detach", "--disable-content-trust", "--env-host", "--help", "--init", "--interactive", "--no-healthcheck"),
        *("--oom-kill-disable", "--privileged", "--publish-all", "--quiet", "--read-only", "--replace", "--rm"),
        *("--sig-proxy", "--tls-verify", "--tty", "--use-api-socket"),
    }
)
"""Options of ``run`` that take no value of their own; after every other one without = its value follows."""
_ALONE_SHORT: Final = "ditPq"


@dataclass(frozen=True, slots=True, kw_only=True)
class Passed:
    """
    One variable that the container gets.

    Attributes:
        name: of the variable; may end in ``*``, for podman.
        value: what stands in the command; None where it is the docker client's own.

    """

    name: str
    value: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """
    What there is to know of one ``docker run``.

    Attributes:
        passed: the variables.
        everything: whether all of the client's environment goes in (podman).

    """

    passed: tuple[Passed, ...]
    everything: bool = False

    def passes(self, name: str) -> bool:
        """Return whether the container gets this variable from the client's environment."""
        return self.everything or any(
            one.value is None and (one.name == name or (one.name.endswith("*") and name.startswith(one.name[:-1])))
            for one in self.passed
        )


def run(command: Sequence[str]) -> Run | None:
    """Return what a command does as a ``docker run``; None where it is none."""
    if not command or PurePath(command[0]).name not in _PROGRAMS:
        return None
    for number, argument in enumerate(command):
        if argument == "run":
            options = list(_options(command[number + 1 :]))
            passed = tuple(_variable(value) for name, value in options if name in ("-e", "--env"))
            return Run(passed=passed, everything=any(name == "--env-host" for name, _ in options))
    return None


def _options(arguments: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield the options up to the image, each with its value."""
    rest = iter(arguments)
    for argument in rest:
        if not argument.startswith("-") or argument in ("-", "--"):
            return
        if argument.startswith("--"):
            name, equals, value = argument.partition("=")
            yield name, value if equals or name in _ALONE else next(rest, "")
        else:
            letters = argument[1:].lstrip(_ALONE_SHORT)
            if letters:
                yield f"-{letters[0]}", letters[1:].removeprefix("=") or next(rest, "")


def _variable(text: str) -> Passed:
    name, equals, value = text.partition("=")
    return Passed(name=name, value=value if equals else None)
