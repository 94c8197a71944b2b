"""
The minting backend keeps the contract that every backend keeps, and does the harm that it is told to do.
"""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from backends.base import Backend, Credential, OutcomeUnknownError, RefusedError, SecretNotFoundError
from tests.contract.backend import BackendContract
from tests.fakes.minting import Minted, Minting, Source


@pytest.fixture
def source(tmp_path: Path) -> Source:
    """Return a source that behaves well."""
    return Source(tmp_path / "source")


def backend_of(source: Source, **options: Any) -> Minting:  # noqa: ANN401
    """Return a backend that mints ``db`` at this source."""
    return Minting(
        "minting", source.directory, **{"roles": frozenset({"db"}), "ttl": None, "renewable": True, **options}
    )


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
    with pytest.raises(SecretNotFoundError):
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
