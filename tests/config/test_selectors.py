"""Selectors."""

import pwd

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.config.selectors import SelectorError, canonical, names_unit

FORMS = "write uid:N, gid:N, unit:NAME.service, user:NAME or group:NAME"
NUMBER = "the number is none of a user or group"
HIDDEN = "65534 is what the kernel shows for an identity that it hides: it proves nothing"
UNIT = "the name is none of a service unit"
INSTANCES = "write unit:NAME.service, or unit:NAME@.service for all instances"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("uid:0", "uid:0"),
        ("uid:1000", "uid:1000"),
        ("gid:4294967294", "gid:4294967294"),
        ("user:root", "uid:0"),
        ("group:root", "gid:0"),
        ("unit:mcp-app.service", "unit:mcp-app.service"),
        ("unit:mcp-app@7.service", "unit:mcp-app@7.service"),
        ("unit:mcp-app@.service", "unit:mcp-app@.service"),
        ("unit:a\\x2db.service", "unit:a\\x2db.service"),
        ("unit:users@1.service", "unit:users@1.service"),
    ],
)
def test_returns_the_attested_form(text: str, expected: str) -> None:
    """Users and groups become numbers; units stay as they are."""
    assert expected == canonical(text)


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("", "not a selector", FORMS),
        ("root", "not a selector", FORMS),
        ("UID:0", 'not a selector, the nearest known one is "uid"', FORMS),
        ("usr:root", 'not a selector, the nearest known one is "user"', FORMS),
        ("exe:/usr/bin/node", "exe is no selector: a process can forge it", FORMS),
        ("argv:node", "argv is no selector: a process can forge it", FORMS),
        ("uid:", NUMBER, FORMS),
        ("uid:-1", NUMBER, FORMS),
        ("uid:01", NUMBER, FORMS),
        ("uid:+1", NUMBER, FORMS),
        ("uid: 1", NUMBER, FORMS),
        ("uid:1_0", NUMBER, FORMS),
        ("uid:\u0661", NUMBER, FORMS),
        ("uid:1\n", NUMBER, FORMS),
        ("gid:4294967295", NUMBER, FORMS),
        ("uid:99999999999", NUMBER, FORMS),
        ("uid:65534", HIDDEN, "give the service a user of its own"),
        ("gid:65534", HIDDEN, "give the service a user of its own"),
        ("user:", "there is no such user", "getent passwd"),
        ("user:no such user", "there is no such user", "getent passwd"),
        ("user:\udcff", "there is no such user", "getent passwd"),
        ("group:no such group", "there is no such group", "getent group"),
        ("unit:", UNIT, INSTANCES),
        ("unit:mcp-app", UNIT, INSTANCES),
        ("unit:mcp-app.socket", UNIT, INSTANCES),
        ("unit:a/b.service", UNIT, INSTANCES),
        ("unit:*.service", UNIT, INSTANCES),
        ("unit:a.service\n", UNIT, INSTANCES),
        ("unit:@1.service", UNIT, INSTANCES),
        (f"unit:{'a' * 248}.service", UNIT, INSTANCES),
        (
            "unit:user@1000.service",
            "a unit of a user's manager proves nothing beyond the user",
            "write uid:N or user:NAME",
        ),
    ],
)
def test_refuses_what_proves_nothing(text: str, message: str, hint: str) -> None:
    """What is no selector, or could be forged or hidden, is refused with what may stand there."""
    with pytest.raises(SelectorError) as caught:
        canonical(text)
    assert (message, hint) == (caught.value.message, caught.value.hint)


def test_hidden_user_is_refused_by_name_as_well() -> None:
    """A name is no way around the refusal of a number."""
    hidden = [user.pw_name for user in pwd.getpwall() if user.pw_uid == 65534]
    for name in hidden:
        with pytest.raises(SelectorError, match="proves nothing"):
            canonical(f"user:{name}")


@pytest.mark.parametrize(("selector", "expected"), [("unit:a.service", True), ("uid:1", False), ("gid:1", False)])
def test_tells_units_from_users(selector: str, *, expected: bool) -> None:
    """Only a selector of a unit names one."""
    assert expected == names_unit(selector)


@given(
    st.text()
    | st.sampled_from(["uid:", "gid:", "unit:", "user:", "group:"]).flatmap(lambda k: st.text().map(k.__add__))
)
def test_never_raises_anything_but_its_error(text: str) -> None:
    """Any text is a selector that stays as it is when read again, or a ``SelectorError``."""
    try:
        selector = canonical(text)
    except SelectorError:
        return
    assert selector == canonical(selector)
