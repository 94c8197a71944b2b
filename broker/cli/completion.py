"""
``completion``: a script that completes commands, options and names in a shell.

All that can be typed stands in the script; the names of servers and secrets are
read from the config's files by the shell itself, because a Python that loads our
commands takes longer than a finger rests on a key. So nothing of ours is run
while somebody types. This module refuses to write into a shell's own files.
"""

import shlex
from collections.abc import Iterator, Mapping
from typing import Final

import click

from broker.clients.known import CLIENTS

_SERVERS: Final = frozenset({"exec", "client-config", "explain", "server rm", "server revoke"})
_SECRETS: Final = frozenset({"get", "rotate", "secret set", "secret rm", "secret versions"})

_NAMES: Final = r"""
__mcp_broker_files() {
    cat ~/.config/mcp-broker/broker.toml ~/.config/mcp-broker/broker.d/*.toml \
        /etc/mcp-broker/broker.toml /etc/mcp-broker/broker.d/*.toml 2>/dev/null
}
__mcp_broker_servers() {
    __mcp_broker_files | sed -n 's/^[[:space:]]*\[servers\."\{0,1\}\([A-Za-z0-9_.-]*\)"\{0,1\}\].*/\1/p'
}
__mcp_broker_secrets() {
    __mcp_broker_files | sed -n -e 's/^[[:space:]]*\[secrets\.\([A-Za-z0-9_-]*\)\].*/\1/p' \
        -e '/^[[:space:]]*\(env\|files\)\./s/.*{\([A-Za-z0-9_-]*\)[}.|].*/\1/p' | sort -u
}
"""

_BASH: Final = r"""
_mcp_broker() {
    local current=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]}
    local command='' word='' found='' i=0
    COMPREPLY=()
    for ((i = 1; i < COMP_CWORD; i++)); do
        word=${COMP_WORDS[i]}
        [ "$word" = -- ] && return 0
        case $word in -*) continue ;; esac
        case "${command:+$command }$word" in
            @PATHS@) command="${command:+$command }$word" ;;
        esac
    done
    case $before in
        --client) found='@CLIENTS@' ;;
        --like) found=$(__mcp_broker_servers) ;;
        --allow) found=$(__mcp_broker_secrets) ;;
        --dir) COMPREPLY=($(compgen -d -- "$current")); return 0 ;;
        --config|--path|--socket) COMPREPLY=($(compgen -f -- "$current")); return 0 ;;
        *)
            case $command in
@CASES@
            esac
            case $current in
                -*) ;;
                *)
                    case $command in
                        @SERVERS@) found="$(__mcp_broker_servers)" ;;
                        @SECRETS@) found="$(__mcp_broker_secrets)" ;;
                    esac
                    ;;
            esac
            ;;
    esac
    COMPREPLY=($(compgen -W "$found" -- "$current"))
}
complete -F _mcp_broker mcp-broker
"""

_ZSH: Final = "autoload -U +X compinit && compinit -i\nautoload -U +X bashcompinit && bashcompinit\n"

_FISH_NAMES: Final = r"""
function __mcp_broker_files
    for file in ~/.config/mcp-broker/broker.toml ~/.config/mcp-broker/broker.d/*.toml \
            /etc/mcp-broker/broker.toml /etc/mcp-broker/broker.d/*.toml
        cat $file 2>/dev/null
    end
end
function __mcp_broker_servers
    __mcp_broker_files | string match -rg '^\s*\[servers\."?([A-Za-z0-9_.-]+)"?\]'
end
function __mcp_broker_secrets
    __mcp_broker_files | string match -rg '^\s*(?:\[secrets\.|(?:env|files)\..*\{)([A-Za-z0-9_-]+)[\]}.|]' | sort -u
end
function __mcp_broker_is
    set -l words (commandline -opc | string match -rv '^-')[2..-1]
    test -z "$argv[1]"; and return (test (count $words) -eq 0; echo $status)
    set -l wanted (string split ' ' -- $argv[1])
    test "$words[1..$(count $wanted)]" = "$argv[1]"
end
function __mcp_broker_at
    set -l words (commandline -opc | string match -rv '^-')[2..-1]
    test "$words" = "$argv[1]"
end
complete -c mcp-broker -f
"""


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(*, shell: str) -> None:
    """
    Print what completes our commands in SHELL.

    It is to be kept in a file that the shell reads:

        mcp-broker completion bash > ~/.local/share/bash-completion/completions/mcp-broker
        mcp-broker completion zsh >> ~/.zshrc
        mcp-broker completion fish > ~/.config/fish/completions/mcp-broker.fish
    """
    root = click.get_current_context().find_root().command
    assert isinstance(root, click.Group)
    typed = dict(_all(root))
    click.echo(_fish(typed) if shell == "fish" else (_ZSH if shell == "zsh" else "") + _bash(typed))


def _all(group: click.Group, above: str = "") -> Iterator[tuple[str, list[str]]]:
    """Yield each command and what may follow it: commands and long options."""
    context = click.Context(group)
    names = group.list_commands(context)
    yield above, [*names, *_options(group)]
    for name in names:
        command = group.get_command(context, name)
        path = f"{above} {name}".strip()
        if isinstance(command, click.Group):
            yield from _all(command, path)
        elif path == "exec":  # it reads its words itself
            yield path, ["--user", "--system", "--socket", "--dir", "--help"]
        elif command is not None:
            yield path, _options(command)


def _options(command: click.Command) -> list[str]:
    found = [word for one in command.params if isinstance(one, click.Option) for word in one.opts]
    return [*(word for word in found if word.startswith("--")), "--help"]


def _bash(typed: Mapping[str, list[str]]) -> str:
    cases = "\n".join(
        f"                {shlex.quote(path)}) found={_quoted(words)} ;;" for path, words in typed.items()
    )
    return _NAMES.lstrip() + _BASH.replace("@PATHS@", "|".join(shlex.quote(path) for path in typed if path)).replace(
        "@CLIENTS@", " ".join(CLIENTS)
    ).replace("@CASES@", cases).replace("@SERVERS@", "|".join(shlex.quote(path) for path in sorted(_SERVERS))).replace(
        "@SECRETS@", "|".join(shlex.quote(path) for path in sorted(_SECRETS))
    )


def _quoted(words: list[str]) -> str:
    return shlex.quote(" ".join(words))


def _fish(typed: Mapping[str, list[str]]) -> str:
    lines = [_FISH_NAMES.strip()]
    for path, words in typed.items():
        when = f"complete -c mcp-broker -n {shlex.quote(f'__mcp_broker_is {shlex.quote(path)}')}"
        names = [word for word in words if not word.startswith("--")]
        if names:
            lines.append(f"{when.replace('_is', '_at', 1)} -a {_quoted(names)}")
        lines += [f"{when} -l {word.removeprefix('--')}" for word in dict.fromkeys(words) if word.startswith("--")]
        if path in _SERVERS or path in _SECRETS:
            kind = "servers" if path in _SERVERS else "secrets"
            lines.append(f"{when} -a '(__mcp_broker_{kind})'")
    for option, what in (("client", " ".join(CLIENTS)), ("like", "(__mcp_broker_servers)")):
        lines.append(f"complete -c mcp-broker -l {option} -x -a {shlex.quote(what)}")
    return "\n".join(lines)
