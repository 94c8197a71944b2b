"""
Writes a man page for each command, from its help text: ``python tools/man.py DIRECTORY``.

The help texts are the only source, so that the pages cannot say anything else.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import click

from broker import __version__
from broker.cli.main import COMMANDS, mcp_broker


def escaped(text: str) -> str:
    """Return text in which nothing is an instruction to roff."""
    lines = text.replace("\\", "\\e").replace("-", "\\-").splitlines()
    return "\n".join(f"\\&{line}" if line[:1] in {".", "'"} else line for line in lines)


def commands(group: click.Group, above: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Yield every command below a group, the groups among them."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        # `exec` reads its words itself, and its help as well: it is in the page of the whole.
        if command is not None and name != "exec":
            yield (*above, name), command
            if isinstance(command, click.Group):
                yield from commands(command, (*above, name))


def page(words: tuple[str, ...], command: click.Command, about: str) -> str:
    """Return one page."""
    name = "-".join(words)
    context = click.Context(command, info_name=" ".join(words), max_content_width=76, terminal_width=76)
    usage, _, rest = command.get_help(context).partition("\n\n")
    return "\n".join(
        [
            f'.TH "{escaped(name.upper())}" 1 "" "mcp\\-broker {escaped(__version__)}"',
            ".SH NAME",
            f"{escaped(name)} \\- {escaped(about)}",
            ".SH SYNOPSIS",
            escaped(usage.removeprefix("Usage: ")),
            ".SH DESCRIPTION",
            ".nf",
            escaped(rest),
            ".fi",
            "",
        ]
    )


def main(directory: Path) -> None:
    """Write all pages."""
    directory.mkdir(parents=True, exist_ok=True)
    top = ("mcp-broker",)
    whole = page(top, mcp_broker, "short-lived credentials for MCP servers")
    (directory / "mcp-broker.1").write_text(whole)
    for words, command in commands(mcp_broker, top):
        about = COMMANDS[words[1]][1] if len(words) == 2 else command.get_short_help_str(120)  # noqa: PLR2004 - a word below
        (directory / f"{'-'.join(words)}.1").write_text(page(words, command, about.removesuffix(".")))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
