"""
The command as it is installed: from the wheel, into an environment whose path has a space in it.

Nothing here runs the working tree: a launcher that works only there is none.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import pytest

import broker

ROOT: Final = Path(__file__).resolve().parent.parent.parent
COMMANDS: Final = [["exec", "--help"], ["--version"]]

each_command = pytest.mark.parametrize("words", COMMANDS, ids=" ".join)


PIP: Final[list[str | Path]] = [sys.executable, "-I", "-m", "pip", "--disable-pip-version-check", "--quiet"]


def built(directory: Path, *, version: str = broker.__version__) -> Path:
    """Build the wheel, as another version if need be, below ``directory``; return it."""
    source = directory / "source"
    source.mkdir(parents=True)
    for name in ("broker", "backends", "bin"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    about = source / "broker/__init__.py"
    about.write_text(about.read_text().replace(f'"{broker.__version__}"', f'"{version}"'))
    subprocess.run(
        [*PIP, "wheel", "--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir", directory, source],
        check=True,
    )
    (wheel,) = directory.glob("*.whl")
    return wheel


def put(wheel: Path, python: Path) -> None:
    """Install a wheel into the environment of ``python``, in the place of any other version."""
    # What the environment of the tests says of Python must not reach pip: it would find this tree and be content.
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    command = [*PIP, "--python", python, "install", "--no-deps", "--no-index", "--force-reinstall", wheel]
    subprocess.run(command, check=True, env=clean)


def installed(directory: Path) -> Path:
    """Build the wheel, install it below ``directory`` and return the launcher."""
    wheel = built(directory)
    environment = directory / "with a space" / "venv"
    subprocess.run([sys.executable, "-I", "-m", "venv", "--without-pip", environment], check=True)
    python = environment / "bin" / "python"
    put(wheel, python)
    # What we depend on is here already: one line lends it.
    (site,) = (environment / "lib").glob("python3*/site-packages")
    (site / "lent.pth").write_text(sysconfig.get_paths()["purelib"])
    return environment / "bin" / "mcp-broker"


def run(command: Path | str, *words: str, cwd: Path, environment: Mapping[str, str]) -> tuple[int, str, str]:
    """Run a command to its end; return its status, its output and its errors."""
    found = subprocess.run(
        [command, *words],
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return found.returncode, found.stdout, found.stderr


@pytest.fixture(scope="module")
def launcher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the launcher of an installation from the wheel."""
    return installed(tmp_path_factory.mktemp("installation"))


@pytest.fixture(scope="module")
def clean() -> Mapping[str, str]:
    """Return as little of an environment as MCP clients pass on."""
    return {"HOME": "/nonexistent", "PATH": "/usr/bin:/bin"}


@pytest.fixture
def trap(tmp_path: Path) -> Path:
    """Return a directory in which everything that Python or a shell might pick up is a trap."""
    spring = "import os\nos.write(1, b'trapped\\n')\nos._exit(66)\n"
    modules = (
        "broker",
        "backends",
        "json",
        "os",
        "site",
        "sitecustomize",
        "usercustomize",
        "encodings",
        "_socket",
        "click",
    )
    for name in modules:
        (tmp_path / f"{name}.py").write_text(spring)
    (tmp_path / "broker").mkdir()
    for name in ("__init__", "__main__", "exec"):
        (tmp_path / "broker" / f"{name}.py").write_text(spring)
    (tmp_path / "rc").write_text("echo trapped; exit 66\n")
    return tmp_path


def hostile(trap: Path, clean: Mapping[str, str]) -> Mapping[str, str]:
    """Return an environment that points everything it can at the trap."""
    return {
        **clean,
        "PYTHONPATH": f"{trap}:.",
        "PYTHONHOME": str(trap),
        "PYTHONSTARTUP": str(trap / "os.py"),
        "PYTHONUSERBASE": str(trap),
        "PYTHONINSPECT": "1",
        "ENV": str(trap / "rc"),
        "BASH_ENV": str(trap / "rc"),
        "CDPATH": str(trap),
        "IFS": "/e",
    }


def test_the_installed_command_says_its_version(launcher: Path, clean: Mapping[str, str], tmp_path: Path) -> None:
    """The command that the wheel installs is of the version that was built."""
    status, out, _ = run(launcher, "--version", cwd=tmp_path, environment=clean)
    assert (0, [broker.__version__]) == (status, out.split()[-1:])


@each_command
def test_neither_directory_nor_environment_matter(
    launcher: Path, clean: Mapping[str, str], trap: Path, words: list[str]
) -> None:
    """What lies around where the caller stands, or what its environment points at, changes nothing."""
    expected = run(launcher, *words, cwd=Path("/"), environment=clean)
    assert (0, expected) == (expected[0], run(launcher, *words, cwd=trap, environment=hostile(trap, clean)))


@each_command
def test_the_trap_does_spring(trap: Path, clean: Mapping[str, str], words: list[str]) -> None:
    """A Python that nobody shut off would have run what lies around: the test above can fail."""
    exposed = {**clean, "PYTHONPATH": str(trap)}
    assert (66, "trapped\n") == run(sys.executable, "-m", "broker", *words, cwd=trap, environment=exposed)[:2]


@each_command
@pytest.mark.parametrize("link", ["absolute", "relative", "chained"])
def test_a_symlink_to_it_is_as_good(
    launcher: Path, clean: Mapping[str, str], tmp_path: Path, words: list[str], link: str
) -> None:
    """The command works through the symlinks that pipx and uv make, and through symlinks to those."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/absolute").symlink_to(launcher)
    (tmp_path / "bin/relative").symlink_to(os.path.relpath(launcher, tmp_path / "bin"))
    (tmp_path / "bin/chained").symlink_to("relative")
    expected = run(launcher, *words, cwd=tmp_path, environment=clean)
    assert (0, expected) == (expected[0], run(tmp_path / "bin" / link, *words, cwd=tmp_path, environment=clean))


@each_command
def test_it_is_found_in_the_path(launcher: Path, clean: Mapping[str, str], tmp_path: Path, words: list[str]) -> None:
    """The command works by its bare name, also where the PATH has nothing else."""
    expected = run(launcher, *words, cwd=tmp_path, environment=clean)
    alone = ["-c", 'PATH=$1; shift; exec mcp-broker "$@"', "sh", str(launcher.parent)]
    assert expected == run("/bin/sh", *alone, *words, cwd=tmp_path, environment=clean)


def test_exec_does_not_wait_for_what_others_put_into_the_environment(
    launcher: Path, clean: Mapping[str, str], tmp_path: Path
) -> None:
    """The ``.pth`` files of an environment are run for the other commands and not for exec."""
    (site,) = (launcher.parent.parent / "lib").glob("python3*/site-packages")
    (site / "slow.pth").write_text("import os; os.write(2, b'site')\n")
    waited = ["site" in run(launcher, *words, cwd=tmp_path, environment=clean)[2] for words in COMMANDS]
    (site / "slow.pth").unlink()
    assert [False, True] == waited


def test_without_a_python_beside_it_it_says_what_to_do(clean: Mapping[str, str], tmp_path: Path) -> None:
    """A launcher that was copied away from its environment refuses, with the command that mends it."""
    copy = shutil.copy(ROOT / "bin/mcp-broker", tmp_path / "mcp-broker")
    status, out, err = run(copy, "--version", cwd=tmp_path, environment=clean)
    assert (1, "", "hint: ") == (status, out, err.splitlines()[-1][:6])


def test_a_python_that_cannot_be_reached_is_told_from_none(clean: Mapping[str, str], tmp_path: Path) -> None:
    """Where the python beside it is a link that leads nowhere for this user, it says that, and what shows why."""
    shutil.copy(ROOT / "bin" / "mcp-broker", tmp_path / "mcp-broker")
    (tmp_path / "python").symlink_to(tmp_path / "closed" / "python")
    status, out, errors = run(tmp_path / "mcp-broker", "--version", cwd=tmp_path, environment=clean)
    assert (1, "", True) == (status, out, f"hint: namei -l {tmp_path}/python" in errors)
