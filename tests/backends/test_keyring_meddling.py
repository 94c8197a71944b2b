"""What other programs of the same user, and a keyring that goes in the middle, do to what is kept in it."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

from keyring.errors import InitError

from backends.keyring_ring import LEDGERS
from backends.keyring_text import encode_names
from tests.backends.rings import over
from tests.contract.backend import issue, secrets
from tests.fakes.ring import Ring

if TYPE_CHECKING:
    from collections.abc import Sequence


class GoneBetween(Ring):
    """One that goes when a secret was written, before its ledger is; then it is back."""

    gone = False

    def set_password(self, service: str, username: str, password: str) -> None:
        """Keep an item, but no ledger while it is gone."""
        if self.gone and service == LEDGERS:
            raise InitError
        super().set_password(service, username, password)


def test_a_put_whose_ledger_is_lost_is_a_put(tmp_path: Path) -> None:
    """What is in the keyring was put: it is not called a failure, and the ledger follows with the same number."""
    ring = GoneBetween()
    backend = over(ring, tmp_path)

    async def whole() -> tuple[int, int, dict[str, str], int]:
        await backend.open()
        first = await backend.put("github", secrets(value="one"))
        ring.gone = True
        second = await backend.put("github", secrets(value="two"))
        ring.gone = False
        found = dict(await issue(backend, "github"))
        newest = (await backend.versions("github"))[0].number
        await backend.close()
        return first, second, found, newest

    assert (1, 2, {"value": "two"}, 2) == asyncio.run(whole())


def test_what_is_under_no_name_is_not_listed(tmp_path: Path) -> None:
    """Another program's item under a name that commands a terminal, or that fills the screen, is no secret of ours."""
    ring = Ring()
    names = frozenset({"github", "", "\x1b[31mred", "a\nb", "L" * 3000})
    ring.items["mcp-broker names", "all"] = encode_names(names)
    backend = over(ring, tmp_path)

    async def whole() -> "Sequence[str]":
        await backend.open()
        try:
            return await backend.list()
        finally:
            await backend.close()

    assert ["github"] == asyncio.run(whole())
