"""
How a credential is replaced, typed and frozen: what ``rotate = { … }`` says, with every default filled in.

It holds no secret and refuses to judge what was written: ``rotate`` does.
"""

import string
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field as made
from types import MappingProxyType
from typing import Final

from broker.config import duration

DEFAULT_GRACE: Final = 600.0
"""Seconds for which the previous version outlives a rotation where the config does not say."""


def _nothing() -> Mapping[str, tuple[str, str]]:
    return MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerateConfig:
    """
    What a new value looks like.

    Attributes:
        field: which field gets it; None for the only one, or ``password``.
        length: characters of it that are drawn.
        alphabet: what they are drawn from.
        format: what they are put into, in the place of ``{}``.
        alternate: fields that take turns between two values each, such as the names of two users.

    """

    field: str | None = None
    length: int = 40
    alphabet: str = string.ascii_letters + string.digits
    format: str = "{}"
    alternate: Mapping[str, tuple[str, str]] = made(default_factory=_nothing)


@dataclass(frozen=True, slots=True, kw_only=True)
class OAuth2Config:
    """
    Where an access token comes from.

    Attributes:
        token_url: the server's token endpoint.
        client_id: who we are there.
        client_secret: the name of the local secret that proves it; None for a public client.
        refresh_token: the name of the local secret that holds the refresh token; None for client credentials.
        scope: what is asked for; None for what the server gives.

    """

    token_url: str
    client_id: str
    client_secret: str | None = None
    refresh_token: str | None = None
    scope: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RotateConfig:
    """
    How and when a secret is replaced at its source.

    Attributes:
        every: seconds between rotations; None for only when asked.
        cron: minute, hour, day, month and weekday at which it is; None for none.
        timezone: whose wall clock ``cron`` and ``window`` mean.
        jitter: seconds by which it may come later.
        window: the minutes of the day between which it may happen; None for any.
        max_age: seconds that a version is promised not to outlive.
        command: what does it, its program and arguments; empty where the backend does.
        grace: seconds for which the previous version stays good.
        generate: what a new value looks like, where the config says so.
        oauth2: where an access token comes from, where it is one.
        reencrypt: for the master key: whether the values are sealed anew, too.

    """

    every: float | None = None
    cron: str | None = None
    timezone: str = "UTC"
    jitter: float = 0.0
    window: tuple[int, int] | None = None
    max_age: float | None = None
    command: tuple[str, ...] = ()
    grace: float = DEFAULT_GRACE
    generate: GenerateConfig | None = None
    oauth2: OAuth2Config | None = None
    reencrypt: bool = False


def in_words(rotate: RotateConfig) -> dict[str, object]:
    """Return what it says as a config has it, but for its program."""
    found: dict[str, object] = {}
    lengths = {"every": rotate.every, "jitter": rotate.jitter or None, "max_age": rotate.max_age}
    found |= {name: duration.text(length) for name, length in lengths.items() if length is not None}
    if rotate.cron is not None:
        found["cron"] = rotate.cron
    if rotate.window is not None:
        found["window"] = "{:02}:{:02}-{:02}:{:02}".format(*divmod(rotate.window[0], 60), *divmod(rotate.window[1], 60))
    if rotate.timezone != "UTC":
        found["timezone"] = rotate.timezone
    if rotate.generate is not None:
        found["generate"] = _generate_in_words(rotate.generate)
    if rotate.oauth2 is not None:
        said = {name: getattr(rotate.oauth2, name) for name in OAuth2Config.__dataclass_fields__}
        found["oauth2"] = {name: value for name, value in said.items() if value is not None}
    return found


def _generate_in_words(generate: GenerateConfig) -> dict[str, object]:
    found: dict[str, object] = {} if generate.field is None else {"field": generate.field}
    found |= {"length": generate.length, "alphabet": generate.alphabet, "format": generate.format}
    if generate.alternate:
        found["alternate"] = {name: list(values) for name, values in generate.alternate.items()}
    return found
