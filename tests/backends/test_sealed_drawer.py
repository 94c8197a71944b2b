"""What other backends keep in the sealed store: found by them alone, the latest alone, sealed like all else."""

from pathlib import Path

import pytest

from backends.base import Secret, SecretNotFoundError
from backends.sealed import SealedBackend
from tests.backends.places import sealed, using
from tests.contract.backend import issue, secrets


def test_what_a_drawer_holds_outlives_the_store(tmp_path: Path) -> None:
    """Another run over the same file finds what the last one kept."""

    async def keep(backend: SealedBackend) -> None:
        await backend.drawer("vault").write(Secret("old"))
        await backend.drawer("vault").write(Secret("new"))

    async def look(backend: SealedBackend) -> tuple[Secret | None, Secret | None]:
        return await backend.drawer("vault").read(), await backend.drawer("other").read()

    using(sealed(tmp_path), keep)
    assert (Secret("new"), None) == using(sealed(tmp_path), look)


def test_nothing_of_what_was_kept_before_stays(tmp_path: Path) -> None:
    """A drawer has one version, however often it was written, and none once it was emptied."""

    async def rows(backend: SealedBackend) -> list[int]:
        counts = []
        for value in (Secret("first"), Secret("second"), None):
            await backend.drawer("vault").write(value)
            view = backend._store.view  # noqa: SLF001 -- no way of its own shows a drawer
            counts.append(0 if view is None else len(view.digests))
        return counts

    assert [1, 1, 0] == using(sealed(tmp_path), rows)


def test_no_config_and_no_list_reaches_a_drawer(tmp_path: Path) -> None:
    """Whatever path somebody writes, a drawer is neither issued, shown nor counted."""

    async def look(backend: SealedBackend) -> tuple[list[str], str]:
        await backend.drawer("vault").write(Secret("canary"))
        await backend.put("github", secrets(value="x"))
        for path in ("vault", "\x1fvault"):
            with pytest.raises(SecretNotFoundError):
                await issue(backend, path)
            with pytest.raises(SecretNotFoundError):
                await backend.versions(path)
        return list(await backend.list()), (await backend.health()).detail

    listed, detail = using(sealed(tmp_path), look)
    assert (["github"], True) == (listed, detail.startswith("1 secret,"))


def test_a_drawer_moves_with_a_new_key(tmp_path: Path) -> None:
    """A rotation that seals everything anew seals drawers, too."""

    async def rotate(backend: SealedBackend) -> Secret | None:
        await backend.drawer("vault").write(Secret("kept"))
        await backend.rotate_key(reencrypt=True)
        return await backend.drawer("vault").read()

    assert Secret("kept") == using(sealed(tmp_path), rotate)
