"""
A real PostgreSQL for as long as a block lasts: Debian's package, a cluster of its own in a directory of its own.

    with running() as postgres:
        postgres.sql("create role app login password 'made up'")
        assert postgres.can_log_in("app", "made up")

It listens on a socket, which lets the superuser in without a password, and on one
port of 127.0.0.1, which asks everybody for one. It runs as another user where the
tests run as root, because PostgreSQL refuses to be root. This module refuses to
keep anything: the directory goes with the block.
"""

import csv
import io
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.running import DEADLINE, until

SUPERUSER: Final = "postgres"
DATABASE: Final = "postgres"
PATIENCE: Final = 60.0
"""Seconds for one call of a program of PostgreSQL's; the slowest takes two."""

_ACCESS: Final = f"""
local all {SUPERUSER} trust
local all all scram-sha-256
host all all 127.0.0.1/32 scram-sha-256
"""

# Nothing in here outlives the tests, so nothing needs to be on the disk.
_SETTINGS: Final = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "max_connections": "300",
    "shared_buffers": "16MB",
    "listen_addresses": "127.0.0.1",
    "unix_socket_permissions": "0700",
    "password_encryption": "scram-sha-256",
}

_REFUSALS: Final = ("password authentication failed", "is not permitted to log in")


class SqlError(Exception):
    """PostgreSQL said no; the text is what it said."""


def binaries() -> Path | None:
    """Return the directory that holds the programs of the newest PostgreSQL there is, or None."""
    found = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    if not found and (elsewhere := shutil.which("initdb")):
        found = [Path(elsewhere).resolve().parent]
    return max(found, key=lambda path: path.parent.name.zfill(8), default=None)


class Postgres:
    """
    A running server.

    Attributes:
        port: of 127.0.0.1, and in the name of its socket.
        directory: where its socket is; ``directory / "data"`` is the cluster.
        password: the superuser's, for the port.
        pid: of its first process.

    """

    def __init__(self, home: Path, directory: Path, *, port: int, password: str) -> None:
        """Keep where it is; ``running`` starts it."""
        self.port = port
        self.directory = directory
        self.password = password
        self.pid = 0
        self._psql = str(home / "psql")

    def url(self, user: str = SUPERUSER, password: str | None = None) -> str:
        """Return what a client connects to over the port."""
        return f"postgresql://{user}:{password or self.password}@127.0.0.1:{self.port}/{DATABASE}"

    def sql(self, text: str, *, user: str = SUPERUSER, password: str | None = None) -> list[tuple[str, ...]]:
        """
        Run statements and return the rows, every value as text.

        Args:
            text: one or more statements; the first that fails ends them.
            user: whom to be.
            password: None for the superuser, who comes through the socket.

        Raises:
            SqlError: PostgreSQL said no.

        """
        host = str(self.directory) if password is None else "127.0.0.1"
        where = [f"--host={host}", f"--port={self.port}", f"--username={user}", f"--dbname={DATABASE}"]
        command = [self._psql, "--no-psqlrc", "--no-password", "--quiet", "--csv", "--tuples-only", *where]
        environment = {**os.environ, "PGPASSWORD": password or "", "PGCONNECT_TIMEOUT": "30"}
        done = _call([*command, "--set=ON_ERROR_STOP=1", "--file=-"], text, environment)
        if done.returncode:
            raise SqlError(done.stderr.strip())
        return [tuple(row) for row in csv.reader(io.StringIO(done.stdout))]

    def can_log_in(self, user: str, password: str) -> bool:
        """Return whether a login works over the port; raise ``SqlError`` for any other failure than a refusal."""
        try:
            return self.sql("select 1", user=user, password=password) == [("1",)]
        except SqlError as error:
            # A role that is dropped between its password and its session is gone as well.
            dropped = f'role "{user}" does not exist' in str(error)
            if dropped or any(text in str(error) for text in _REFUSALS):
                return False
            raise

    def logins(self) -> set[str]:
        """Return the names of all roles that may log in, but for the superuser."""
        rows = self.sql(f"select rolname from pg_roles where rolcanlogin and rolname <> '{SUPERUSER}'")  # noqa: S608
        return {row[0] for row in rows}


@contextmanager
def running() -> Iterator[Postgres]:
    """Run a server of its own for as long as the block lasts. Raises ``FileNotFoundError`` where there is none."""
    home = binaries()
    if home is None:
        message = "PostgreSQL's server is not installed\nhint: apt-get install postgresql"
        raise FileNotFoundError(message)
    with tempfile.TemporaryDirectory(prefix="postgres-", ignore_cleanup_errors=True) as name:
        directory = Path(name)
        postgres = Postgres(home, directory, port=_free_port(), password=secrets.token_hex(16))
        _make_cluster(home, postgres)
        server = _launch(home, postgres)
        try:
            until(lambda: _answers(postgres, server), deadline=PATIENCE, said="the start of PostgreSQL")
            yield postgres
        finally:
            # SIGINT ends all sessions and shuts down in order.
            server.send_signal(signal.SIGINT)
            try:
                server.wait(DEADLINE)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait(DEADLINE)


def _make_cluster(home: Path, postgres: Postgres) -> None:
    password_file = postgres.directory / "password"
    password_file.write_text(postgres.password)
    if os.geteuid() == 0:
        for path in (postgres.directory, password_file):
            shutil.chown(path, _owner(), _owner())
    locale = ["--locale=C", "--encoding=UTF8", "--auth=scram-sha-256", "--no-sync"]
    who = [f"--username={SUPERUSER}", f"--pwfile={password_file}"]
    done = _call([*_as_owner(), str(home / "initdb"), f"--pgdata={postgres.directory / 'data'}", *locale, *who])
    if done.returncode:
        message = f"initdb failed: {done.stderr.strip()}"
        raise ChildProcessError(message)
    password_file.unlink()
    (postgres.directory / "data/pg_hba.conf").write_text(_ACCESS)


def _launch(home: Path, postgres: Postgres) -> subprocess.Popen[bytes]:
    settings = {**_SETTINGS, "port": str(postgres.port), "unix_socket_directories": str(postgres.directory)}
    words = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
    with (postgres.directory / "log").open("wb") as log:
        command = [*_as_owner(), str(home / "postgres"), "-D", str(postgres.directory / "data"), *words]
        server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/")
    postgres.pid = server.pid
    return server


def _answers(postgres: Postgres, server: subprocess.Popen[bytes]) -> bool:
    if server.poll() is not None:
        message = f"PostgreSQL ended: {(postgres.directory / 'log').read_text()}"
        raise ChildProcessError(message)
    try:
        return postgres.sql("select 1") == [("1",)]
    except SqlError:
        return False


def _owner() -> str:
    # Debian's package makes this user; anybody else who is not root would do.
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


def _as_owner() -> list[str]:
    """Return the words that make a command run as somebody who is not root; it becomes that command."""
    if os.geteuid() != 0:
        return []
    entry = pwd.getpwnam(_owner())
    return ["setpriv", f"--reuid={entry.pw_uid}", f"--regid={entry.pw_gid}", "--clear-groups", "--"]


def _call(
    command: Sequence[str], text: str = "", environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, input=text, env=environment, capture_output=True, text=True, cwd="/", timeout=PATIENCE, check=False
    )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
