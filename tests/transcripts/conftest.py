"""The command as the wheel installs it, in an environment without the extras."""

import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.test_launcher import installed
from tests.running import room


@pytest.fixture(scope="session")
def without_the_sdk() -> Iterator[Path]:
    """
    Return the command of an installation that has our dependencies and not the extra ``demo``.

    What we depend on is lent by links, all but the SDK, so that nothing has to
    be downloaded again. Every user can run it.
    """
    with room() as directory:
        command = installed(directory)
        lent = directory / "lent"
        lent.mkdir()
        for entry in Path(sysconfig.get_paths()["purelib"]).iterdir():
            if not entry.name.startswith("mcp") and entry.suffix != ".pth":
                (lent / entry.name).symlink_to(entry)
        (site,) = (command.parent.parent / "lib").glob("python3*/site-packages")
        (site / "lent.pth").write_text(str(lent))
        yield command
