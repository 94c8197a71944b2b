"""What a server's answers mean: every recorded one by a declared outcome, and every one that nobody has recorded."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.base import Secret
from backends.vault_wire import Answer, Fault, Kind, read
from tests.backends.vault_outcomes import OUTCOMES

VECTORS: Final = Path(__file__).parent.parent / "vectors/vault"
PAGE: Final = b"<html><body>502 Bad Gateway</body></html>"
ANY_JSON: Final = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)
ENVELOPE: Final = st.fixed_dictionaries(
    {},
    optional=dict.fromkeys(
        ("data", "lease_id", "lease_duration", "renewable", "warnings", "errors", "wrap_info", "sealed", "standby"),
        ANY_JSON,
    )
    | {
        "auth": ANY_JSON
        | st.fixed_dictionaries(
            {},
            optional=dict.fromkeys(
                ("client_token", "accessor", "policies", "lease_duration", "renewable", "metadata", "token_type"),
                ANY_JSON,
            ),
        )
    },
)


def recorded() -> list[tuple[str, str, Mapping[str, Any], str]]:
    """Return topic, name, answer and declared outcome of all that was recorded."""
    found = []
    for topic, text in OUTCOMES.items():
        declared = [line.split(" | ") for line in text.strip().splitlines()]
        steps = json.loads((VECTORS / f"{topic}.json").read_text())
        assert [name for name, _ in declared] == [step["name"] for step in steps]
        found += [
            (topic, step["name"], step["response"], outcome) for step, (_, outcome) in zip(steps, declared, strict=True)
        ]
    return found


def told(found: Answer | Fault) -> str:
    """Return what an answer means in the words of the table."""
    if isinstance(found, Fault):
        return f"{found.kind.name} {found.location or ''}".strip()
    auth = found.auth
    words = [
        "data" if found.data is not None else "",
        "lease" if found.lease_id else "",
        "renewable" if found.renewable else "",
        f"{found.lease_duration:g}s" if found.lease_duration else "",
        ""
        if auth is None
        else f"auth {auth.ttl:g}{' renewable' * auth.renewable}{' batch' * auth.batch} {auth.name!r}",
        "wrapped" * found.wrapped,
        "needs_mfa" * found.needs_mfa,
        "capped" * found.capped,
        "wrong_kv_path" * found.wrong_kv_path,
    ]
    return ", ".join(word for word in words if word) or "done"


def said(status: int, *errors: str, **more: Any) -> Answer | Fault:  # noqa: ANN401 -- any JSON
    """Return what an answer with these errors means."""
    return read(status, {}, json.dumps({"errors": list(errors), **more}).encode())


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [(answer, outcome) for _, _, answer, outcome in recorded()],
    ids=[f"{topic}: {name}" for topic, name, _, _ in recorded()],
)
def test_a_recorded_answer_means_what_is_declared(answer: Mapping[str, Any], outcome: str) -> None:
    """Each recorded answer is read as the table declares."""
    body = b"" if answer["body"] is None else json.dumps(answer["body"]).encode()
    headers = {name.lower(): text for name, text in answer["headers"].items()}
    assert outcome == told(read(answer["status"], headers, body))


def test_every_topic_that_was_recorded_is_declared() -> None:
    """No recorded file is left out of the table."""
    assert {path.stem for path in VECTORS.glob("*.json")} == set(OUTCOMES)


@pytest.mark.parametrize(
    ("status", "errors", "kind"),
    [
        (400, ["lease expired"], Kind.LEASE_GONE),
        (400, ["invalid accessor"], Kind.LEASE_GONE),
        (400, ["lease is not renewable"], Kind.NOT_RENEWABLE),
        (400, ["something else"], Kind.REFUSED),
        (401, ["permission denied"], Kind.FORBIDDEN),
        (404, [], Kind.ABSENT),
        (404, ["no handler for route"], Kind.NO_ROUTE),
        (412, ["required index state not present"], Kind.NOT_YET),
        (413, [], Kind.TOO_LARGE),
        (418, [], Kind.GARBLED),
        (429, ["rate limit quota exceeded"], Kind.LIMITED),
        (472, [], Kind.STANDBY),
        (473, [], Kind.LIMITED),
        (500, ["1 error occurred:\n\t* failed to write audit"], Kind.INTERNAL),
        (501, [], Kind.UNINITIALISED),
        (502, [], Kind.UPSTREAM),
        (503, ["no active node"], Kind.STANDBY),
        (503, ["Vault is sealed"], Kind.SEALED),
        (504, [], Kind.UPSTREAM),
        (507, [], Kind.INTERNAL),
        (199, [], Kind.GARBLED),
        (302, [], Kind.GARBLED),
    ],
)
def test_a_status_with_its_errors_means(status: int, errors: list[str], kind: Kind) -> None:
    """What nobody has recorded is read by its status, and by the few texts that are known."""
    assert Fault(kind=kind, status=status) == said(status, *errors)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (200, Kind.GARBLED),
        (400, Kind.GARBLED),
        (403, Kind.GARBLED),
        (404, Kind.GARBLED),
        (405, Kind.WRONG_METHOD),
        (429, Kind.LIMITED),
        (500, Kind.INTERNAL),
        (502, Kind.UPSTREAM),
        (503, Kind.UPSTREAM),
        (504, Kind.UPSTREAM),
    ],
)
def test_a_page_of_html_is_of_something_in_between(status: int, kind: Kind) -> None:
    """A proxy's page is never taken for a word of the server's own: no secret is absent because of it."""
    assert Fault(kind=kind, status=status) == read(status, {"content-type": "text/html"}, PAGE)


def test_half_an_answer_is_no_answer() -> None:
    """A body that was cut off in the middle is garbled, whatever its status says."""
    assert Fault(kind=Kind.GARBLED, status=200) == read(200, {}, b'{"data": {"token": "ghp_')


def test_bytes_that_are_no_text_are_no_answer() -> None:
    """A body that is not UTF-8 is garbled."""
    assert Fault(kind=Kind.GARBLED, status=200) == read(200, {}, b'{"lease_id": "\xff\xfe"}')


@pytest.mark.parametrize(
    ("text", "wait"),
    [
        ("7", 7.0),
        (" 7 ", 7.0),
        ("0", 0.0),
        ("86400", 300.0),
        ("9" * 400, 300.0),
        ("", None),
        ("-1", None),
        ("soon", None),
        ("\u0661", None),
        ("Wed, 21 Oct 2026 07:28:00 GMT", None),
    ],
)
def test_how_long_a_server_wants_us_to_wait(text: str, wait: float | None) -> None:
    """``Retry-After`` counts where it is a number of seconds, and five minutes at most."""
    found = read(429, {"retry-after": text}, b"{}")
    assert Fault(kind=Kind.LIMITED, status=429, wait=wait) == found


@pytest.mark.parametrize(
    ("text", "date"),
    [
        ("Mon, 23 Nov 2026 09:00:00 GMT", 1795424400.0),
        ("yesterday", None),
        ("1 Jan 99999999999999999999 00:00:00", None),
        ("Mon, 01 Jan 2026 00:00:00 +99999999999999999999", None),
        (None, None),
    ],
)
def test_the_clock_of_a_server(text: str | None, date: float | None) -> None:
    """``Date`` is read where it is one, and passed over where it is none."""
    found = read(200, {} if text is None else {"date": text}, b"{}")
    assert Answer(date=date) == found


@pytest.mark.parametrize("status", [307, 308])
def test_a_redirect_is_told_with_its_place(status: int) -> None:
    """A redirect is told with where it leads, and with nothing where it does not say."""
    there = read(status, {"location": "https://b:8200/v1/x"}, b"")
    nowhere = read(status, {}, PAGE)
    assert (
        Fault(kind=Kind.REDIRECT, status=status, location="https://b:8200/v1/x"),
        Fault(kind=Kind.REDIRECT, status=status, location=""),
    ) == (there, nowhere)


def test_a_login_that_wants_a_second_factor_holds_no_token() -> None:
    """A login with ``mfa_requirement`` and no token is told as that."""
    found = read(200, {}, b'{"auth": {"client_token": "", "mfa_requirement": {"mfa_request_id": "x"}}}')
    assert Answer(needs_mfa=True) == found


def test_a_login_holds_who_it_is() -> None:
    """A login tells its token, its name and its policies, those of the token where no others are."""
    auth = {"client_token": "t", "accessor": "a", "token_policies": ["p"], "metadata": {"username": "ann"}}
    found = read(200, {}, json.dumps({"auth": {**auth, "lease_duration": 60, "renewable": True}}).encode())
    assert isinstance(found, Answer)
    assert found.auth is not None
    assert (Secret("t"), "a", ["p"], "ann", 60.0, True, False) == (
        found.auth.token,
        found.auth.accessor,
        list(found.auth.policies),
        found.auth.name,
        found.auth.ttl,
        found.auth.renewable,
        found.auth.batch,
    )


def test_no_lifetime_is_negative_or_longer_than_a_date_can_say() -> None:
    """What a server says of seconds is bounded on both sides."""
    long = read(200, {}, b'{"lease_duration": 1e300, "auth": {"client_token": "t", "lease_duration": -5}}')
    assert isinstance(long, Answer)
    assert long.auth is not None
    assert (100 * 365 * 86400.0, 0.0) == (long.lease_duration, long.auth.ttl)


def test_no_token_is_in_the_repr_of_an_answer() -> None:
    """What a login gave shows itself in no message."""
    assert "s.topsecret" not in repr(read(200, {}, b'{"auth": {"client_token": "s.topsecret"}}'))


@given(
    status=st.integers(100, 599), body=st.binary(max_size=64), name=st.sampled_from(["date", "retry-after", "location"])
)
def test_no_bytes_ever_raise(status: int, body: bytes, name: str) -> None:
    """Any status with any bytes, in the body and in a header, is an answer or a fault."""
    found = read(status, {name: body.decode("latin-1")}, body)
    assert isinstance(found, (Answer, Fault))


@given(status=st.sampled_from([200, 204, 400, 403, 404, 429, 500, 503]), body=ENVELOPE)
def test_no_envelope_ever_raises(status: int, body: Mapping[str, Any]) -> None:
    """An envelope whose fields are of any type is an answer or a fault."""
    found = read(status, {}, json.dumps(body).encode())
    assert isinstance(found, (Answer, Fault))
