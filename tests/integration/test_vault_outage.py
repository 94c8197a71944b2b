"""A broker whose Vault is sealed under it: what it still serves, how that is marked, and when that ends."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import running
from tests.contract.vault_world import FakeWorld, fake_world, role_id, secret_id


@pytest.fixture
def world(tmp_path: Path) -> Iterator[FakeWorld]:
    """Give a Vault of its own."""
    with fake_world(tmp_path) as found:
        yield found


def config(world: FakeWorld, directory: Path, *, stale: str) -> str:
    """Return a config with one secret of K/V 2 that is read each time it is asked for."""
    proof = directory / "secret-id"
    proof.touch(0o600)
    proof.write_text(secret_id(world))
    return f"""
        [backends.vault]
        type = "vault"
        address = "{world.front.address}"
        ca_file = "{world.authority.ca_file}"
        cache = "0s"
        auth.approle = {{ role_id = "{role_id(world)}", secret_id_file = "{proof}" }}

        [secrets.app]
        backend = "vault"
        path = "secret/app"
        stale = "{stale}"

        [servers.app]
        command = ["true"]
        allow = ["app"]
    """


def test_what_was_read_once_is_served_while_the_vault_is_sealed(world: FakeWorld) -> None:
    """
    The very first value counts, read before it was known what kind of engine holds it; each release is marked.

    When the Vault is open again, so is the mark gone.
    """
    world.api("POST", "secret/data/app", {"data": {"value": "made up"}})
    with (
        running.room() as room,
        running.start(room / "b", config=config(world, room, stale="5m")) as broker,
        broker.connect() as mine,
    ):
        first = mine.call("credential/issue", secret="app")["values"]
        world.seal()
        second = mine.call("credential/issue", secret="app")["values"]
        problems = [each["text"] for each in broker.admin("status")["problems"]]
        states = [each["state"] for each in broker.admin("lease/list")["leases"]]
        world.unseal()
        running.until(lambda: not _marked(broker, mine), said="the Vault to be asked again")
        marks = [each.get("stale") for each in broker.records() if each["event"] == "credential/authorised"]
    assert (True, True, ["stale"]) == (first == second, any("'app'" in each for each in problems), states)
    assert (None, True, None) == (marks[0], marks[1], marks[-1])


def _marked(broker: running.RunningBroker, mine: running.Connection) -> bool:
    mine.call("credential/issue", secret="app")
    return [each["state"] for each in broker.admin("lease/list")["leases"]] == ["stale"]


def test_what_is_empty_is_refused_and_no_empty_string_leaves(world: FakeWorld) -> None:
    """A secret whose only field is empty is as good as missing, also for who already holds a lease of it."""
    world.api("POST", "secret/data/app", {"data": {"value": "made up"}})
    codes = []
    with (
        running.room() as room,
        running.start(room / "b", config=config(world, room, stale="5m")) as broker,
        broker.connect() as mine,
        broker.connect() as others,
    ):
        mine.call("credential/issue", secret="app")
        world.api("POST", "secret/data/app", {"data": {"value": ""}})
        for connection, fresh in ((mine, False), (others, True)):
            with pytest.raises(running.AnswerError) as caught:
                connection.call("credential/issue", secret="app", fresh=fresh)
            codes.append((caught.value.code, caught.value.message))
    assert [("unavailable", "secret 'app' is empty in 'vault'")] * 2 == codes


def test_without_stale_it_is_refused_with_what_mends_it(world: FakeWorld) -> None:
    """Where the config does not say ``stale``, a sealed Vault means a clear no, with the command that opens it."""
    world.api("POST", "secret/data/app", {"data": {"value": "made up"}})
    with (
        running.room() as room,
        running.start(room / "b", config=config(world, room, stale="0s")) as broker,
        broker.connect() as mine,
    ):
        mine.call("credential/issue", secret="app")
        world.seal()
        with pytest.raises(running.AnswerError) as caught:
            mine.call("credential/issue", secret="app")
    assert ("locked", True) == (caught.value.code, "unseal" in (caught.value.hint or ""))


def test_a_wrapping_token_that_was_used_before_is_an_alarm(world: FakeWorld) -> None:
    """Somebody who has unwrapped the secret-id on its way is told of: in status, and by the program for alarms."""
    headers = {"X-Vault-Wrap-TTL": "120s"}
    made = world.api("POST", "auth/approle/role/broker/secret-id", {}, headers=headers)
    token = made[1]["wrap_info"]["token"]
    world.api("POST", "sys/wrapping/unwrap", {"token": token})
    with running.room() as room:
        proof, told = room / "wrapped", room / "told"
        proof.touch(0o600)
        proof.write_text(token)
        teller = room / "tell"
        teller.write_text(f"#!/bin/sh\ncat > {told}.part && mv {told}.part {told}\n")
        teller.chmod(0o700)
        text = f"""
            [backends.vault]
            type = "vault"
            address = "{world.front.address}"
            ca_file = "{world.authority.ca_file}"
            auth.approle = {{ role_id = "{role_id(world)}", wrapped_secret_id_file = "{proof}", \
creation_path = "auth/approle/role/broker/secret-id" }}

            [notify]
            program = ["{teller}"]
        """
        with running.start(room / "b", config=text) as broker:
            said = running.until(lambda: told.exists() and json.loads(told.read_text()), said="the alarm")
            problems = [each["text"] for each in broker.admin("status")["problems"]]
    assert ("backend-alarm", {"backend": "vault"}) == (said["alarm"], said["facts"])
    assert [True] == ["unwrapped the secret-id before" in each for each in problems if "vault" in each]
    assert token not in json.dumps(said) + str(problems)
