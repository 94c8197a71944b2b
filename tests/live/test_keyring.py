"""The keyring backend over a real gnome-keyring: locked, unlocked, killed, hanging, changed by others."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from backends.base import BackendError, LockedError, RefusedError, Secret, Surroundings
from backends.os_keyring import KeyringBackend, from_config
from backends.secret_service import SecretService
from tests.contract.backend import exposed, secrets
from tests.live.desktop import COMMANDS, PASSWORD, Desktop, Prompter, desktop
from tests.running import until

pytestmark = pytest.mark.live("keyring", commands=COMMANDS)

_T = TypeVar("_T")

Job = Callable[[KeyringBackend], Coroutine[Any, Any, _T]]

LOCKED = "LockedError: mcp-broker unlock"
SOON = 15.0


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desktop]:
    """Run one session for all tests here."""
    with desktop(tmp_path_factory.mktemp("desktop")) as there:
        yield there


@pytest.fixture
def there(session: Desktop) -> Desktop:
    """Return the session with an unlocked keyring that holds one secret of ours, and nothing else."""
    if session.locked():
        session.unlock()
    session.clear()
    session.secret_tool("store", "--label=x", "service", "mcp-broker", "username", "github", said="made up")
    return session


@pytest.fixture
def using(there: Desktop, tmp_path: Path) -> Callable[[Job[Any]], Any]:
    """Return what opens a backend, does something with it, and closes it."""

    def use(job: Job[Any]) -> Any:  # noqa: ANN401 -- what the job returns
        async def whole() -> Any:  # noqa: ANN401
            surroundings = Surroundings(mode="user", config=tmp_path, state=tmp_path)
            backend = from_config("desktop", {"bus": there.address}, surroundings)
            await backend.open()
            try:
                return await job(backend)
            finally:
                await backend.close()

        return asyncio.run(whole())

    return use


async def value(backend: KeyringBackend, path: str = "github", **params: str) -> str:
    """Return what is issued, or what kind of error, and its hint."""
    try:
        return exposed(await backend.issue(path, params=params, intent="an-intent"))["value"]
    except BackendError as error:
        return f"{type(error).__name__}: {error.hint}"


async def forgotten(backend: KeyringBackend) -> bool:
    """Return whether the backend lets go of what it remembers, within a while."""
    for _ in range(200):
        if backend.at_hand("github") is None:
            return True
        await asyncio.sleep(0.05)
    return False


Using = Callable[[Job[Any]], Any]


def test_an_item_is_shown_by_a_name_that_a_person_understands(there: Desktop, using: Using) -> None:
    """Seahorse and ``secret-tool`` show a secret of several fields as one item, named after it."""
    using(lambda backend: backend.put("app-db", secrets(username="app", password="made up")))
    expected = ["app-db (mcp-broker)", "app-db (mcp-broker, its versions)"]
    assert expected == [label for label in there.labels() if label.startswith("app-db")]


def test_secret_tool_reads_what_was_put(there: Desktop, using: Using) -> None:
    """A secret of one field is its value and nothing around it, also to other programs."""
    using(lambda backend: backend.put("slack", secrets(value="made up ✓")))
    assert "made up ✓" == there.secret_tool("lookup", "service", "mcp-broker", "username", "slack")


def test_another_programs_item_is_read_as_it_is(there: Desktop, using: Using) -> None:
    """``service`` and ``username`` find what somebody else has stored, with whatever other attributes."""
    there.secret_tool("store", "--label=gh", "service", "gh:x", "username", "me", "more", "y", said='{"a": 1}')
    assert '{"a": 1}' == using(lambda backend: value(backend, "gh", service="gh:x", username="me"))


def test_an_item_changed_by_secret_tool_is_heard_of_at_once(there: Desktop, using: Using) -> None:
    """What is remembered is forgotten when another program writes, long before its time is over."""

    async def job(backend: KeyringBackend) -> tuple[str, bool, str]:
        first = await value(backend)
        await backend.versions("github")
        await asyncio.sleep(0.5)
        await value(backend)
        there.secret_tool("store", "--label=x", "service", "mcp-broker", "username", "github", said="changed")
        return first, await forgotten(backend), await value(backend)

    assert ("made up", True, "changed") == using(job)


def test_what_is_remembered_is_forgotten_when_it_is_locked(there: Desktop, using: Using) -> None:
    """Locking the keyring takes back what was read from it."""

    async def job(backend: KeyringBackend) -> tuple[str, bool]:
        first = await value(backend)
        there.lock()
        return first, await forgotten(backend)

    assert ("made up", True) == using(job)


def test_a_prompt_that_nobody_answers_hangs_nobody(there: Desktop, using: Using) -> None:
    """A hundred askers get an error that names the command, for one prompt; ``status`` says that it is open."""
    there.lock()

    async def job(backend: KeyringBackend) -> tuple[set[str], str, set[str]]:
        first = set(await asyncio.gather(*(value(backend, f"secret-{n}") for n in range(100))))
        health = await backend.health()
        return first, health.detail, set(await asyncio.gather(*(value(backend) for _ in range(10))))

    with Prompter(there.address, declines=False) as prompter:
        asks = "Secret Service, the keyring 'Login': it is locked, and asks for its password"
        assert ({LOCKED}, asks, {LOCKED}) == using(job)
        assert 1 == prompter.asked


def test_unlocked_in_the_middle(there: Desktop, using: Using) -> None:
    """Those who wait at the prompt are served as soon as somebody unlocks the keyring elsewhere."""
    there.lock()

    async def job(backend: KeyringBackend) -> set[str]:
        waiting = [asyncio.create_task(value(backend)) for _ in range(20)]
        await asyncio.to_thread(until, lambda: prompter.asked)
        await asyncio.to_thread(there.unlock)
        return set(await asyncio.gather(*waiting))

    with Prompter(there.address, declines=False) as prompter:
        assert ({"made up"}, 1) == (using(job), prompter.asked)


def test_the_password_unlocks_it_while_others_wait(there: Desktop, using: Using) -> None:
    """A wrong password is refused, the right one serves those who wait at the prompt; nobody is asked again."""
    there.lock()

    async def job(backend: KeyringBackend) -> tuple[str, set[str], str]:
        waiting = [asyncio.create_task(value(backend)) for _ in range(5)]
        await asyncio.to_thread(until, lambda: prompter.asked)
        try:
            await backend.unlock(Secret("not the password"))
            wrong = "opened"
        except RefusedError as error:
            wrong = error.message
        await backend.unlock(Secret(PASSWORD))
        return wrong, set(await asyncio.gather(*waiting)), await value(backend)

    with Prompter(there.address, declines=False) as prompter:
        expected = ("that is not the password of the keyring 'Login'", {"made up"}, "made up")
        assert (expected, 1) == (using(job), prompter.asked)


def test_who_has_declined_is_not_asked_again_but_by_unlock(there: Desktop, using: Using) -> None:
    """After a no nobody is asked for each asker; ``unlock`` asks once more; unlocked elsewhere, all is well."""
    there.lock()

    async def job(backend: KeyringBackend) -> tuple[list[str], int, str, int, str]:
        found = [await value(backend) for _ in range(5)]
        asked = prompter.asked
        try:
            await backend.unlock(None)
            again = "opened"
        except BackendError as error:
            again = f"{type(error).__name__}: {error.hint}"
        asked_again = prompter.asked
        await asyncio.to_thread(there.unlock)
        return found, asked, again, asked_again, await value(backend)

    with Prompter(there.address, declines=True) as prompter:
        assert ([LOCKED] * 5, 1, LOCKED, 2, "made up") == using(job)


def test_the_keyring_outlives_our_prompt(there: Desktop, using: Using) -> None:
    """A backend that ends while its prompt is open leaves the keyring running, and everybody else's secrets in it."""
    there.lock()
    before = there.pid()

    async def job(backend: KeyringBackend) -> None:
        asking = asyncio.create_task(value(backend))
        await asyncio.to_thread(until, lambda: prompter.asked)
        asking.cancel()

    with Prompter(there.address, declines=False) as prompter:
        using(job)
        there.unlock()
    assert before == there.pid()


def test_a_prompt_is_taken_back_in_the_end(there: Desktop) -> None:
    """A prompt that nobody answers does not stay for ever; the keyring goes on running, and nobody is asked anew."""
    there.lock()
    before = there.pid()
    ring = SecretService(there.address, prompt_seconds=1)
    with Prompter(there.address, declines=False) as prompter:
        for _ in range(2):
            with pytest.raises(LockedError, match="nobody has answered its prompt"):
                ring.read("mcp-broker", "github", ask=True)
        there.unlock()
        assert ("made up", before, 1) == (ring.read("mcp-broker", "github", ask=True), there.pid(), prompter.asked)
    ring.close()


def test_a_keyring_that_is_killed_and_comes_back_is_found_again(there: Desktop, using: Using) -> None:
    """The bus starts another one, which is locked; unlocked or restarted, it serves without a restart of ours."""

    async def job(backend: KeyringBackend) -> list[str]:
        found = [await value(backend)]
        await asyncio.to_thread(there.kill_keyring)
        found.append(await value(backend, "other"))
        await asyncio.to_thread(there.unlock)
        found.append(await value(backend))
        await asyncio.to_thread(there.kill_keyring)
        await asyncio.to_thread(there.start_keyring)
        return [*found, await value(backend)]

    with Prompter(there.address, declines=True):
        assert ["made up", LOCKED, "made up", "made up"] == using(job)


def test_a_keyring_that_hangs_hangs_nobody(there: Desktop, using: Using) -> None:
    """A keyring that does not answer is unavailable within seconds, for all at once, and found again when it does."""

    async def job(backend: KeyringBackend) -> tuple[set[str], bool, str]:
        loop = asyncio.get_running_loop()
        await backend.lock()
        there.stop_keyring()
        began = loop.time()
        found = set(await asyncio.gather(*(value(backend, f"secret-{n}") for n in range(50))))
        took = loop.time() - began
        there.stop_keyring(stopped=False)
        last = ""
        for _ in range(100):
            if (last := await value(backend)) == "made up":
                break
            await asyncio.sleep(0.1)
        return found, took < SOON, last

    assert ({"UnavailableError: mcp-broker status"}, True, "made up") == using(job)


def test_two_items_of_one_name_are_the_newer_one(there: Desktop, using: Using) -> None:
    """Where another program has stored under attributes of its own, what was written last counts; a put leaves one."""
    there.secret_tool(
        "store", "--label=x", "service", "mcp-broker", "username", "github", "application", "y", said="newer"
    )

    async def job(backend: KeyringBackend) -> tuple[str, str]:
        first = await value(backend)
        await backend.put("github", secrets(value="ours"))
        return first, await value(backend)

    assert ("newer", "ours") == using(job)
    assert ["github (mcp-broker)", "github (mcp-broker, its versions)"] == there.labels()


def test_a_bus_that_is_not_there_is_an_error_with_the_way_out(tmp_path: Path) -> None:
    """Without a session bus nothing crashes: the error names the sealed store."""

    async def whole() -> tuple[str, str]:
        options = {"bus": f"unix:path={tmp_path}/nothing"}
        backend = from_config("desktop", options, Surroundings(mode="user", config=tmp_path, state=tmp_path))
        await backend.open()
        try:
            return await value(backend), (await backend.health()).state
        finally:
            await backend.close()

    hint = "on a machine without a desktop, keep the secret in the sealed store: mcp-broker secret set NAME"
    assert (f"UnavailableError: {hint}", "unavailable") == asyncio.run(whole())
