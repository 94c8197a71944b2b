"""``completion``: what a shell offers while somebody types."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.cli.shell import environment, shell

CONFIG = """
[servers.github]
env.TOKEN = "{gh}"
files.KEY = "x{key.pem|json}"
[servers."a.b"]
[secrets.app-db]
# [servers.not-this]
"""

TYPE = """
words=("$@"); COMP_WORDS=(mcp-broker "${words[@]}"); COMP_CWORD=${#words[@]}
_mcp_broker
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the script for bash, below a home with a config."""
    home = tmp_path_factory.mktemp("home")
    (home / ".config/mcp-broker/broker.d").mkdir(parents=True)
    (home / ".config/mcp-broker/broker.d/a.toml").write_text(CONFIG)
    (home / "completion.bash").write_text(shell("completion", "bash").out)
    return home / "completion.bash"


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["cli"], {"client-config"}),
        (["server", "r"], {"rm", "revoke"}),
        (["server", "add", "x", "--dry"], {"--dry-run"}),
        (["server", "rm", ""], {"github", "a.b"}),
        (["exec", "g"], {"github"}),
        (["server", "add", "x", "--like", ""], {"github", "a.b"}),
        (["secret", "versions", ""], {"gh", "key", "app-db"}),
        (["client-config", "x", "--client", "gem"], {"gemini"}),
        (["client-config", "--json", "git"], {"github"}),
        (["exec", "github", "--", "r"], set()),
        (["no-such-command", "x"], set()),
    ],
)
def test_bash_offers_what_can_stand_there(script: Path, words: list[str], offered: set[str]) -> None:
    """Commands, options and the names in the config are offered, and nothing of ours is run for it."""
    done = subprocess.run(
        ["bash", "--norc", "-c", f". {script}\n{TYPE}", "bash", *words],
        env={"HOME": str(script.parent), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert (offered, "") == ({*done.stdout.split()}, done.stderr)


@pytest.mark.parametrize("name", ["bash", "zsh", "fish"])
def test_each_shell_can_read_its_script(name: str) -> None:
    """A shell that is installed finds no fault with its syntax; each script names every command."""
    script = shell("completion", name).out
    assert all(word in script for word in ("client-config", "dry-run", "claude-desktop", "__mcp_broker_secrets"))
    if shutil.which(name):
        subprocess.run([name, "-n"], input=script, env=environment(), text=True, check=True)


def test_another_shell_is_refused() -> None:
    """It says which there are."""
    done = shell("completion", "tcsh")
    assert (2, True) == (done.status, "'fish'" in done.err)
