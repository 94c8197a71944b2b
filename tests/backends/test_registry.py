"""Which backend is made for which type."""

import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from backends.base import MisconfiguredError, Surroundings
from backends.registry import BUILT_IN, GROUP, factory, kinds, make
from backends.sealed import SealedBackend
from tests.conftest import ROOT


def test_a_built_in_type_is_made(tmp_path: Path) -> None:
    """The type ``sealed`` is the sealed store."""
    surroundings = Surroundings(mode="user", config=tmp_path, state=tmp_path)
    assert isinstance(make("sealed", "local", {}, surroundings), SealedBackend)


def test_an_unknown_type_is_refused_with_the_nearest() -> None:
    """A misspelt type names the one that was meant."""
    with pytest.raises(MisconfiguredError) as caught:
        factory("seald")
    assert "there is no backend of type seald\nhint: did you mean sealed?" == str(caught.value)


def test_a_type_like_none_lists_all() -> None:
    """A type that is near to nothing lists what there is."""
    with pytest.raises(MisconfiguredError) as caught:
        factory("qqqq")
    assert f"there is {', '.join(kinds())}" == caught.value.hint


def test_every_built_in_type_has_its_factory() -> None:
    """Every line of the table leads to a factory."""
    made = {kind: factory(kind) for kind in BUILT_IN}
    assert BUILT_IN == {kind: f"{each.__module__}:{each.__name__}" for kind, each in made.items()}


def test_the_package_declares_what_the_table_says() -> None:
    """The entry points of the package and the table that saves asking for them say the same."""
    declared = {entry.name: entry.value for entry in metadata.entry_points(group=GROUP)}
    assert BUILT_IN == {name: declared.get(name) for name in BUILT_IN}


ASK = """
import sys
from backends.base import BackendError
from backends.registry import factory
try:
    print(factory(sys.argv[1]).__module__)
except BackendError as error:
    print(error)
"""


def ask(directory: Path, kind: str, *lines: str) -> str:
    """Ask for a type where another package has these entry points."""
    package = directory / "other-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text("\n".join([f"[{GROUP}]", *lines, ""]))
    (directory / "other_backend.py").write_text("def from_config(name, options, surroundings): ...\n")
    environment = {"PYTHONPATH": f"{ROOT}:{directory}"}
    done = subprocess.run(
        [sys.executable, "-c", ASK, kind], env=environment, cwd=directory, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_another_package_can_bring_a_type(tmp_path: Path) -> None:
    """A type that an entry point of another package names is made by that package."""
    assert "other_backend" == ask(tmp_path, "other", "other = other_backend:from_config")


def test_another_package_cannot_take_a_type_of_ours(tmp_path: Path) -> None:
    """An entry point called ``sealed`` in another package is passed over."""
    assert "backends.sealed" == ask(tmp_path, "sealed", "sealed = other_backend:from_config")


def test_a_type_that_cannot_be_loaded_says_so(tmp_path: Path) -> None:
    """An entry point that leads nowhere is an error that names where it leads."""
    expected = "the backend of type other cannot be loaded from other_backend:none: AttributeError"
    assert expected == ask(tmp_path, "other", "other = other_backend:none")
