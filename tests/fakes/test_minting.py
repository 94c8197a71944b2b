"""
The minting backend keeps the contract that every backend keeps, and does the harm that it is told to do.
"""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from backends.base import Backend, Credential, LeaseGoneError, OutcomeUnknownError, RefusedError
from tests.contract.backend import BackendContract
from tests.fakes.minting import Minted, Minting, Preparing, Source


@pytest.fixture
def source(tmp_path: Path) -> Source:
    """Return a source that behaves well."""
    return Source(tmp_path / "source")


def backend_of(source: Source, **options: Any) -> Minting:  # noqa: ANN401
    """Return a backend that mints ``db`` at this source."""
    return Minting("minting", source.directory, {"roles": ["db"], **options})


class TestContract(BackendContract):
    """It is a backend like all others."""

    @pytest.fixture
    def made(self, source: Source) -> Backend:
        """Return one that is not open yet."""
        return backend_of(source)


def mint(backend: Minting) -> Credential:
    """Mint one credential."""
    return asyncio.run(backend.issue("db", params={}, intent="an-intent"))


def test_what_is_minted_is_on_record_at_the_source(source: Source) -> None:
    """The source knows what was minted, for which intent, and no value of it."""
    name = mint(backend_of(source)).backend_lease or ""
    expected = {name: Minted(name=name, path="db", intent="an-intent", renewals=0, revocations=0)}
    assert expected == source.minted()


def test_no_two_are_the_same(source: Source) -> None:
    """Each credential has a name and a value of its own."""
    first, second = mint(backend_of(source)), mint(backend_of(source))
    assert (False, False) == (first.values == second.values, first.backend_lease == second.backend_lease)


def test_what_is_revoked_is_valid_no_more(source: Source) -> None:
    """A revoked credential can be revoked again, and not renewed."""
    backend = backend_of(source)
    name = mint(backend).backend_lease or ""
    asyncio.run(backend.revoke(name))
    asyncio.run(backend.revoke(name))
    with pytest.raises(LeaseGoneError):
        asyncio.run(backend.renew(name, increment=1.0))
    assert {} == source.valid()


def test_a_renewal_gives_what_there_is(source: Source) -> None:
    """A renewal gives the time that is asked for, and no more than the source's own most."""
    backend = backend_of(source, ttl=60.0)
    name = mint(backend).backend_lease or ""
    given = [asyncio.run(backend.renew(name, increment=seconds)) for seconds in (10.0, 100.0)]
    assert ([10.0, 60.0], 2) == (given, source.minted()[name].renewals)


def test_a_refusal_mints_nothing(source: Source) -> None:
    """A source that refuses has done nothing."""
    source.behave(issue={"fail": "refused"})
    with pytest.raises(RefusedError):
        mint(backend_of(source))
    assert {} == source.minted()


def test_a_lost_answer_leaves_something_behind(source: Source) -> None:
    """A source whose answer is lost has minted all the same."""
    source.behave(issue={"lose": "unknown"})
    with pytest.raises(OutcomeUnknownError):
        mint(backend_of(source))
    assert 1 == len(source.valid())


def test_a_handle_takes_back_what_came_of_its_intent(source: Source) -> None:
    """What was minted for an intent is valid no more once its handle is revoked, and nothing else is affected."""
    backend = Preparing("minting", source.directory, {"roles": ["db"]})
    handle = asyncio.run(backend.prepare("db", params={}, intent="an-intent")).handle
    mint(backend)
    other = asyncio.run(backend.issue("db", params={}, intent="another")).backend_lease
    asyncio.run(backend.revoke(handle or ""))
    assert ([other], 1) == (list(source.valid()), source.count("prepared"))


def test_no_renewal_goes_beyond_the_most_that_one_lives(source: Source) -> None:
    """A source with a longest life gives less and less the nearer that is."""
    backend = backend_of(source, most=50)
    name = mint(backend).backend_lease or ""
    given = [asyncio.run(backend.renew(name, increment=seconds)) for seconds in (10.0, 100.0)]
    assert (10.0, True) == (given[0], 40 < given[1] <= 50)


def test_a_static_path_is_read_and_not_minted(source: Source) -> None:
    """What is static has the same value each time, and each reading is on record."""
    backend = backend_of(source, static=["kv"])
    found = [asyncio.run(backend.issue("kv", params={}, intent="any")).values for _ in range(2)]
    assert (True, False, 2, {}) == (found[0] == found[1], backend.mints("kv"), source.count("read"), source.minted())
