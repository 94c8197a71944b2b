"""
A server's entry in a client's own form: JSON, TOML, YAML, or a command to type.

Pure. It refuses to put anything secret into one: there is a path, the server's
name and which broker is meant, and nothing else.
"""

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, assert_never

from broker.clients.known import Client


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """
    What a client has to do to start a server.

    Attributes:
        server: its name in the broker's config.
        command: the whole path of our launcher.
        arguments: what follows it.
        env: variables that the client has to add.

    """

    server: str
    command: str
    arguments: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Return the name to give it in the client: several take no dot in one."""
        return re.sub(r"[^A-Za-z0-9_-]", "-", self.server)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """
    An entry, ready to be pasted.

    Attributes:
        format: what it is written in.
        text: the whole of it.
        typed: a command that does the same, where the client has one.

    """

    format: Literal["json", "toml", "yaml"]
    text: str
    typed: str | None = None


def entry(client: Client, start: Start) -> Entry:
    """Return the entry of a server for a client."""
    match client.shape:
        case "mcpServers" | "servers" | "context_servers":
            return _json({client.shape: {start.name: _usual(start, typed=client.typed)}}, _typed(client, start))
        case "opencode":
            one = {"type": "local", "command": [start.command, *start.arguments], "enabled": True}
            more = {"environment": dict(start.env)} if start.env else {}
            return _json({"mcp": {start.name: {**one, **more}}}, None)
        case "codex":
            return Entry(format="toml", text=_toml(start), typed=_typed(client, start))
        case "continue" | "goose" | "librechat":
            return Entry(format="yaml", text=_yaml(client.shape, start))
        case _:
            assert_never(client.shape)


def _usual(start: Start, *, typed: bool) -> dict[str, Any]:
    return {
        **({"type": "stdio"} if typed else {}),
        "command": start.command,
        "args": list(start.arguments),
        **({"env": dict(start.env)} if start.env else {}),
    }


def _json(value: object, typed: str | None) -> Entry:
    return Entry(format="json", text=json.dumps(value, indent=2, ensure_ascii=False), typed=typed)


def _typed(client: Client, start: Start) -> str | None:
    """Return the command of a client that has one to add a server with."""
    words = [start.command, *start.arguments]
    env = [f"{name}={value}" for name, value in start.env.items()]
    match client.title:
        case "Claude Code":
            flags = [word for one in env for word in ("--env", one)]
            return shlex.join(["claude", "mcp", "add", "--scope", "user", start.name, *flags, "--", *words])
        case "Codex":
            flags = [word for one in env for word in ("--env", one)]
            return shlex.join(["codex", "mcp", "add", start.name, *flags, "--", *words])
        case "Gemini CLI":
            # It wants the command before the --, not behind it as the others do.
            flags = [word for one in env for word in ("--env", one)]
            return shlex.join(
                ["gemini", "mcp", "add", "--scope", "user", *flags, start.name, words[0], "--", *words[1:]]
            )
        case "VS Code":
            one = {"name": start.name, **_usual(start, typed=True)}
            return shlex.join(["code", "--add-mcp", json.dumps(one, ensure_ascii=False)])
        case _:
            return None


def _toml(start: Start) -> str:
    # JSON's strings and arrays of them are TOML's, too; a NUL or a lone surrogate, which TOML has not, no path has.
    lines = [f"[mcp_servers.{start.name}]", f"command = {_text(start.command)}", f"args = {_texts(start.arguments)}"]
    if start.env:
        pairs = ", ".join(f"{_text(name)} = {_text(value)}" for name, value in start.env.items())
        lines.append(f"env = {{ {pairs} }}")
    return "\n".join(lines)


def _yaml(shape: Literal["continue", "goose", "librechat"], start: Start) -> str:
    # JSON's strings and arrays are YAML's, too.
    command, arguments = _text(start.command), _texts(start.arguments)
    match shape:
        case "continue":
            head = ["mcpServers:", f"  - name: {_text(start.name)}"]
            body = [f"    command: {command}", f"    args: {arguments}"]
            env = "    env:"
        case "goose":
            head = ["extensions:", f"  {_text(start.name)}:", f"    name: {_text(start.name)}"]
            body = ["    type: stdio", "    enabled: true", f"    cmd: {command}", f"    args: {arguments}"]
            env = "    envs:"
        case "librechat":
            head = ["mcpServers:", f"  {_text(start.name)}:"]
            body = ["    type: stdio", f"    command: {command}", f"    args: {arguments}"]
            env = "    env:"
        case _:
            assert_never(shape)
    pairs = [f"      {_text(name)}: {_text(value)}" for name, value in start.env.items()]
    return "\n".join([*head, *body, *([env, *pairs] if pairs else [])])


def _text(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)


def _texts(values: Sequence[str]) -> str:
    return json.dumps(list(values), ensure_ascii=False)
