"""What ``rotate = { … }`` may say, and what is said of its mistakes."""

import pytest

from broker.config.effective import as_toml, effective
from broker.config.problems import InvalidConfigError
from broker.config.replacing import GenerateConfig, OAuth2Config, RotateConfig
from broker.config.rotate import ALPHABETS
from tests.config.build import config as built

OAUTH2 = 'oauth2 = { token_url = "https://id.example/token", client_id = "me", refresh_token = "first" }'


def rotation(text: str) -> RotateConfig | None:
    """Return what ``rotate`` of a secret says."""
    return built(f"[secrets.s]\nrotate = {{ {text} }}").secrets["s"].rotate


def mistakes(text: str) -> list[tuple[str, str]]:
    """Return the keys that are wrong with ``rotate`` of a secret, and what is said of each."""
    with pytest.raises(InvalidConfigError) as caught:
        rotation(text)
    return [(each.key.removeprefix("secrets.s.rotate").lstrip("."), each.text) for each in caught.value.problems]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('cron = "30 3 * * sun"', RotateConfig(cron="30 3 * * sun")),
        ('cron = " 0  4 1 * * "', RotateConfig(cron="0 4 1 * *")),
        (
            'cron = "0 4 * * mon-fri", timezone = "Europe/Berlin"',
            RotateConfig(cron="0 4 * * mon-fri", timezone="Europe/Berlin"),
        ),
        ('every = "1d", window = "02:00-05:30"', RotateConfig(every=86400, window=(120, 330))),
        ('every = "1d", window = "22:00 - 04:00"', RotateConfig(every=86400, window=(1320, 240))),
        ('every = "1d", jitter = "1h", max_age = "2d"', RotateConfig(every=86400, jitter=3600, max_age=172800)),
        ('with = ["p"], generate = { length = 20 }', RotateConfig(command=("p",), generate=GenerateConfig(length=20))),
        ('generate = { alphabet = "hex" }', RotateConfig(generate=GenerateConfig(alphabet=ALPHABETS["hex"]))),
        (
            'generate = { alphabet = "abcdef", format = "t_{}" }',
            RotateConfig(generate=GenerateConfig(alphabet="abcdef", format="t_{}")),
        ),
        (
            'generate = { field = "password", alternate = { username = ["a", "b"] } }',
            RotateConfig(generate=GenerateConfig(field="password", alternate={"username": ("a", "b")})),
        ),
        (
            OAUTH2,
            RotateConfig(
                oauth2=OAuth2Config(token_url="https://id.example/token", client_id="me", refresh_token="first")
            ),
        ),
    ],
)
def test_what_may_be_said(text: str, expected: RotateConfig) -> None:
    """Each form is read as it is meant."""
    assert expected == rotation(text)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ('grace = "1m"', ""),
        ('cron = "30 3 * *"', "cron"),
        ('cron = "30 3 * * 0"', "cron"),
        ('cron = "61 3 * * sun"', "cron"),
        ('every = "1d", timezone = "Middle/Earth"', "timezone"),
        ('every = "1d", timezone = "../../etc/passwd"', "timezone"),
        ('every = "1d", window = "2-5"', "window"),
        ('every = "1d", window = "02:00-02:00"', "window"),
        ('every = "1d", window = "24:00-02:00"', "window"),
        ('every = "2d", max_age = "1d"', "max_age"),
        ('every = "59s"', "every"),
        ("with = []", "with"),
        ("generate = { length = 5 }", "generate.length"),
        ('generate = { alphabet = "aab" }', "generate.alphabet"),
        ('generate = { alphabet = "a", length = 1000 }', "generate.length"),
        ('generate = { format = "none" }', "generate.format"),
        ('generate = { format = "{}{}" }', "generate.format"),
        ('generate = { alternate = { username = ["a", "a"] } }', "generate.alternate.username"),
        ('generate = { alternate = { username = ["a"] } }', "generate.alternate.username"),
        ('generate = { field = "u", alternate = { u = ["a", "b"] } }', "generate.alternate.u"),
        ('oauth2 = { client_id = "me", client_secret = "s" }', "oauth2"),
        ('oauth2 = { token_url = "https://id.example", client_id = "me" }', "oauth2"),
        ('oauth2 = { token_url = "http://id.example", client_id = "me", client_secret = "s" }', "oauth2.token_url"),
        (
            'oauth2 = { token_url = "https://u:p@id.example", client_id = "me", client_secret = "s" }',
            "oauth2.token_url",
        ),
        (f'{OAUTH2}, with = ["p"]', "oauth2"),
        ('every = "1d", evry = "1d"', "evry"),
    ],
)
def test_what_may_not(text: str, key: str) -> None:
    """Each mistake is noted at its key."""
    assert [key] == [found for found, _ in mistakes(text)]


def test_a_password_in_an_address_is_not_quoted() -> None:
    """What is said of a token endpoint with a password in it does not hold the password."""
    said = mistakes('oauth2 = { token_url = "https://u:hunter2@id.example", client_id = "me", client_secret = "s" }')
    assert "hunter2" not in str(said)


def test_a_backend_says_when_its_own_key_is_replaced() -> None:
    """The sealed store has a schedule for its master key, and its own options are not disturbed by it."""
    found = built('[backends.local]\nversions = 3\nrotate = { every = "90d", reencrypt = true }').backends["local"]
    assert (RotateConfig(every=7776000, grace=0.0, reencrypt=True), {"versions": 3}) == (
        found.rotate,
        dict(found.options),
    )


def test_a_backend_without_a_time_is_refused() -> None:
    """A table that does not say when is a mistake."""
    with pytest.raises(InvalidConfigError) as caught:
        built("[backends.local]\nrotate = { reencrypt = true }")
    assert ["backends.local.rotate"] == [each.key for each in caught.value.problems]


def test_the_effective_config_can_be_read_again() -> None:
    """What ``check`` prints of a rotation means the same when it is read."""
    text = """
        [backends.local]
        rotate = { every = "90d", reencrypt = true }
        [secrets.a]
        rotate = { every = "1d", cron = "0 4 * * *", timezone = "Europe/Berlin", window = "03:00-06:00", jitter = "5m",
          max_age = "3d", grace = "1h", with = ["p", "q"], generate = { alternate = { username = ["a", "b"] } } }
        [secrets.b]
        rotate = { oauth2 = { token_url = "https://id.example/token", client_id = "me", client_secret = "c" } }
    """.replace("\n          ", " ")
    config = built(text)
    again = built(as_toml(effective(config)))
    assert (config.secrets, config.backends) == (again.secrets, again.backends)


def test_one_credential_is_replaced_by_one_entry() -> None:
    """Two names for one path cannot both be replaced: each would undo what the other has set."""
    text = """
        [secrets.a]
        path = "one"
        rotate = { generate = {} }
        [secrets.one]
        rotate = { generate = {} }
        [secrets.c]
        path = "one"
    """
    with pytest.raises(InvalidConfigError) as caught:
        built(text)
    assert ["secrets.one.rotate"] == [each.key for each in caught.value.problems]
