"""
What ``rotate = { … }`` says: when, by what, and what a new value looks like.

This module refuses what could mean two things: weekdays as numbers, which start
at Sunday here and at Monday there, and a rule that makes a value anybody could guess.
"""

import math
import re
import string
import urllib.parse
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Final

from broker.config.problems import WrongTextError
from broker.config.replacing import DEFAULT_GRACE, GenerateConfig, OAuth2Config, RotateConfig
from broker.config.table import Table

SHORTEST: Final = 60.0
"""Seconds between two rotations at least."""

LEAST_BITS: Final = 64
"""What it takes to guess a generated value, as a power of two, at least."""

ALPHABETS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "alphanumeric": string.ascii_letters + string.digits,
        "letters": string.ascii_letters,
        "digits": string.digits,
        "hex": "0123456789abcdef",
        "url": string.ascii_letters + string.digits + "-_",
        "symbols": string.ascii_letters + string.digits + "!#%*+,-./:=?@^_~",
    }
)
"""Alphabets with a name. Any other text is the alphabet itself."""

_WHEN: Final = frozenset({"every", "cron", "timezone", "jitter", "window", "max_age"})
_HOW: Final = frozenset({"with", "grace", "generate", "oauth2"})
_GENERATE: Final = frozenset({"field", "length", "alphabet", "format", "alternate"})
_OAUTH2: Final = frozenset({"token_url", "client_id", "client_secret", "refresh_token", "scope"})
_WINDOW: Final = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])-([01][0-9]|2[0-3]):([0-5][0-9])")
_FIELDS_OF_CRON: Final = 5
_MOST_CHARACTERS: Final = 1024
_EXAMPLE: Final = 'every = "30d", with = ["PROGRAM"], or both'


def of_secret(table: Table | None) -> RotateConfig | None:
    """Read ``rotate`` of a secret; what is wrong is noted."""
    if table is None:
        return None
    table.expect(_WHEN | _HOW)
    if not table.rows.keys() & {"every", "cron", "with", "generate", "oauth2"}:
        table.reject(text="says neither when nor how", hint=_EXAMPLE)
    command = table.take_words("with")
    if command is not None and (not command or not command[0]):
        table.reject("with", text="names no program")
    if "oauth2" in table.rows and table.rows.keys() & {"with", "generate"}:
        table.reject("oauth2", text="an access token comes from its server, not from a program or a rule")
    grace = table.take_seconds("grace")
    return replace(
        _when(table),
        command=command or (),
        grace=DEFAULT_GRACE if grace is None else grace,
        generate=_generate(table.take_table("generate")),
        oauth2=_oauth2(table.take_table("oauth2")),
    )


def of_backend(table: Table | None, *, keyed: bool) -> RotateConfig | None:
    """Read ``rotate`` of a backend: when its own key or login is replaced. What is wrong is noted."""
    if table is None:
        return None
    table.expect(_WHEN | ({"reencrypt"} if keyed else set()))
    if not table.rows.keys() & {"every", "cron"}:
        table.reject(text="does not say when", hint='every = "90d"')
    reencrypt = table.take_flag("reencrypt") if keyed else None
    return replace(_when(table), grace=0.0, reencrypt=reencrypt or False)


def _when(table: Table) -> RotateConfig:
    every = table.take_seconds("every", lowest=SHORTEST)
    max_age = table.take_seconds("max_age", lowest=SHORTEST)
    jitter = table.take_seconds("jitter") or 0.0
    if every is not None and max_age is not None and every + jitter > max_age:
        table.reject("max_age", text="is shorter than every and jitter together", hint="a promise needs some room")
    timezone = table.take_text("timezone")
    zone = None if timezone is None else table.read(_zone, timezone, "timezone")
    cron = table.take_text("cron")
    cron = None if cron is None else table.read(_cron, cron, "cron")
    window = table.take_text("window")
    return RotateConfig(
        every=every,
        cron=cron,
        timezone=zone or "UTC",
        jitter=jitter,
        window=None if window is None else table.read(_window, window, "window"),
        max_age=max_age,
    )


def _zone(name: str) -> str:
    import zoneinfo  # noqa: PLC0415 - few configs name one

    try:
        zoneinfo.ZoneInfo(name)
    except (ValueError, OSError, zoneinfo.ZoneInfoNotFoundError):
        message = "there is no such time zone here"
        raise WrongTextError(message, hint='"Europe/Berlin", for one, or "UTC"') from None
    return name


def _cron(text: str) -> str:
    from apscheduler.triggers.cron import CronTrigger  # noqa: PLC0415 - few configs have such a line

    fields = text.split()
    hint = '"30 3 * * sun": minute, hour, day of the month, month, day of the week'
    if len(fields) != _FIELDS_OF_CRON:
        message = f"has {len(fields)} fields, not {_FIELDS_OF_CRON}"
        raise WrongTextError(message, hint=hint)
    if re.search(r"[0-9]", fields[-1].partition("/")[0]):
        message = "has days of the week as numbers, which begin with Sunday here and with Monday there"
        raise WrongTextError(message, hint='write them as "mon-fri", or "sat,sun"')
    try:
        CronTrigger.from_crontab(text, timezone="UTC")
    except ValueError:
        message = "is no cron line"
        raise WrongTextError(message, hint=hint) from None
    return " ".join(fields)


def _window(text: str) -> tuple[int, int]:
    found = _WINDOW.fullmatch(text.replace(" ", ""))
    if found is None or (numbers := [int(each) for each in found.groups()])[:2] == numbers[2:]:
        message = "is no part of a day"
        raise WrongTextError(message, hint='"02:00-05:00", or "22:00-04:00" over midnight')
    return numbers[0] * 60 + numbers[1], numbers[2] * 60 + numbers[3]


def _generate(table: Table | None) -> GenerateConfig | None:
    if table is None:
        return None
    table.expect(_GENERATE)
    usual = GenerateConfig()
    named = table.take_text("alphabet")
    alphabet = usual.alphabet if named is None else ALPHABETS.get(named, named)
    length = table.take_count("length", lowest=1, highest=_MOST_CHARACTERS) or usual.length
    if len(set(alphabet)) != len(alphabet):
        # A letter that stands there twice comes twice as often: the value is easier to guess than it looks.
        table.reject("alphabet", text="has a character twice", hint=f"by name: {', '.join(ALPHABETS)}")
    elif length * math.log2(len(alphabet)) < LEAST_BITS:
        table.reject(
            "length", text=f"makes a value of less than {LEAST_BITS} bits", hint="a longer one, of more letters"
        )
    written = table.take_text("format") or usual.format
    if written.count("{}") != 1 or len(written) > _MOST_CHARACTERS:
        table.reject("format", text="has not exactly one {} for the random part", hint='format = "token_{}"')
    field = table.take_text("field")
    alternate = _alternate(table.take_table("alternate"))
    if field is not None and field in alternate:
        table.reject("alternate", field, text="is the field that is generated")
    return GenerateConfig(field=field, length=length, alphabet=alphabet, format=written, alternate=alternate)


def _alternate(table: Table | None) -> Mapping[str, tuple[str, str]]:
    found: dict[str, tuple[str, str]] = {}
    for name in () if table is None else table.rows:
        words = table.take_words(name) if table is not None else None
        match words:
            case (first, second) if first and second and first != second:
                found[name] = (first, second)
            case None:
                pass
            case _:
                assert table is not None
                table.reject(name, text="must be two different texts", hint='username = ["app_a", "app_b"]')
    return MappingProxyType(found)


def _oauth2(table: Table | None) -> OAuth2Config | None:
    if table is None:
        return None
    table.expect(_OAUTH2, {"token": "no secret stands in the config: refresh_token is the name of a local secret"})
    url, client = table.take_text("token_url"), table.take_text("client_id")
    for key in ("token_url", "client_id"):
        if key not in table.rows:
            table.reject(text=f"has no {key}", hint='token_url = "https://…", client_id = "…"')
    found = OAuth2Config(
        token_url="" if url is None else table.read(_url, url, "token_url") or "",
        client_id=client or "",
        client_secret=table.take_text("client_secret"),
        refresh_token=table.take_text("refresh_token"),
        scope=table.take_text("scope"),
    )
    if found.client_secret is None and found.refresh_token is None:
        table.reject(text="has neither a client_secret nor a refresh_token", hint="each is the name of a local secret")
    return found


def _url(text: str) -> str:
    if not _is_safe(text):
        message = "is no https:// address of a token endpoint"
        raise WrongTextError(message, hint="http:// is for this machine alone, and no password stands in an address")
    return text


def _is_safe(url: str) -> bool:
    try:
        parts = urllib.parse.urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return False
    schemes = {"https", "http"} if host in {"localhost", "127.0.0.1", "::1"} else {"https"}
    return host is not None and parts.scheme in schemes and parts.username is None and not parts.fragment
