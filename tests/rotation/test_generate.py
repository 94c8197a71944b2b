"""New values by a rule."""

import pytest

from backends.base import Secret
from broker.config.replacing import GenerateConfig
from broker.config.rotate import ALPHABETS
from broker.errors import ConfigError
from broker.rotation.generate import drawn, pending


def fields(**values: str) -> dict[str, Secret]:
    """Return fields with values."""
    return {field: Secret(value) for field, value in values.items()}


def test_a_value_is_drawn_from_the_alphabet() -> None:
    """It has the length and only the characters that the rule says, and all of them in time."""
    rule = GenerateConfig(length=500, alphabet=ALPHABETS["hex"])
    assert (500, set(ALPHABETS["hex"])) == (len(drawn(rule)), set(drawn(rule)))


def test_two_values_differ() -> None:
    """Nobody gets the same twice."""
    assert drawn(GenerateConfig()) != drawn(GenerateConfig())


def test_the_form_is_kept() -> None:
    """What stands around the random part stands around it."""
    found = pending(fields(value="old"), GenerateConfig(length=30, format="sk-{}-x"))["value"].expose()
    assert (True, True, 35) == (found.startswith("sk-"), found.endswith("-x"), len(found))


@pytest.mark.parametrize(
    ("current", "rule", "chosen"),
    [
        ({}, GenerateConfig(), "value"),
        ({"key": "x"}, GenerateConfig(), "key"),
        ({"username": "a", "password": "x"}, GenerateConfig(), "password"),
        ({"username": "a", "pin": "x"}, GenerateConfig(alternate={"username": ("a", "b")}), "pin"),
        ({"url": "u", "key": "x"}, GenerateConfig(field="key"), "key"),
        ({}, GenerateConfig(alternate={"username": ("a", "b")}), "password"),
    ],
)
def test_one_field_is_new(current: dict[str, str], rule: GenerateConfig, chosen: str) -> None:
    """The one that is named, or the only one, or the usual one; what does not take turns stays."""
    found = pending(fields(**current), rule)
    changed = {field for field in found if Secret(current.get(field, "")) != found[field]}
    assert {chosen} == changed - rule.alternate.keys()


def test_users_take_turns() -> None:
    """The second follows the first, the first the second, and the first anybody else."""
    rule = GenerateConfig(alternate={"username": ("a", "b")})
    found = [pending(fields(username=each, password="x"), rule)["username"].expose() for each in "abc"]
    assert ["b", "a", "a"] == found


def test_several_fields_and_no_word_is_a_mistake() -> None:
    """It is not guessed which field is the secret one."""
    with pytest.raises(ConfigError):
        pending(fields(url="u", key="x"), GenerateConfig())
