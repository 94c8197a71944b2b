"""
New values by a rule.

The operating system's random numbers alone, through ``secrets``. This module
refuses to make a value that a config could not have asked for.
"""

import secrets
from collections.abc import Mapping
from typing import Final

from backends.base import Secret
from broker.config.replacing import GenerateConfig
from broker.errors import ConfigError

_USUAL: Final = ("value", "password")
"""The field that is generated where the config names none and there are several."""


def pending(current: Mapping[str, Secret], rule: GenerateConfig) -> dict[str, Secret]:
    """
    Return the fields that are to follow the current ones: one new, some at their other value, the rest as they are.

    Raises:
        ConfigError: it cannot be told which field is the one to generate.

    """
    chosen = rule.field or _chosen(current, rule)
    found = dict(current)
    for field, (first, second) in rule.alternate.items():
        # What is neither of the two is another user, who is left alone: the first takes over.
        found[field] = Secret(second if current.get(field) == Secret(first) else first)
    return found | {chosen: Secret(rule.format.replace("{}", drawn(rule)))}


def drawn(rule: GenerateConfig) -> str:
    """Return the random part of a value."""
    return "".join(secrets.choice(rule.alphabet) for _ in range(rule.length))


def _chosen(current: Mapping[str, Secret], rule: GenerateConfig) -> str:
    fields = current.keys() - rule.alternate.keys()
    if len(fields) == 1:
        return next(iter(fields))
    usual = [field for field in _USUAL if field in fields]
    if usual or not fields:
        return usual[0] if usual else ("password" if rule.alternate else "value")
    message = "it has several fields, and the config does not say which one is generated"
    raise ConfigError(message, hint='rotate.generate = { field = "password" }')
