"""
From ``[backends.local] key`` to the source that it names.

It refuses to choose: where the config names no source, it is the key file that
``init`` makes, and never whatever else there may be.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from backends.base import MisconfiguredError, Surroundings
from backends.master_key import Credential, KeyFile, KeySource, credentials_directory
from backends.options import Options

_WHERE: Final = "backends.local.key"
_KINDS: Final = ("file", "credential", "passphrase_file", "keyring")


def key_source(key: Mapping[str, Any], surroundings: Surroundings) -> KeySource:
    """Return the source that ``key`` names: one of ``file``, ``credential``, ``passphrase_file``, ``keyring``."""
    options = Options(_WHERE, key, known=_KINDS)
    match options.given():
        case ():
            return KeyFile(default_key_file(surroundings.state))
        case ("file",):
            return KeyFile(_path(options.text("file"), surroundings))
        case ("credential",):
            return Credential(_credential_name(options.text("credential")), credentials_directory())
        case ("passphrase_file",):
            from backends.passphrase import PassphraseFile  # noqa: PLC0415

            return PassphraseFile(_path(options.text("passphrase_file"), surroundings))
        case ("keyring",) if key["keyring"] is not False:
            from backends.keyring_key import from_option  # noqa: PLC0415

            named = isinstance(key["keyring"], str)
            chosen = options.text("keyring") if named else options.flag("keyring")
            return from_option(chosen, f"{_WHERE}.keyring", surroundings)
        case given:
            message = (
                f"{_WHERE} names {' and '.join(given)}: it has to be one of {', '.join(_KINDS)}, "
                "and keyring is true or a name"
            )
            raise MisconfiguredError(message)


def default_key_file(state: Path) -> Path:
    """Return where the key file is that ``init`` makes."""
    return state / "master.key"


def _path(text: str, surroundings: Surroundings) -> Path:
    return surroundings.config / Path(text).expanduser()


def _credential_name(name: str) -> str:
    if "/" in name or name.startswith("."):
        message = f"{_WHERE}.credential is a name, not a path"
        raise MisconfiguredError(message)
    return name
