"""
The contract of a backend, as tests to inherit.

A backend's own tests subclass ``BackendContract``, or ``WritableBackendContract``
where an admin can write to it, say how to make one, and run all that is here.
The fixtures are the only thing to fill in; a test that a subclass leaves out
would be a promise that it breaks. Third parties can use this module, too: it
imports nothing but ``backends.base`` and pytest.
"""

import asyncio
import copy
import pickle
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from typing import Any, TypeVar

import pytest

from backends.base import (
    Backend,
    BackendError,
    Credential,
    RefusedError,
    Secret,
    SecretNotFoundError,
    UnavailableError,
    Version,
    WritableBackend,
)

_T = TypeVar("_T")

Run = Callable[[Coroutine[Any, Any, _T]], _T]
"""Runs a coroutine to its end on the loop that the backend lives on."""

SOON = 10.0
"""Seconds within which a change by another program is issued, where the test makes the backend remember no longer."""

STATES = frozenset({"ok", "locked", "unavailable", "misconfigured"})

UNICODE = "pä$$ wörd\n\t\0 ✓ 𝄞 \"'\\ {x} %s"
BIG = "0123456789abcdef" * (256 * 1024 // 16)


def secrets(**values: str) -> dict[str, Secret]:
    """Return fields with values, wrapped."""
    return {field: Secret(value) for field, value in values.items()}


def exposed(credential: Credential) -> Mapping[str, str]:
    """Return the values of a credential."""
    return {field: secret.expose() for field, secret in credential.values.items()}


async def issue(backend: Backend, path: str) -> Mapping[str, str]:
    """Return the values that the backend issues for ``path``."""
    return exposed(await backend.issue(path, params={}, intent="an-intent"))


class BackendContract:
    """What every backend does. A subclass defines the fixture ``made``: a backend that is not open yet."""

    @pytest.fixture
    def run(self) -> Iterator[Run[Any]]:
        """Run coroutines one after the other on one loop."""
        with asyncio.Runner() as runner:
            yield runner.run

    @pytest.fixture
    def backend(self, made: Backend, run: Run[Any]) -> Iterator[Backend]:
        """Open a backend for one test."""
        run(made.open())
        yield made
        run(made.close())

    def test_it_has_every_method_of_the_protocol(self, made: Backend) -> None:
        """It is a backend."""
        assert isinstance(made, Backend)

    def test_what_is_not_there_is_not_found(self, backend: Backend, run: Run[Any]) -> None:
        """Asking for a path that holds nothing says that it is not found, and how to mend it."""
        with pytest.raises(SecretNotFoundError) as caught:
            run(issue(backend, "no-such-secret"))
        assert caught.value.hint

    def test_its_health_is_told_in_one_of_four_words(self, backend: Backend, run: Run[Any]) -> None:
        """A backend that is open and answers is ``ok``."""
        assert "ok" == run(backend.health()).state

    def test_health_before_it_is_open_is_not_ok(self, made: Backend, run: Run[Any]) -> None:
        """A backend that nobody has opened does not claim to be well, and does not fail to say so."""
        assert run(made.health()).state in STATES - {"ok"}

    def test_closing_twice_is_harmless(self, made: Backend, run: Run[Any]) -> None:
        """What is closed can be closed again."""
        run(made.open())
        run(made.close())
        assert None is run(made.close())

    def test_whether_it_mints_is_known_without_asking_the_source(self, backend: Backend) -> None:
        """Whether an issue makes something that can be revoked is a plain yes or no."""
        assert isinstance(backend.mints("any"), bool)


class WritableBackendContract(BackendContract):
    """
    What a backend that can be written to does.

    A subclass also defines the fixture ``again``, which returns, each time it is
    called, another backend that is not open yet, over the same store, and the
    fixture ``elsewhere``: another program, which writes the value of a secret
    into the store in its own way, and returns whether that is allowed there.
    """

    @pytest.fixture
    def writable(self, backend: Backend) -> WritableBackend:
        """Return the open backend as one that can be written to."""
        assert isinstance(backend, WritableBackend)
        return backend

    def test_what_was_put_is_issued(self, writable: WritableBackend, run: Run[Any]) -> None:
        """The values that were put come back, all fields of them."""
        run(writable.put("db", secrets(username="app", password="hunter2")))
        assert {"username": "app", "password": "hunter2"} == run(issue(writable, "db"))

    def test_versions_count_from_one(self, writable: WritableBackend, run: Run[Any]) -> None:
        """The first version is 1, the next 2."""
        assert [1, 2] == [run(writable.put("db", secrets(value=text))) for text in ("old", "new")]

    def test_a_credential_says_which_version_it_is(self, writable: WritableBackend, run: Run[Any]) -> None:
        """What is issued carries the number that ``put`` returned."""
        run(writable.put("db", secrets(value="old")))
        number = run(writable.put("db", secrets(value="new")))
        assert number == run(writable.issue("db", params={}, intent="an-intent")).version

    def test_the_newest_version_is_issued(self, writable: WritableBackend, run: Run[Any]) -> None:
        """A put replaces all fields, those that it does not name included."""
        run(writable.put("db", secrets(username="app", password="old")))
        run(writable.put("db", secrets(value="new")))
        assert {"value": "new"} == run(issue(writable, "db"))

    def test_versions_are_listed_newest_first(self, writable: WritableBackend, run: Run[Any]) -> None:
        """Each version is listed with its number and its fields, and only the newest is current."""
        run(writable.put("db", secrets(value="old")))
        run(writable.put("db", secrets(username="app", password="new")))
        found = [(v.number, sorted(v.fields), v.current) for v in run(writable.versions("db"))]
        assert [(2, ["password", "username"], True), (1, ["value"], False)] == found

    def test_versions_are_in_order_of_time(self, writable: WritableBackend, run: Run[Any]) -> None:
        """A newer version was not written before an older one."""
        for text in ("1", "2", "3"):
            run(writable.put("db", secrets(value=text)))
        times = [version.created_at for version in run(writable.versions("db"))]
        assert sorted(times, reverse=True) == times

    def test_versions_of_nothing_are_not_found(self, writable: WritableBackend, run: Run[Any]) -> None:
        """A path that holds nothing has no versions, which is an error and not an empty list."""
        with pytest.raises(SecretNotFoundError):
            run(writable.versions("no-such-secret"))

    def test_paths_are_listed_sorted(self, writable: WritableBackend, run: Run[Any]) -> None:
        """Every path that holds a secret is listed once, in order."""
        for name in ("zeta", "alpha", "zeta", "mid"):
            run(writable.put(name, secrets(value="x")))
        assert ["alpha", "mid", "zeta"] == list(run(writable.list()))

    def test_what_was_deleted_has_gone(self, writable: WritableBackend, run: Run[Any]) -> None:
        """A deleted secret is neither issued nor listed."""
        run(writable.put("db", secrets(value="x")))
        run(writable.delete("db"))
        with pytest.raises(SecretNotFoundError):
            run(issue(writable, "db"))
        assert [] == list(run(writable.list()))

    def test_deleting_leaves_the_others(self, writable: WritableBackend, run: Run[Any]) -> None:
        """Only the named secret goes, whatever else begins like it."""
        for name in ("db", "db-2", "d"):
            run(writable.put(name, secrets(value=name)))
        run(writable.delete("db"))
        assert ["d", "db-2"] == list(run(writable.list()))

    def test_deleting_nothing_is_not_found(self, writable: WritableBackend, run: Run[Any]) -> None:
        """A path that holds nothing cannot be deleted."""
        with pytest.raises(SecretNotFoundError):
            run(writable.delete("no-such-secret"))

    def test_a_secret_without_fields_is_refused(self, writable: WritableBackend, run: Run[Any]) -> None:
        """There is no empty secret: a server would start without what it needs."""
        with pytest.raises(RefusedError):
            run(writable.put("db", {}))

    @pytest.mark.parametrize("value", [UNICODE, BIG, "", " ", "\n"], ids=["unicode", "256KiB", "empty", "space", "lf"])
    def test_a_value_comes_back_as_it_was(self, writable: WritableBackend, run: Run[Any], value: str) -> None:
        """Nothing in a value is stripped, escaped, or cut off."""
        run(writable.put("db", secrets(value=value)))
        assert value == run(issue(writable, "db"))["value"]

    def test_what_is_not_text_is_refused_without_being_quoted(self, writable: WritableBackend, run: Run[Any]) -> None:
        """Half a surrogate pair cannot be stored, and the error keeps the value to itself."""
        with pytest.raises(RefusedError) as caught:
            run(writable.put("db", secrets(value="canary\ud800")))
        assert ("canary" not in repr(caught.value), None) == (True, caught.value.__cause__)

    def test_a_secret_can_have_many_fields(self, writable: WritableBackend, run: Run[Any]) -> None:
        """Three hundred fields come back with their values."""
        values = {f"field_{number}": f"value {number}" for number in range(300)}
        run(writable.put("db", secrets(**values)))
        assert values == run(issue(writable, "db"))

    def test_puts_at_the_same_time_all_count(self, writable: WritableBackend, run: Run[Any]) -> None:
        """Each of many puts at once gets a number of its own, and the highest is what is issued."""

        async def many() -> tuple[list[int], str]:
            puts = (writable.put("db", secrets(value=str(number))) for number in range(8))
            numbers = await asyncio.gather(*puts)
            return sorted(numbers), (await issue(writable, "db"))["value"]

        numbers, value = run(many())
        assert (list(range(1, 9)), True) == (numbers, value in map(str, range(8)))

    def test_issues_during_puts_are_never_mixed(self, writable: WritableBackend, run: Run[Any]) -> None:
        """Whoever is issued a secret while it is written gets all fields of one version."""

        async def both() -> set[bool]:
            await writable.put("db", secrets(username="0", password="0"))
            writing = asyncio.gather(
                *(writable.put("db", secrets(username=str(n), password=str(n))) for n in range(1, 20))
            )
            whole = set()
            while not writing.done():
                values = await issue(writable, "db")
                whole.add(values["username"] == values["password"])
                await asyncio.sleep(0)
            await writing
            return whole

        assert {True} == run(both())

    def test_two_that_write_to_one_store_lose_nothing(
        self, made: WritableBackend, again: Callable[[], WritableBackend], run: Run[Any]
    ) -> None:
        """Where two backends write to one store at once, each put gets a number of its own, or is refused."""
        other = again()

        async def at_once() -> list[int | BaseException]:
            puts = [
                backend.put("db", secrets(username=str(number), password=str(number)))
                for number, backend in enumerate((made, other) * 4)
            ]
            return await asyncio.gather(*puts, return_exceptions=True)

        run(made.open())
        run(other.open())
        found = run(at_once())
        run(made.close())
        run(other.close())
        numbers = {number: str(place) for place, number in enumerate(found) if isinstance(number, int)}
        refused = [type(each) for each in found if not isinstance(each, int)]
        last = again()
        run(last.open())
        values = run(issue(last, "db"))
        run(last.close())
        assert ([*range(1, 9 - len(refused))], [UnavailableError] * len(refused)) == (sorted(numbers), refused)
        assert {"username": numbers[max(numbers)], "password": numbers[max(numbers)]} == values

    def test_a_change_by_another_program_is_taken_over_or_refused(
        self, writable: WritableBackend, elsewhere: Callable[[str, str], bool], run: Run[Any]
    ) -> None:
        """Another program's change is soon issued, as a version of its own, or it changes nothing of what is issued."""
        run(writable.put("db", secrets(value="ours")))
        run(issue(writable, "db"))
        allowed = elsewhere("db", "theirs")
        wanted = "theirs" if allowed else "ours"
        end = time.monotonic() + SOON
        while (found := run(issue(writable, "db"))["value"]) != wanted and time.monotonic() < end:
            run(asyncio.sleep(0.05))
        numbers = [version.number for version in run(writable.versions("db"))]
        assert (wanted, [2, 1] if allowed else [1]) == (found, numbers)

    def test_a_put_after_a_change_by_another_program_is_the_next_version(
        self, writable: WritableBackend, elsewhere: Callable[[str, str], bool], run: Run[Any]
    ) -> None:
        """What another program has written counts as a version, or it is not written over."""
        run(writable.put("db", secrets(value="ours")))
        number: int | str
        allowed = elsewhere("db", "theirs")
        try:
            number = run(writable.put("db", secrets(value="ours again")))
        except BackendError:
            number = "refused"
        assert (3 if allowed else "refused") == number

    def test_what_was_put_outlives_the_backend(
        self, made: WritableBackend, again: Callable[[], WritableBackend], run: Run[Any]
    ) -> None:
        """Another backend over the same store issues what the first one was given, with all versions."""
        run(made.open())
        run(made.put("db", secrets(value="old")))
        run(made.put("db", secrets(value=UNICODE)))
        before = run(made.versions("db"))
        run(made.close())
        other = again()
        run(other.open())
        found: tuple[Mapping[str, str], list[Version]] = (run(issue(other, "db")), list(run(other.versions("db"))))
        run(other.close())
        assert ({"value": UNICODE}, list(before)) == found

    def test_nothing_it_returns_shows_a_value(self, writable: WritableBackend, run: Run[Any]) -> None:
        """A credential, the versions and the health can be printed without a value in them."""
        run(writable.put("db", secrets(value="canary")))
        credential = run(writable.issue("db", params={}, intent="an-intent"))
        shown = f"{credential!r} {credential} {run(writable.versions('db'))!r} {run(writable.health())!r} {writable!r}"
        assert "canary" not in shown

    def test_what_is_issued_cannot_be_pickled_or_copied(self, writable: WritableBackend, run: Run[Any]) -> None:
        """A value leaves only by its name: pickling and copying a credential fail."""
        run(writable.put("db", secrets(value="canary")))
        credential = run(writable.issue("db", params={}, intent="an-intent"))
        for way in (pickle.dumps, copy.deepcopy):
            with pytest.raises(TypeError):
                way(credential)
