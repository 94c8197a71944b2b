"""
What docs/vault.md says to type, typed: from an empty OpenBao to an MCP server with a database login.

It runs as a user without a name, whose home is the test's directory, as the
README's first steps do. This module refuses to change a word of the document.
"""

import os
import re
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import pytest

from tests.live.postgres import Postgres
from tests.live.vault_server import binary
from tests.running import as_user
from tests.transcripts.test_transcripts import NEWCOMER

PATIENCE: Final = 120.0
BLOCKS: Final = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LAST: Final = "\ntrap '[ ! -e ~/vault-tour/bao.pid ] || kill \"$(cat ~/vault-tour/bao.pid)\"; mcp-broker stop' EXIT\n"
"""What ends everything where a command fails on the way: by its id, and by its own command."""


@pytest.fixture
def commands(root: Path) -> list[str]:
    """Return what the document says to type, in order."""
    return BLOCKS.findall((root / "docs/vault.md").read_text())


@pytest.fixture
def environment(directory: Path, mcp_broker: Path, postgres: Postgres) -> Mapping[str, str]:
    """Return the environment of who follows the document, with ``bao`` on the PATH."""
    # Not by the marks for root and PostgreSQL: where those must run, there need not be an OpenBao.
    if os.geteuid() != 0:
        pytest.skip("needs root, to be a user who has nothing yet")
    program = binary()
    if program is None or program.name != "bao":
        pytest.skip("needs OpenBao's program: bao on the PATH, or MCP_BROKER_VAULT_BIN")
    tools = directory / "bin"
    tools.mkdir(mode=0o755)
    (tools / "bao").symlink_to(program.resolve())
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return {
        "HOME": str(directory / "home"),
        "PATH": f"{tools}:{mcp_broker.parent}:{os.environ['PATH']}",
        "BAO_PORT": str(port),
        "PGPORT": str(postgres.port),
        "POSTGRES_PASSWORD": postgres.password,
    }


@pytest.mark.live("vault", commands=["psql", "awk"])
def test_the_document_is_typed(
    directory: Path, environment: Mapping[str, str], postgres: Postgres, commands: list[str]
) -> None:
    """Every command of the document works, the database knows the server by a login of its own, and then no more."""
    home = Path(environment["HOME"])
    home.mkdir(mode=0o700)
    for path in (directory, home):
        os.chown(path, NEWCOMER, NEWCOMER)
    script = directory / "typed"
    script.write_text("set -e\n" + LAST + "\n".join(commands) + "\ntrap - EXIT\n")
    words = [*as_user(NEWCOMER), "sh", str(script)]
    done = subprocess.run(
        words, env=environment, cwd=home, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\n{_written(home)}"
    policy = 'path "database/creds/readonly" { capabilities = ["read"] }'
    assert (True, True, set()) == (
        "knows me as v-token-" in done.stdout,
        policy in done.stdout,
        left(postgres),
    )


def left(postgres: Postgres) -> set[str]:
    """Return the logins that are still there of those that were made."""
    return {name for name in postgres.logins() if name.startswith("v-")}


def _written(home: Path) -> str:
    return "\n".join(path.read_text() for path in sorted((home / "vault-tour").glob("*.log")))


def test_every_option_is_in_the_document(root: Path) -> None:
    """The table has every option that a backend of this type takes, and every way to log in."""
    options = (root / "backends/vault_options.py").read_text()
    known = re.findall(r'"([a-z_]+)"', options[options.index("_KNOWN") : options.index("_HTTPS_PORT")])
    text = (root / "docs/vault.md").read_text()
    assert [] == [name for name in known if not re.search(rf"\b{name}\b", text)]
