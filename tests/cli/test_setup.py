"""``init`` and ``check``: without a broker."""

from pathlib import Path

import pytest

from tests.cli.shell import shell, terminal


def test_init_makes_what_a_broker_needs_once(tmp_path: Path) -> None:
    """The first time everything is made, the second time nothing is changed, and both say so."""
    first, second = (shell("init", "--yes", "--dir", str(tmp_path)) for _ in range(2))
    assert (0, 0) == (first.status, second.status)
    made = {line.split()[1] for line in first.out.splitlines() if line.startswith("made ")}
    assert {f"{tmp_path}/{name}" for name in ("config", "config/broker.d", "state", "config/broker.toml")} <= made
    assert ("nothing was changed", False) == (second.out.splitlines()[-1], "made " in second.out)


def test_init_says_where_the_master_key_is(tmp_path: Path) -> None:
    """The choice is named, with what it does not protect against."""
    out = shell("init", "--yes", "--dir", str(tmp_path)).out
    assert (True, True) == ("the master key: " in out, "note: " in out)


def test_init_on_a_terminal_goes_on_without_a_choice_where_there_is_none(tmp_path: Path) -> None:
    """A terminal shows what does not work here, and is asked only where something is left to choose."""
    done = terminal("init", "--dir", str(tmp_path), typed={"where should the master key be?": ""})
    assert (0, True) == (done.status, "the master key: " in done.out)


def test_what_init_made_is_a_config_that_checks(tmp_path: Path) -> None:
    """The first config has no mistake in it."""
    shell("init", "--yes", "--dir", str(tmp_path))
    assert 0 == shell("check", "--dir", str(tmp_path)).status


def test_check_prints_the_effective_config(tmp_path: Path) -> None:
    """Defaults are filled in, and what is printed is a config itself."""
    (tmp_path / "broker.toml").write_text('[servers.a]\ncommand = ["true"]\nenv.T = "{token}"\n')
    done = shell("check", "--config", str(tmp_path / "broker.toml"), "--dir", str(tmp_path))
    (tmp_path / "again.toml").write_text(done.out)
    again = shell("check", "--config", str(tmp_path / "again.toml"), "--dir", str(tmp_path))
    assert (0, 0, True) == (done.status, again.status, 'selectors = ["uid:' in done.out)
    assert done.out == again.out


def test_check_warns_on_stderr_of_what_will_not_work(tmp_path: Path) -> None:
    """A warning names file, line and key, has a hint, and changes no status; --json has it as a row."""
    command = '["docker", "run", "-i", "image"]'
    (tmp_path / "c.toml").write_text(f'[servers.a]\ncommand = {command}\nenv.T = "{{token}}"\n')
    words = ["check", "--config", str(tmp_path / "c.toml"), "--dir", str(tmp_path)]
    done = shell(*words)
    assert (0, True, True) == (done.status, "warning: " in done.err, "c.toml:3: servers.a.env.T" in done.err)
    assert ["servers.a.env.T"] == [row["key"] for row in shell(*words, "--json").json["advice"]]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[servers.a]\ncomand = ['x']\n", ":2: "),
        ("[servers.a\n", ":1"),
        ("[backends.local]\ntype = 'sealed'\nkey.fil = 'x'\n", "backends.local"),
        ("[backends.v]\ntype = 'vautl'\n", ":2: backends.v.type"),
    ],
)
def test_check_ends_with_78_where_the_config_is_wrong(tmp_path: Path, text: str, says: str) -> None:
    """A mistake, also in a backend's own options, is named with its place and ends with 78."""
    (tmp_path / "c.toml").write_text(text)
    done = shell("check", "--config", str(tmp_path / "c.toml"), "--dir", str(tmp_path))
    assert (78, "", True) == (done.status, done.out, says in done.err)


def test_check_of_a_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    """A missing file is a mistake in the config, not an unexpected error."""
    done = shell("check", "--config", str(tmp_path / "nothing.toml"))
    assert (78, True) == (done.status, "nothing.toml" in done.err)
