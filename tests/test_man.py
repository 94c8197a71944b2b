"""The man pages are made from the help texts: one for each command."""

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def test_each_command_has_a_page(tmp_path: Path) -> None:
    """A page has the usage, the text and the options, and roff finds no fault with it where there is one."""
    environment = {"PYTHONPATH": str(ROOT), "LANG": "C.UTF-8"}
    subprocess.run([sys.executable, ROOT / "tools/man.py", tmp_path], env=environment, check=True)
    pages = {path.stem: path.read_text() for path in tmp_path.glob("*.1")}
    assert {"mcp-broker", "mcp-broker-server", "mcp-broker-server-add", "mcp-broker-audit-verify"} <= pages.keys()
    add = pages["mcp-broker-server-add"]
    assert all(
        text in add for text in (".SH NAME", "\\-\\-dry\\-run", "mcp\\-broker server add [OPTIONS]", "without echo")
    )
    roff = shutil.which("groff")
    for path in tmp_path.glob("*.1") if roff else ():
        said = subprocess.run(
            [str(roff), "-man", "-Kutf8", "-Tutf8", "-ww", "-z", path], capture_output=True, check=True
        )
        assert b"" == said.stderr
