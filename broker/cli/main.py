"""
The command ``mcp-broker``: which commands there are, and what becomes of their errors.

This module refuses to load a command that was not called, and to show a
traceback: the values of variables are nobody's business.
"""

import importlib
import inspect
import os
import re
import sys
from pathlib import Path
from types import MappingProxyType
from typing import Final

import click

import broker
from broker.errors import MEANINGS, BrokerError

COMMANDS: Final = MappingProxyType(
    {
        "demo": ("demo:demo", "See it all work, in a throwaway directory."),
        "init": ("setup:init", "Make the first config, the state directory and the master key."),
        "check": ("setup:check", "Print the config as it is in force, and what will not work."),
        "serve": ("serve:serve", "Run the broker."),
        "stop": ("serve:stop", "Stop the broker; what is out stays out unless --revoke."),
        "reload": ("serve:reload", "Read the config again, all of it or nothing."),
        "exec": ("start:start", "Start an MCP server with its credentials: what a client's config calls."),
        "get": ("get:get", "Print one credential, for scripts."),
        "secret": ("secrets:secret", "Store, list and remove secrets."),
        "unlock": ("unlock:unlock", "Unlock a keyring, with its password or by its prompt."),
        "status": ("status:status", "See what is out, what was refused and what is wrong."),
        "lease": ("leases:lease", "List and revoke leases."),
        "server": ("servers:server", "Add, list and remove servers, and take back all that one holds."),
        "client-config": ("client_config:client_config", "Print a server's entry as a client wants it."),
        "completion": ("completion:completion", "Print what completes our commands in a shell."),
        "explain": ("explain:explain", "Say whether something would be allowed, and by which rule."),
        "metrics": ("metrics:metrics", "Print what the broker counts, for Prometheus."),
        "audit": ("audit:audit", "Verify and read the audit log."),
        "vault": ("vault:vault", "Print the policy that the config needs at Vault or OpenBao."),
        "rotate": ("rotate:rotate", "Replace credentials at their source, now or as far as they are due."),
        "key": ("keys:key", "Replace the master key."),
        "service": ("service:service", "Have systemd start the broker."),
        "uninstall": ("uninstall:uninstall", "Say what the broker has on this machine, and take it away."),
    }
)
"""Each command: where it is, and what it does. Said here, so that ``--help`` need not load them all."""

EPILOG: Final = "Begin with `mcp-broker demo`, or with `mcp-broker init`."

DEBUG: Final = "MCP_BROKER_DEBUG"
"""The variable that asks for the lines of an unexpected error; values are not shown even so."""


class Commands(click.Group):
    """Commands that are loaded when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names, in the order of the table."""
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Load a command."""
        del ctx
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(f"broker.cli.{module}"), name)
        _keep_examples(command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the overview from the table, without loading anything."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, does) for name, (_, does) in COMMANDS.items()])


def _keep_examples(command: click.Command) -> None:
    """Have click leave the lines of a help text that are indented as they are: they are commands to type."""
    if command.help is not None:
        # A line with a backspace alone is how click is told.
        command.help = re.sub(r"\n\n(?=    )", "\n\n\b\n", inspect.cleandoc(command.help))
    if isinstance(command, click.Group):
        for each in command.commands.values():
            _keep_examples(each)


@click.group(cls=Commands, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(broker.__version__, message="mcp-broker %(version)s")
def mcp_broker() -> None:
    """
    Give MCP servers short-lived credentials, so that no config file holds one.

    A client starts `mcp-broker exec NAME`; the broker knows the rest.
    """


def main(words: list[str]) -> int:
    """Run one command; return its exit status. Errors are told on stderr, with what mends them."""
    try:
        status = mcp_broker.main(words, prog_name="mcp-broker", standalone_mode=False)
        sys.stdout.flush()
    except BrokerError as error:
        _say(error.message, error.hint)
        return MEANINGS[error.code].exit
    except click.ClickException as error:
        _misused(error)
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        _say("stopped before it was done", None)
        return 1
    except BrokenPipeError:
        # Whoever read our output has gone: that is not an error of ours, and the interpreter must not print one.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:  # noqa: BLE001 - the last net: what it says may hold a value, so only where is told
        _unexpected(error)
        return MEANINGS["internal"].exit
    return status if isinstance(status, int) else 0


def _say(message: str, hint: str | None) -> None:
    click.echo(f"mcp-broker: {message}" + (f"\nhint: {hint}" if hint else ""), err=True)


def _misused(error: click.ClickException) -> None:
    """Say what is wrong with the command line. Where it says nothing at all, click's error is the help itself."""
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        click.echo(error.format_message(), err=True)
        return
    command = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else "mcp-broker"
    _say(_lower(error.format_message()), f"{command} --help")


def _lower(message: str) -> str:
    """Return a message of click's in our form."""
    message = message.strip().removesuffix(".")
    return message[:1].lower() + message[1:]


def _unexpected(error: BaseException) -> None:
    """Say where something went wrong that nobody foresaw."""
    import traceback  # noqa: PLC0415 - seldom, we hope

    frames = traceback.extract_tb(error.__traceback__)
    last = frames[-1]
    where = f"{type(error).__name__} in {Path(last.filename).name}:{last.lineno}"
    _say(f"something unexpected happened ({where})", f"set {DEBUG}=1 to see how it came to that, and report it")
    if os.environ.get(DEBUG):
        for frame in frames:
            click.echo(f"  {frame.filename}:{frame.lineno} in {frame.name}", err=True)
