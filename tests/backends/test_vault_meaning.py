"""What a server's fault means to who asked: one error for each kind, in our words, with what mends it."""

import pytest

from backends.base import (
    BackendError,
    ConflictError,
    LeaseGoneError,
    MisconfiguredError,
    RefusedError,
    SecretNotFoundError,
    UnavailableError,
)
from backends.vault_meaning import WrongMethodError, deleted, meaning
from backends.vault_wire import Fault, Kind

ERRORS = {
    Kind.ABSENT: (SecretNotFoundError, "bao kv put secret/app NAME=-, or look: bao list"),
    Kind.DELETED: (SecretNotFoundError, "bao kv undelete -versions=N secret/app"),
    Kind.NO_ROUTE: (SecretNotFoundError, "bao secrets list"),
    Kind.VERSIONED: (SecretNotFoundError, "mcp-broker vault policy v; bao kv get secret/app"),
    Kind.LEASE_GONE: (LeaseGoneError, None),
    Kind.NOT_RENEWABLE: (RefusedError, None),
    Kind.WRAPPING_USED: (MisconfiguredError, "check path and params; try it: bao read secret/app"),
    Kind.STALE: (ConflictError, None),
    Kind.UNKNOWN_ROLE: (SecretNotFoundError, "bao read secret/app"),
    Kind.REFUSED: (MisconfiguredError, "check path and params; try it: bao read secret/app"),
    Kind.FORBIDDEN: (RefusedError, "mcp-broker vault policy v | bao policy write mcp-broker -"),
    Kind.WRONG_METHOD: (WrongMethodError, "params make it a write, and none a read"),
    Kind.TOO_LARGE: (MisconfiguredError, "check path and params; try it: bao read secret/app"),
    **dict.fromkeys(
        (
            Kind.LIMITED,
            Kind.SEALED,
            Kind.UNINITIALISED,
            Kind.NAMESPACE_LOCKED,
            Kind.STANDBY,
            Kind.REDIRECT,
            Kind.NOT_YET,
            Kind.INTERNAL,
            Kind.UPSTREAM,
            Kind.GARBLED,
        ),
        (UnavailableError, "mcp-broker status"),
    ),
}


def test_every_kind_has_an_error() -> None:
    """The table below holds every kind of fault that there is."""
    assert set(Kind) == set(ERRORS)


@pytest.mark.parametrize(("kind", "expected"), ERRORS.items(), ids=lambda each: getattr(each, "name", ""))
def test_a_kind_of_fault_is_one_error(kind: Kind, expected: tuple[type[BackendError], str | None]) -> None:
    """Each kind is told as one error, with the command that mends it where there is one."""
    error = meaning(Fault(kind=kind, status=418), what="secret/app", backend="v")
    assert expected == (type(error), error.hint)


@pytest.mark.parametrize("kind", list(Kind), ids=lambda each: each.name)
def test_a_message_is_in_our_words(kind: Kind) -> None:
    """A message begins in lower case and ends without a full stop."""
    message = meaning(Fault(kind=kind, status=418), what="secret/app", backend="v").message
    assert (True, False) == (message[0].islower(), message.endswith("."))


def test_only_what_was_surely_not_done_may_be_tried_again() -> None:
    """Of these errors the ones to try again are those of a server that cannot answer now."""
    tried_again = {kind for kind, (error, _) in ERRORS.items() if error.retryable}
    assert {kind for kind, (error, _) in ERRORS.items() if error is UnavailableError} == tried_again


def test_a_deleted_version_is_named() -> None:
    """What was deleted can be brought back, and the hint says how."""
    assert "this version of secret/app was deleted" == deleted("secret/app").message
