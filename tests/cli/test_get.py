"""``get``: the one command that prints a value, in the form that was asked for."""

import json
import os
import shlex
import subprocess

import pytest

from tests.cli.conftest import CANARY, SECRETS
from tests.cli.shell import COMMAND, environment, shell
from tests.running import RunningBroker

DATABASE = SECRETS["app-db"]


def test_plain_prints_the_value_and_a_newline(where: list[str]) -> None:
    """A secret with one field is printed as it is."""
    done = shell("get", "github", *where)
    assert (0, f"{CANARY}-github\n", "") == (done.status, done.out, done.err)


def test_plain_needs_a_field_where_there_are_several(where: list[str]) -> None:
    """A secret with several fields is refused with their names, and one of them is printed when named."""
    done = shell("get", "app-db", *where)
    assert (2, "", True, False) == (done.status, done.out, "username, password" in done.err, CANARY in done.err)
    assert f"{CANARY}-user\n" == shell("get", "app-db", "--field", "username", *where).out


def test_env_is_what_a_shell_reads(where: list[str]) -> None:
    """A shell that evaluates the lines has every field, whatever letters are in it."""
    words = shlex.join([*COMMAND, "get", "app-db", "--format", "env", *where])
    script = f'eval "$({words})"; printf "%s\\n" "$APP_DB_USERNAME" "$APP_DB_PASSWORD"'
    done = subprocess.run(["/bin/sh", "-c", script], capture_output=True, env=environment(), check=True)
    assert [f"{CANARY}-user", f"{CANARY}-p\"w 'd$"] == done.stdout.decode().splitlines()


def test_env_calls_a_single_value_by_the_secret_s_name(where: list[str]) -> None:
    """A secret with one field makes a variable of its own name."""
    assert f"GITHUB={CANARY}-github\n" == shell("get", "github", "--format", "env", *where).out


def test_json_is_all_of_it(where: list[str]) -> None:
    """JSON has the values, the accessor and the times."""
    found = shell("get", "app-db", "--format", "json", *where).json
    assert DATABASE == found["values"]
    assert {"accessor", "secret", "values", "issued_at", "expires_at", "renewable", "version"} == found.keys()


def test_aws_is_what_credential_process_wants(where: list[str]) -> None:
    """The fields have AWS's names and the expiry is there."""
    found = shell("get", "cloud", "--format", "aws", *where).json
    expiration = found.pop("Expiration")
    expected = {"AccessKeyId": "key", "SecretAccessKey": "secret", "SessionToken": "token"}
    assert {"Version": 1, **{name: f"{CANARY}-{end}" for name, end in expected.items()}} == found
    assert expiration.endswith("Z")


def test_aws_is_refused_for_what_is_none(where: list[str]) -> None:
    """A secret without AWS's fields is refused with the names of those it has."""
    done = shell("get", "app-db", "--format", "aws", *where)
    assert (2, "", True) == (done.status, done.out, "its fields are username, password" in done.err)


@pytest.mark.parametrize(
    ("words", "bound"), [([], None), (["--bind", "none"], None), (["--bind", str(os.getpid())], os.getpid())]
)
def test_the_lease_hangs_on_what_was_named(
    broker: RunningBroker, where: list[str], words: list[str], bound: int | None
) -> None:
    """Without --bind the lease has a short life of its own, with it that of an ancestor."""
    accessor = shell("get", "github", "--format", "json", *words, *where).json["accessor"]
    leases = broker.admin("lease/list")["leases"]
    assert [bound] == [lease["pid"] for lease in leases if lease["accessor"] == accessor]


def test_a_process_that_is_no_ancestor_is_refused(where: list[str]) -> None:
    """A lease cannot be hung on a stranger."""
    done = shell("get", "github", "--bind", "1", *where)
    assert ("", False) == (done.out, done.status == 0)


def test_an_unknown_secret_is_denied(where: list[str]) -> None:
    """What no server is granted is denied, with status 3."""
    done = shell("get", "nothing-like-it", *where)
    assert (3, "", "mcp-broker: ") == (done.status, done.out, done.err[:12])


@pytest.mark.parametrize("bind", ["0", "-1", "me", "1.5"])
def test_bind_takes_a_pid_or_none(where: list[str], bind: str) -> None:
    """Anything else is a mistake on the command line."""
    assert 2 == shell("get", "github", f"--bind={bind}", *where).status


def test_the_output_can_be_cut_off(where: list[str]) -> None:
    """A reader that has gone makes no traceback."""
    words = shlex.join([*COMMAND, "get", "cloud", "--format", "json", *where])
    done = subprocess.run(["/bin/sh", "-c", f"{words} | true"], capture_output=True, env=environment(), check=True)
    assert (b"", b"") == (done.stdout, done.stderr)


def test_json_is_one_line(where: list[str]) -> None:
    """JSON for a script is one line, so that it can be read line by line."""
    out = shell("get", "github", "--format", "json", *where).out
    assert (1, True) == (out.count("\n"), isinstance(json.loads(out), dict))
