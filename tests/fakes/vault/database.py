"""
The engine that makes logins in a database: in a real one through ``psql``, or in one that is only pretended.

A connection whose URL names the host ``pretend.invalid`` is pretended: its logins
are names in a set. It refuses to know any database but PostgreSQL.
"""

import os
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from tests.fakes.vault.core import Plain, Vault
from tests.fakes.vault.tokens import LONGEST
from tests.fakes.vault.wire import (
    NOTHING,
    Answer,
    Refusal,
    Request,
    Wanted,
    bad,
    moment,
    random_name,
    seconds,
    unsupported,
)

PRETENDED: Final = "postgresql://{{username}}:{{password}}@pretend.invalid/none"
"""The connection of a database that is not there."""

_TIMEOUT: Final = 30.0
_LEEWAY: Final = 5.0
"""Seconds that a password outlasts its lease, as the real engine has it: the lease is what ends it."""

_MAKE: Final = ("create role \"{{name}}\" with login password '{{password}}' valid until '{{expiration}}';",)
_PROLONG: Final = ("alter role \"{{name}}\" valid until '{{expiration}}';",)
_DROP: Final = ('drop owned by "{{name}}"; drop role if exists "{{name}}";',)
_ROTATE: Final = ("alter role \"{{name}}\" with password '{{password}}';",)


class SqlFailedError(OSError):
    """The database said no; the text is what it said."""


class Database(Plain):
    """
    Connections, roles, logins.

    Attributes:
        pretended: the logins of databases that are not there, with their passwords.
        made: how many logins were ever made.

    """

    kind = "database"

    def __init__(self, vault: Vault) -> None:
        """Begin without connections."""
        self._vault = vault
        self._kept: dict[str, dict[str, Any]] = {}
        self.pretended: dict[str, str] = {}
        self.made = 0

    def answer(self, request: Request, rest: str) -> Answer:
        """Do what the first part of the path says."""
        verb, _, name = rest.partition("/")
        if verb in {"config", "roles", "static-roles"}:
            return self._entry(request, rest, name)
        if verb == "creds" and request.reads:
            return self._issue(request, name)
        if verb == "static-creds" and request.reads:
            return self._static(name)
        if verb == "rotate-role" and request.writes:
            self._rotate(self._static_role(name))
            return NOTHING
        if verb == "rotate-root" and request.writes:
            return NOTHING
        raise unsupported() if verb in {"creds", "static-creds"} else Refusal(HTTPStatus.NOT_FOUND)

    def _entry(self, request: Request, rest: str, name: str) -> Answer:
        if request.method == "DELETE":
            self._kept.pop(rest, None)
            return NOTHING
        if not request.writes:
            if rest not in self._kept:
                raise Refusal(HTTPStatus.NOT_FOUND)
            return Answer(data={key: text for key, text in self._kept[rest].items() if key != "password"})
        new = {**self._kept.get(rest, {}), **request.body}
        if rest.startswith("config/") and new.get("verify_connection", True):
            self._verify(new)
        if rest.startswith("static-roles/"):
            self._allowed(self._connection(new), name)
            self._rotate(new)
        self._kept[rest] = new
        return NOTHING

    def _verify(self, connection: Mapping[str, Any]) -> None:
        try:
            self._run(connection, ("select 1",), {})
        except SqlFailedError as error:
            raise bad(f"error creating database object: error verifying connection: {error}") from None

    def _connection(self, role: Mapping[str, Any]) -> Mapping[str, Any]:
        name = role.get("db_name")
        found = self._kept.get(f"config/{name}")
        if found is None:
            text = f'1 error occurred:\n\t* failed to find entry for connection with name: "{name}"\n\n'
            raise Refusal(HTTPStatus.INTERNAL_SERVER_ERROR, text)
        return found

    def _allowed(self, connection: Mapping[str, Any], name: str) -> None:
        names = connection.get("allowed_roles", "")
        listed = names.split(",") if isinstance(names, str) else names
        if "*" not in listed and name not in listed:
            text = f'1 error occurred:\n\t* "{name}" is not an allowed role\n\n'
            raise Refusal(HTTPStatus.INTERNAL_SERVER_ERROR, text)

    # -- logins that come and go ------------------------------------------------

    def _issue(self, request: Request, name: str) -> Answer:
        role = self._kept.get(f"roles/{name}")
        if role is None:
            raise bad(f"unknown role: {name}")
        connection = self._connection(role)
        self._allowed(connection, name)
        now = self._vault.clock.now()
        ttl, longest = (seconds(role.get(key)) for key in ("default_ttl", "max_ttl"))
        shown = self._vault.tokens.living(request.token, now).name[:8]
        user = f"v-{shown}-{name[:8]}-{random_name(20)}-{int(now)}"[:63]
        password = f"{random_name(6)}-{random_name(13)}"
        until = now + min(ttl or LONGEST, longest or LONGEST)
        fields = {"name": user, "username": user, "password": password, "expiration": _stamp(until)}
        self._run(connection, role.get("creation_statements") or _MAKE, fields)
        self.made += 1
        wanted = Wanted(ttl=ttl, max_ttl=longest, internal={"role": name, "user": user})
        return Answer(data={"password": password, "username": user}, lease=wanted)

    def revoke(self, internal: Mapping[str, Any]) -> None:
        """Drop a login."""
        role = self._kept.get(f"roles/{internal['role']}", {})
        with suppress(Refusal):
            statements = role.get("revocation_statements") or _DROP
            self._run(self._connection(role), statements, {"name": internal["user"], "username": internal["user"]})

    def prolong(self, internal: Mapping[str, Any], expires: float) -> None:
        """Move the end of a login's password."""
        role = self._kept.get(f"roles/{internal['role']}", {})
        fields = {"name": internal["user"], "username": internal["user"], "expiration": _stamp(expires)}
        self._run(self._connection(role), role.get("renew_statements") or _PROLONG, fields)

    # -- logins that stay -------------------------------------------------------

    def _static_role(self, name: str) -> dict[str, Any]:
        role = self._kept.get(f"static-roles/{name}")
        if role is None:
            raise bad(f"unknown role: {name}")
        return role

    def _static(self, name: str) -> Answer:
        role = self._static_role(name)
        now = self._vault.clock.now()
        period = seconds(role.get("rotation_period"))
        if now >= role["rotated"] + period and not role.get("stuck"):
            self._rotate(role)
        fields = {
            "last_vault_rotation": moment(role["rotated"]),
            "password": role["password"],
            "rotation_period": int(period),
            "ttl": max(0, round(role["rotated"] + period - now)),
            "username": role["username"],
        }
        return Answer(data=fields)

    def _rotate(self, role: dict[str, Any]) -> None:
        password = random_name(20)
        fields = {"name": role["username"], "username": role["username"], "password": password}
        self._run(self._connection(role), role.get("rotation_statements") or _ROTATE, fields)
        role["password"], role["rotated"] = password, self._vault.clock.now()

    # -- the database -----------------------------------------------------------

    def _run(self, connection: Mapping[str, Any], statements: str | Sequence[str], fields: Mapping[str, str]) -> None:
        url = urlsplit(str(connection["connection_url"]).replace("{{username}}:{{password}}@", ""))
        text = statements if isinstance(statements, str) else "\n".join(statements)
        for name, value in fields.items():
            text = text.replace("{{" + name + "}}", value)
        if url.hostname == "pretend.invalid":
            self._pretend(text, fields)
            return
        where = [f"--host={url.hostname}", f"--port={url.port}", f"--dbname={url.path.strip('/')}"]
        command = ["psql", "--no-psqlrc", "--no-password", "--quiet", f"--username={connection['username']}", *where]
        environment = {**os.environ, "PGPASSWORD": str(connection["password"]), "PGCONNECT_TIMEOUT": "10"}
        done = subprocess.run(
            [*command, "--set=ON_ERROR_STOP=1", "--single-transaction", "--file=-"],
            input=text,
            env=environment,
            cwd=Path("/"),
            capture_output=True,
            text=True,
            timeout=_TIMEOUT,
            check=False,
        )
        if done.returncode:
            raise SqlFailedError(done.stderr.strip())

    def _pretend(self, text: str, fields: Mapping[str, str]) -> None:
        if "password" in fields:
            self.pretended[fields["name"]] = fields["password"]
        elif "drop role" in text.lower():
            self.pretended.pop(fields["name"], None)


def _stamp(at: float) -> str:
    return datetime.fromtimestamp(at + _LEEWAY, UTC).strftime("%Y-%m-%d %H:%M:%S+0000")
