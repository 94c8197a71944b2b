"""What ``status`` says of a Vault: in one word, in a sentence, with what mends it, and with a few facts."""

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from backends.base import Health, Secret, Surroundings
from backends.vault import from_config
from tests.contract.vault_case import MemoryDrawer
from tests.fakes.faulty_http import Say
from tests.fakes.vault.server import FakeVault


@pytest.fixture
def fake() -> Iterator[FakeVault]:
    """Give a server."""
    with FakeVault() as found:
        yield found


def token(fake: FakeVault, directory: Path, **more: Any) -> Path:  # noqa: ANN401 -- what a token is made with
    """Write a token of the server's into a file."""
    made = fake.api("POST", "auth/token/create", {"policies": ["default"], "display_name": "me", **more})[1]
    return written(directory, made["auth"]["client_token"])


def written(directory: Path, text: str) -> Path:
    """Write a file that nobody else can read."""
    file = directory / "token"
    file.touch(0o600)
    file.write_text(text)
    return file


def health(address: str, file: Path, drawer: MemoryDrawer | None = None) -> Health:
    """Return how a server is."""

    async def run() -> Health:
        options = {"address": address, "auth": {"token": {"file": str(file)}}, "timeout": "5s"}
        around = Surroundings(mode="user", config=file.parent, state=file.parent, drawer=drawer)
        backend = from_config("v", options, around)
        await backend.open()
        try:
            return await backend.health()
        finally:
            await backend.close()

    return asyncio.run(run())


def test_what_was_not_opened_says_so(tmp_path: Path) -> None:
    """Before it is opened nothing is known."""
    options = {"address": "https://v", "auth": {"token": {"file": "t"}}}
    backend = from_config("v", options, Surroundings(mode="user", config=tmp_path, state=tmp_path))
    assert Health(state="unavailable", detail="it was not opened yet") == asyncio.run(backend.health())


def test_a_server_that_is_well(fake: FakeVault, tmp_path: Path) -> None:
    """As whom, with what, until when: in the order in which a person asks."""
    found = health(fake.address, token(fake, tmp_path, ttl="1h"), MemoryDrawer())
    expected = ["address", "clock", "logged in as", "policies", "token", "token until"]
    until = re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ, and is renewed", found.facts["token until"])
    assert ("ok", expected, fake.address, "as ours", "default", True) == (
        found.state,
        list(found.facts),
        found.facts["address"],
        found.facts["clock"],
        found.facts["policies"],
        until is not None,
    )


def test_no_token_is_in_what_status_says(fake: FakeVault, tmp_path: Path) -> None:
    """Of the token its accessor is shown, and the token itself nowhere."""
    file = token(fake, tmp_path, ttl="1h")
    found = health(fake.address, file)
    assert (False, True) == (file.read_text() in repr(found), bool(found.facts["token"]))


@pytest.mark.parametrize(
    ("more", "until"),
    [
        ({"ttl": "1h", "renewable": False}, "and is replaced before"),
        ({"ttl": "1h", "type": "batch"}, "is replaced before"),
    ],
)
def test_a_token_that_cannot_be_renewed_is_replaced(
    fake: FakeVault, tmp_path: Path, more: dict[str, Any], until: str
) -> None:
    """A token that ends says that another one comes before."""
    assert health(fake.address, token(fake, tmp_path, **more)).facts["token until"].endswith(until)


def test_a_token_for_ever(fake: FakeVault, tmp_path: Path) -> None:
    """A root's token does not end."""
    assert "it does not end" == health(fake.address, written(tmp_path, fake.vault.root)).facts["token until"]


def test_without_a_sealed_store_it_says_what_that_costs(fake: FakeVault, tmp_path: Path) -> None:
    """Where tokens cannot be kept, a person should know before a restart."""
    found = health(fake.address, token(fake, tmp_path))
    assert ("ok", True) == (found.state, "its leases would not outlive a restart" in found.detail)


def test_a_clock_that_differs_is_said(fake: FakeVault, tmp_path: Path) -> None:
    """A server whose clock is two minutes ahead ends leases two minutes early."""
    file = token(fake, tmp_path)
    fake.vault.clock.advance(120)
    found = health(fake.address, file, MemoryDrawer())
    assert ("ok", True, True) == (found.state, "ahead of ours" in found.detail, "ahead of" in found.facts["clock"])


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (503, ("locked", "it is sealed", "bao operator unseal")),
        (501, ("locked", "it is not initialised", "bao operator init")),
    ],
)
def test_a_server_that_somebody_has_to_open(
    fake: FakeVault, tmp_path: Path, status: int, expected: tuple[str, str, str]
) -> None:
    """A sealed server, and one that was never set up, are locked, and the hint is the command."""
    file = token(fake, tmp_path)
    fake.front.fail(Say(status=status, errors=("Vault is sealed",)))
    found = health(fake.address, file)
    assert expected == (found.state, found.detail, found.hint)


def test_a_server_that_is_not_there(fake: FakeVault, tmp_path: Path) -> None:
    """Where nobody listens it says so, with how to look."""
    file = token(fake, tmp_path)
    address = "http://127.0.0.1:1"
    found = health(address, file)
    assert ("unavailable", f"curl {address}/v1/sys/health") == (found.state, found.hint)


def test_a_proof_that_is_not_there(fake: FakeVault, tmp_path: Path) -> None:
    """A missing token file is locked, and the hint names the file."""
    found = health(fake.address, tmp_path / "none")
    assert ("locked", True) == (found.state, str(tmp_path / "none") in str(found.hint))


def test_a_login_that_was_refused(fake: FakeVault, tmp_path: Path) -> None:
    """A refused login is a mistake that somebody has to mend, and the wrong proof is not shown."""
    found = health(fake.address, written(tmp_path, "s.wrong-canary"))
    assert ("misconfigured", True, False) == (
        found.state,
        "was refused" in found.detail,
        "canary" in repr(found),
    )


def test_what_is_kept_is_sealed_and_found_again(fake: FakeVault, tmp_path: Path) -> None:
    """A token that was kept is taken up again after a restart, without showing the proof a second time."""
    file, drawer = token(fake, tmp_path, ttl="1h"), MemoryDrawer()
    before = health(fake.address, file, drawer)
    file.unlink()
    after = health(fake.address, file, drawer)
    assert ("ok", before.facts["token"]) == (after.state, after.facts["token"])


def test_what_cannot_be_read_of_what_was_kept_is_passed_over(fake: FakeVault, tmp_path: Path) -> None:
    """A drawer that holds nonsense costs a login, and no more."""
    drawer = MemoryDrawer()
    drawer.content = Secret("{nonsense")
    assert "ok" == health(fake.address, token(fake, tmp_path), drawer).state
