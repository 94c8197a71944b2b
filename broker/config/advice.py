"""
What in a valid config will probably not work, or not be as safe as it looks.

This module refuses to stop anything: it advises ``check``, which prints. It
quotes no value that could be a credential.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from broker.config import docker
from broker.config.model import Config, ServerConfig
from broker.config.plaintext import argument_looks_secret, looks_secret, named_secret
from broker.config.problems import KeyPath, Location, dotted, nearest
from broker.config.template import Reference, TemplateError, parse

_VISIBLE: Final = "everybody on this machine can read a command with ps"
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_ITS_OWN: Final = re.compile(r"\$\{[^{}]*\}")
_STORE: Final = "mcp-broker secret set NAME, and {NAME} in its place"


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """
    One piece of it.

    Attributes:
        severity: ``warning`` for what is probably wrong, ``note`` for what is good to know.
        where: file and line.
        key: what it is about, dotted.
        text: in lower case, without a full stop, never a value.
        hint: what mends it, or None.

    """

    severity: Literal["warning", "note"]
    where: Location
    key: str
    text: str
    hint: str | None = None

    def __str__(self) -> str:
        """Return severity, place and text, on one line."""
        return f"{self.severity}: {self.where}: {self.key}: {self.text}"


def advice(config: Config) -> list[Advice]:
    """Return all advice about a config, in its order."""
    found: list[Advice] = []
    for backend in config.backends.values():
        found += _options(("backends", backend.name), backend.where, backend.options)
    for secret in config.secrets.values():
        found += _options(("secrets", secret.name), secret.where, {"path": secret.path, "params": secret.params})
    declared = frozenset(config.secrets)
    for server in config.servers.values():
        found += _about(server, declared)
    return found


def _about(server: ServerConfig, declared: frozenset[str]) -> Iterator[Advice]:
    yield from _purpose(server)
    yield from _plaintext(server)
    yield from _command(server)
    yield from _container(server)
    yield from _undeclared(server, declared)
    if "*" in server.pass_env:
        text = "everything in the caller's environment goes through, secrets that stand there as well"
        yield _on(server, "pass_env", text, hint="name what the server needs")
    if server.unsafe_user_selector and not any(one.startswith("unit:") for one in server.selectors):
        text = "every program of this user gets its secrets, not only the server"
        yield _on(server, "unsafe_user_selector", text, hint='selectors = ["unit:NAME.service"]')


def _purpose(server: ServerConfig) -> Iterator[Advice]:
    if server.command:
        return
    if server.env or server.files:
        text = "without a command nothing can be started, so env and files are for nothing but what they grant"
        yield _on(server, "", text, hint='command = ["PROGRAM", "ARGUMENT"]')
    elif server.allow:
        text = "without a command it cannot be started; it grants to scripts what allow lists"
        yield _on(server, "", text, severity="note")
    else:
        text = "it has neither a command nor anything to grant"
        yield _on(server, "", text, hint='command = ["PROGRAM", "ARGUMENT"], or allow = ["SECRET"]')


def _plaintext(server: ServerConfig) -> Iterator[Advice]:
    for section, templates in (("env", server.env), ("files", server.files)):
        for name, template in templates.items():
            # Under a telling name text is suspect only where it is all there is: "Bearer {token}" is fine.
            telling = "" if template.secrets or section == "files" else name
            # What a reference stands for is no character of a password: the gap keeps "://{user}:{password}@" harmless.
            literal = "".join(part if isinstance(part, str) else " " for part in template.parts)
            if looks_secret(literal, telling):
                text = "this looks like a credential in plain text"
                yield _on(server, f"{section}.{name}", text, hint=_STORE)


def _command(server: ServerConfig) -> Iterator[Advice]:
    before = ""
    for number, argument in enumerate(server.command):
        if _refers(argument):
            text = f"the reference in element {number} stays as it is: a command is no template, because {_VISIBLE}"
            hint = "most servers also take it from a variable or a file, env.NAME or files.NAME; else it cannot be kept"
            yield _on(server, "command", text, hint=hint)
        elif argument_looks_secret(argument) or (before.startswith("-") and looks_secret(argument, before)):
            text = f"element {number} looks like a credential in plain text, and {_VISIBLE}"
            yield _on(server, "command", text, hint='mcp-broker secret set NAME, and env.VARIABLE = "{NAME}"')
        before = argument


def _refers(argument: str) -> bool:
    """Return whether an argument would be more than plain text if it were a template."""
    try:
        # ${NAME} is the server's own way to name a variable, as mcp-remote has it, and no mistake.
        template = parse(_ITS_OWN.sub("", argument))
    except TemplateError:
        return False
    return any(isinstance(part, Reference) for part in template.parts)


def _container(server: ServerConfig) -> Iterator[Advice]:
    run = docker.run(server.command)
    if run is None:
        return
    program = server.command[0].rpartition("/")[2]
    for name in (*server.env, *(name for name in server.pass_env if "*" not in name)):
        if not run.passes(name) and not any(one.name == name for one in run.passed):
            text = f"{program} run passes {name} on only if it is told to, so the container will not see it"
            yield _on(
                server, f"env.{name}" if name in server.env else "pass_env", text, hint=f'"-e", "{name}" in command'
            )
    for one in run.passed:
        if one.value is not None:
            yield _assigned(server, one.name)
    for name in server.files:
        text = (
            f"the file is in memory outside of the container, which cannot see it, and {program} is not told of {name}"
        )
        yield _on(
            server, f"files.{name}", text, hint=f'env.{name} with the value itself, and "-e", "{name}" in command'
        )


def _assigned(server: ServerConfig, given: str) -> Advice:
    # What stands there may be anything, a credential without a name included.
    name = given if _VARIABLE.fullmatch(given) and not looks_secret(given) else "NAME"
    hint = f'"-e", "{name}" without a value, and env.{name} = "{{SECRET}}"'
    if name in server.env:
        text = f"-e {name}=… in the command wins over env.{name}, and {_VISIBLE}"
        return _on(server, "command", text, hint=f'"-e", "{name}" without a value')
    if named_secret(name):
        return _on(server, "command", f"-e {name}=… puts its value into the command, and {_VISIBLE}", hint=hint)
    text = f"-e {name}=… is right for what is no secret only: {_VISIBLE}"
    return _on(server, "command", text, severity="note", hint=hint)


def _undeclared(server: ServerConfig, declared: frozenset[str]) -> Iterator[Advice]:
    """Warn of names that are close to a declared one: undeclared ones are the local store's, silently."""
    used = [(f"{section}.{name}", secret) for section, name, secret in _uses(server)]
    for key, secret in (*used, *(("allow", name) for name in server.allow)):
        near = nearest(secret, declared) if secret not in declared else None
        if near is not None:
            text = f'"{secret}" is not declared, so it is the local store\'s secret of that name; is "{near}" meant'
            yield _on(server, key, text, hint=f"[secrets.{secret}] if it is not")


def _uses(server: ServerConfig) -> Iterator[tuple[str, str, str]]:
    for section, templates in (("env", server.env), ("files", server.files)):
        for name, template in templates.items():
            for secret in sorted(template.secrets):
                yield section, name, secret


def _options(place: KeyPath, where: Location, options: Mapping[str, object]) -> Iterator[Advice]:
    """Warn of plain text among what is handed on to a backend, at any depth."""
    waiting: list[tuple[KeyPath, object]] = [((*place, name), value) for name, value in options.items()]
    while waiting:
        path, value = waiting.pop()
        name = next((part for part in reversed(path) if isinstance(part, str)), "")
        match value:
            case str() if looks_secret(value, name):
                text = "this looks like a credential in plain text"
                hint = "most backends read it from a file instead; see their options"
                yield Advice(severity="warning", where=where, key=dotted(path), text=text, hint=hint)
            case Mapping():
                waiting += [((*path, str(inner)), one) for inner, one in value.items()]
            case list():
                waiting += [((*path, number), one) for number, one in enumerate(value)]


def _on(
    server: ServerConfig,
    key: str,
    text: str,
    *,
    hint: str | None = None,
    severity: Literal["warning", "note"] = "warning",
) -> Advice:
    name = f"servers.{server.name}.{key}" if key else f"servers.{server.name}"
    return Advice(severity=severity, where=server.origin(key), key=name, text=text, hint=hint)
