"""The keyring backend over a keyring with the library's own interface, which prompts, hangs, fails and is too small."""

import asyncio
import subprocess
import sys
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from backends.base import (
    BackendError,
    CorruptError,
    LockedError,
    MisconfiguredError,
    RefusedError,
    Secret,
    SecretNotFoundError,
    Surroundings,
    UnavailableError,
)
from backends.key_option import key_source
from backends.keyring_choice import KINDS, chosen_kind, default_name
from backends.library_ring import LibraryRing
from backends.os_keyring import KeyringBackend, from_config
from backends.registry import make
from tests.backends.rings import KWALLET, over
from tests.conftest import ROOT
from tests.contract.backend import exposed, secrets
from tests.fakes.ring import WINDOWS_MOST, Cancelling, Ring

PATIENCE = 0.5


def surroundings(directory: Path, mode: str = "user") -> Surroundings:
    """Return those of a broker in a directory."""
    return Surroundings(mode=mode, config=directory, state=directory)


@pytest.fixture
def ring() -> Ring:
    """Return a keyring with one secret of ours and an item of another program."""
    ring = Ring()
    ring.items = {("mcp-broker", "github"): "made up", ("gh:github.com", "me"): "theirs"}
    return ring


@pytest.fixture
def backend(ring: Ring, tmp_path: Path) -> KeyringBackend:
    """Return a backend over it, not open yet, whose askers wait for half a second."""
    return over(ring, tmp_path, patience=PATIENCE)


async def value(backend: KeyringBackend, path: str = "github", **params: str) -> str:
    """Return what is issued, or what kind of error, and its hint."""
    try:
        return exposed(await backend.issue(path, params=params, intent="an-intent"))["value"]
    except BackendError as error:
        return f"{type(error).__name__}: {error.hint}"


def using(backend: KeyringBackend, job: Coroutine[Any, Any, Any]) -> Any:  # noqa: ANN401 -- what the job returns
    """Open a backend, do something with it, close it."""

    async def whole() -> Any:  # noqa: ANN401
        await backend.open()
        try:
            return await job
        finally:
            await backend.close()

    return asyncio.run(whole())


LOCKED = "LockedError: mcp-broker unlock"


class TestLocked:
    """A keyring that asks somebody."""

    def test_a_prompt_that_nobody_answers_hangs_nobody(self, ring: Ring, backend: KeyringBackend) -> None:
        """A hundred that wait are told after a moment what to do, and one prompt is open."""
        ring.locked = True
        ring.opened.clear()

        async def many() -> list[str]:
            return await asyncio.gather(*(value(backend, f"secret-{number}") for number in range(100)))

        async def whole() -> set[str]:
            found = set(await many()) | {await value(backend)}
            ring.opened.set()
            return found

        assert ({LOCKED}, 1) == (using(backend, whole()), ring.prompts)

    def test_once_it_is_answered_everybody_gets_theirs(self, ring: Ring, backend: KeyringBackend) -> None:
        """Those who still wait when somebody unlocks it, and those who come later, are served."""
        ring.locked = True
        ring.opened.clear()

        async def whole() -> tuple[set[str], str, int]:
            waiting = asyncio.gather(*(value(backend) for _ in range(20)))
            await asyncio.sleep(PATIENCE / 4)
            ring.opened.set()
            return set(await waiting), await value(backend), ring.prompts

        assert ({"made up"}, "made up", 1) == using(backend, whole())

    def test_who_has_declined_is_not_asked_again(self, ring: Ring, backend: KeyringBackend) -> None:
        """After a no, everybody is told how to unlock it, and nobody is asked."""
        ring.locked = ring.declines = True

        async def whole() -> list[str]:
            return [await value(backend) for _ in range(5)]

        assert ([LOCKED] * 5, 1) == (using(backend, whole()), ring.prompts)

    def test_unlock_asks_again_whatever_was_said_before(self, ring: Ring, backend: KeyringBackend) -> None:
        """It is not stuck: ``unlock`` asks, and then all is well."""
        ring.locked = ring.declines = True

        async def whole() -> tuple[str, str, str, int]:
            first = await value(backend)
            lock = await backend.lock()
            ring.declines = False
            await backend.unlock(None)
            return first, "" if lock is None else lock.what, await value(backend), ring.prompts

        assert (LOCKED, "KWallet", "made up", 2) == using(backend, whole())

    def test_a_no_is_forgotten_after_a_while(self, ring: Ring) -> None:
        """Where nobody can see whether it was unlocked elsewhere, it is tried again in the end."""
        now = [0.0]
        ours = LibraryRing(KWALLET, None, loaded=ring, quiet_seconds=60, clock=lambda: now[0])
        ring.locked = ring.declines = True
        found = []
        for now[0] in (0.0, 59.0, 61.0):
            with pytest.raises(LockedError):
                ours.read("mcp-broker", "github", ask=True)
            found.append(ring.prompts)
        assert [1, 1, 2] == found

    def test_a_no_while_something_is_written_is_a_no(self, tmp_path: Path) -> None:
        """KWallet says that with another error of the library's."""
        ring = Cancelling()
        ring.declines = True
        ours = LibraryRing(KWALLET, None, loaded=ring)
        ours.write("mcp-broker", "a", "x", label="a", ask=False)
        ring.locked = True
        ring.declines = True
        backend = KeyringBackend("desktop", ours, "kwallet", lock_file=tmp_path / "lock")
        with pytest.raises(LockedError):
            using(backend, backend.put("a", secrets(value="y")))

    def test_health_tells_it_and_asks_nobody(self, ring: Ring, backend: KeyringBackend) -> None:
        """``status`` says that it is locked, by its name, without a prompt."""
        ring.locked = ring.declines = True

        async def whole() -> tuple[str, int, str, str | None, dict[str, str]]:
            before = (await backend.health()).state, ring.prompts
            await value(backend)
            found = await backend.health()
            return *before, found.state, found.hint, dict(found.facts)

        assert ("ok", 0, "locked", "mcp-broker unlock", {"keyring": "kwallet"}) == using(backend, whole())

    def test_no_password_is_taken_where_the_platform_takes_none(self, backend: KeyringBackend) -> None:
        """A password for a keyring of the library is refused, since nobody would use it."""
        with pytest.raises(RefusedError):
            using(backend, backend.unlock(Secret("made up")))

    def test_it_ends_while_a_prompt_is_open(self, ring: Ring, backend: KeyringBackend) -> None:
        """A prompt that nobody answers does not keep the broker from ending."""
        ring.locked = True
        ring.opened.clear()
        began = time.monotonic()
        using(backend, value(backend))
        assert time.monotonic() - began < 10
        ring.opened.set()


class TestRemembering:
    """What was read a moment ago."""

    def test_what_was_read_is_at_hand(self, ring: Ring, backend: KeyringBackend) -> None:
        """A second issue asks the keyring nothing."""

        async def whole() -> tuple[object, object, int]:
            before = backend.at_hand("github")
            await value(backend)
            calls = ring.calls
            credential = backend.at_hand("github")
            await value(backend)
            return before, credential and exposed(credential), ring.calls - calls

        assert (None, {"value": "made up"}, 0) == using(backend, whole())

    def test_it_is_forgotten_in_time(self, ring: Ring, tmp_path: Path) -> None:
        """A change elsewhere is issued when what was read has been remembered for long enough."""
        backend = over(ring, tmp_path, cache=0.2)

        async def whole() -> tuple[str, str]:
            first = await value(backend)
            ring.items["mcp-broker", "github"] = "changed"
            await asyncio.sleep(0.3)
            return first, await value(backend)

        assert ("made up", "changed") == using(backend, whole())

    def test_none_is_remembered_where_the_config_says_so(self, ring: Ring, tmp_path: Path) -> None:
        """``cache = 0`` reads each time."""
        backend = over(ring, tmp_path, cache=0)

        async def whole() -> tuple[str, object]:
            return await value(backend), backend.at_hand("github")

        assert ("made up", None) == using(backend, whole())

    def test_nothing_is_at_hand_when_it_has_closed(self, backend: KeyringBackend) -> None:
        """A backend that is closed has let go of every value."""
        assert "made up" == using(backend, value(backend))
        assert backend.at_hand("github") is None

    def test_who_asks_at_once_shares_one_read(self, ring: Ring, tmp_path: Path) -> None:
        """Fifty askers at once cost what one does."""
        backend = over(ring, tmp_path, cache=0.2)

        async def one_and_fifty() -> tuple[int, int]:
            await value(backend)
            await asyncio.sleep(0.3)
            ring.calls = 0
            await value(backend)
            once = ring.calls
            await asyncio.sleep(0.3)
            ring.calls = 0
            await asyncio.gather(*(value(backend) for _ in range(50)))
            return once, ring.calls

        once, together = using(backend, one_and_fifty())
        assert once == together


class TestForeign:
    """Items of other programs."""

    def test_it_is_read_as_it_is(self, backend: KeyringBackend) -> None:
        """``service`` and ``username`` in the config read what another program has stored, as one value."""
        assert "theirs" == using(backend, value(backend, "gh", service="gh:github.com", username="me"))

    def test_it_has_no_versions(self, backend: KeyringBackend) -> None:
        """Nothing is counted that is not ours."""
        params = {"service": "gh:github.com", "username": "me"}
        assert None is using(backend, backend.issue("gh", params=params, intent="i")).version

    def test_what_is_not_there_is_not_found(self, backend: KeyringBackend) -> None:
        """An item that is not there is not found, and the hint does not offer to write it."""
        with pytest.raises(SecretNotFoundError) as caught:
            using(backend, backend.issue("gh", params={"service": "gh", "username": "me"}, intent="i"))
        assert "secret-tool search --all service NAME" == caught.value.hint

    @pytest.mark.parametrize(
        "params",
        [
            {"service": "x"},
            {"username": "x"},
            {"service": "x", "username": 1},
            {"service": "x", "username": "y", "user": "z"},
            {"service": "mcp-broker master key", "username": "x"},
        ],
        ids=["service alone", "username alone", "a number", "unknown", "a master key"],
    )
    def test_what_names_no_item_is_a_mistake(self, backend: KeyringBackend, params: dict[str, object]) -> None:
        """Both have to be there, nothing else, and no key of the broker's own is handed out that way."""
        with pytest.raises(MisconfiguredError):
            using(backend, backend.issue("gh", params=params, intent="i"))


IDLE = """
import asyncio, sys
from pathlib import Path
from backends.base import Surroundings
from backends.registry import make
here = Path(sys.argv[1])
backend = make("keyring", "desktop", {}, Surroundings(mode="user", config=here, state=here))
asyncio.run(backend.open())
print(backend.idle, sorted({"keyring", "jeepney", "secretstorage"} & set(sys.modules)))
"""


def test_a_start_loads_no_library(tmp_path: Path) -> None:
    """Before anybody needs the keyring, nothing of what speaks to one is loaded, and nobody looks how it is."""
    done = subprocess.run([sys.executable, "-c", IDLE, tmp_path], capture_output=True, text=True, check=False, cwd=ROOT)
    assert ("True []\n", "") == (done.stdout, done.stderr)


class TestTrouble:
    """What else goes wrong."""

    def test_a_keyring_that_fails_is_unavailable_without_its_words(self, ring: Ring, backend: KeyringBackend) -> None:
        """The kind of the error is told, what it says is not."""
        ring.broken = True
        with pytest.raises(UnavailableError) as caught:
            using(backend, backend.issue("github", params={}, intent="i"))
        assert ("KWallet failed: InitError", None) == (caught.value.message, caught.value.__cause__)

    def test_it_is_found_again_when_it_works_again(self, ring: Ring, backend: KeyringBackend) -> None:
        """A keyring that comes back is used at once."""

        async def whole() -> tuple[str, str]:
            ring.broken = True
            first = await value(backend)
            ring.broken = False
            return first, await value(backend)

        assert ("UnavailableError: mcp-broker status", "made up") == using(backend, whole())

    def test_an_item_that_somebody_has_broken_is_not_issued(self, ring: Ring, backend: KeyringBackend) -> None:
        """Half of a JSON object of fields is an error."""
        ring.items["mcp-broker", "github"] = '{"mcp-broker fields": {"a": '
        with pytest.raises(CorruptError):
            using(backend, backend.issue("github", params={}, intent="i"))

    def test_what_an_item_cannot_hold_is_refused_clearly(self, tmp_path: Path) -> None:
        """The Windows Credential Locker's limit is told, with where the value can go instead; nothing is written."""
        ring = Ring(most=WINDOWS_MOST)
        backend = over(ring, tmp_path, kind="windows")
        with pytest.raises(RefusedError) as caught:
            using(backend, backend.put("big", secrets(value="x" * (WINDOWS_MOST // 2 + 1))))
        assert ("mcp-broker secret set NAME --backend local", {}) == (caught.value.hint, ring.items)

    def test_what_an_item_just_holds_is_kept(self, tmp_path: Path) -> None:
        """A value of exactly the limit comes back, and so do its versions after many puts."""
        backend = over(Ring(most=WINDOWS_MOST), tmp_path, kind="windows")
        text = "ä" * (WINDOWS_MOST // 2)

        async def whole() -> tuple[str, int]:
            for _ in range(30):
                await backend.put("big", secrets(value=text))
            return await value(backend, "big"), (await backend.versions("big"))[0].number

        assert (text, 30) == using(backend, whole())

    def test_a_backend_that_was_not_opened_answers(self, backend: KeyringBackend) -> None:
        """Before it is open every call says so."""
        with pytest.raises(UnavailableError):
            asyncio.run(backend.issue("github", params={}, intent="i"))


class TestChoice:
    """Which keyring it is."""

    @pytest.mark.parametrize(
        ("platform", "name"),
        [("linux", "secret-service"), ("freebsd14", "secret-service"), ("darwin", "macos"), ("win32", "windows")],
    )
    def test_the_platform_names_it_where_nobody_does(self, platform: str, name: str) -> None:
        """Without a word in the config it follows from the platform, and from nothing that may come and go."""
        assert name == default_name(platform)

    @pytest.mark.parametrize("name", sorted(KINDS))
    def test_each_can_be_named(self, name: str, tmp_path: Path) -> None:
        """Every keyring that encrypts has a name, and naming it loads nothing."""
        backend = from_config("desktop", {"keyring": name}, surroundings(tmp_path))
        assert backend.idle

    @pytest.mark.parametrize(
        "name",
        ["keyring.backends.null.Keyring", "keyring.backends.fail.Keyring", "keyring.backends.chainer.ChainerBackend"],
    )
    def test_one_that_keeps_nothing_is_refused_in_any_case(self, name: str, tmp_path: Path) -> None:
        """Not even a dangerous switch lets in what keeps nothing, or tries one store after another."""
        with pytest.raises(MisconfiguredError):
            from_config("desktop", {"keyring": name, "unsafe_plaintext": True}, surroundings(tmp_path))

    def test_a_plaintext_one_is_refused(self, tmp_path: Path) -> None:
        """One that is not known to encrypt is not used, and the switch that lets it in is named."""
        with pytest.raises(MisconfiguredError) as caught:
            from_config("desktop", {"keyring": "keyrings.alt.file.PlaintextKeyring"}, surroundings(tmp_path))
        assert "unsafe_plaintext = true" in str(caught.value.hint)

    def test_a_plaintext_one_is_used_where_the_config_insists(self, tmp_path: Path) -> None:
        """With the switch it works, and ``status`` says what it does not protect."""
        options = {"keyring": "tests.fakes.ring.Ring", "unsafe_plaintext": True}
        backend = from_config("desktop", options, surroundings(tmp_path))

        async def whole() -> tuple[int, str]:
            return await backend.put("a", secrets(value="x")), (await backend.health()).detail

        number, detail = using(backend, whole())
        assert (1, True) == (number, "plaintext" in detail)

    def test_no_master_key_goes_into_a_plaintext_one(self) -> None:
        """The sealed store's key has no such switch."""
        with pytest.raises(MisconfiguredError):
            chosen_kind("keyrings.alt.file.PlaintextKeyring", "key", unsafe_plaintext=False)

    @pytest.mark.parametrize(
        "options",
        [
            {"keyring": "gnome"},
            {"keyring": 1},
            {"cache": -1},
            {"cache": 1e9},
            {"bus": "tcp:host=example"},
            {"unsafe_plaintext": "yes"},
            {"keyrings": "macos"},
        ],
        ids=["name", "type", "negative", "long", "network", "flag", "unknown"],
    )
    def test_what_it_does_not_mean_is_refused(self, options: dict[str, object], tmp_path: Path) -> None:
        """A mistake in the table is told when the config is read."""
        with pytest.raises(MisconfiguredError):
            from_config("desktop", options, surroundings(tmp_path))

    def test_the_hosts_broker_has_none(self, tmp_path: Path) -> None:
        """In system mode the backend, and the key in the keyring, are refused when the config is read."""
        for refused in (
            lambda: make("keyring", "desktop", {}, surroundings(tmp_path, "system")),
            lambda: key_source({"keyring": True}, surroundings(tmp_path, "system")),
        ):
            with pytest.raises(MisconfiguredError, match="no desktop"):
                refused()

    def test_one_that_is_not_here_says_so(self, tmp_path: Path) -> None:
        """A keyring that this platform does not have is unavailable, and no other one is used in its place."""
        backend = from_config("desktop", {"keyring": "windows"}, surroundings(tmp_path))

        async def whole() -> tuple[str, str]:
            return await value(backend), (await backend.health()).state

        hint = "keyring --list-backends says what the keyring library finds"
        assert (f"UnavailableError: {hint}", "unavailable") == using(backend, whole())

    def test_backends_of_one_broker_share_one_keyring(self, tmp_path: Path) -> None:
        """The sealed store's key and a backend on the same keyring are one asker, so that a person is asked once."""
        shared = surroundings(tmp_path)
        from_config("desktop", {}, shared)
        key_source({"keyring": True}, shared)
        assert 1 == len(shared.shared)
