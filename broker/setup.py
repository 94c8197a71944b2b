"""
What ``init`` does: the first config, the state directory, the master key.

Doing it twice changes nothing and says so. This module refuses to overwrite or
to mend what is there: whoever put it there may have had a reason, and a new key
for an old store would be the end of it.
"""

import os
import pwd
import stat
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import TimeoutError as LateError
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from backends import private_file
from backends.base import BackendError, MisconfiguredError, Surroundings
from backends.key_option import default_key_file, key_source
from backends.master_key import create_key_file, credential_key, credentials_directory
from backends.session_bus import require_found_by_a_daemon
from backends.worker import Worker
from broker import config
from broker.errors import BrokerError, ConfigError, IntegrityError
from broker.paths import Places, user
from broker.starter import starting_config

CREDENTIAL: Final = "mcp-broker-master-key"
"""The systemd credential that our units load."""

SERVICE_USER: Final = "mcp-broker"
"""The user that the system's broker runs as (``broker/units/sysusers.d``)."""

_CREDSTORE: Final = Path("/etc/credstore.encrypted")
_KEYRING_SECONDS: Final = 5.0

Kind = Literal["credential", "keyring", "file"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """
    A place for the master key, on this machine.

    Attributes:
        kind: which.
        usable: whether it works here and now.
        why: what speaks for it, or why it does not work.
        warning: what it does not protect against, or what is left to do for it; None for nothing.

    """

    kind: Kind
    usable: bool
    why: str
    warning: str | None = None


Choose = Callable[[Sequence[Choice]], Choice]
"""Asks somebody which of the choices, best first, to take."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One file or directory, and whether it was made now or was there."""

    path: Path
    created: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """
    What ``initialise`` did.

    Attributes:
        steps: every file and directory, in the order in which they were looked at.
        key: where the master key is, in words.
        why: why there.
        warnings: what somebody should know or do.

    """

    steps: Sequence[Step]
    key: str
    why: str
    warnings: Sequence[str] = ()

    @property
    def changed(self) -> bool:
        """Return whether anything was made."""
        return any(step.created for step in self.steps)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Owner:
    uid: int
    gid: int


def initialise(places: Places, *, choose: Choose | None = None) -> Report:
    """
    Make what a broker needs before its first start, where it is not there.

    Args:
        places: of which broker.
        choose: asks which key source to take; None for the best one that works.

    Raises:
        BrokerError: something is in the way.
        ConfigError: the config that is there is wrong.
        IntegrityError: there is a sealed store, and the key file that it needs has gone.

    """
    try:
        return _initialise(places, choose or _best)
    except MisconfiguredError as error:
        raise ConfigError(error.message, hint=error.hint) from None
    except OSError as error:
        message = f"{error.filename or places.state}: {(error.strerror or 'cannot be used').lower()}"
        system = places.mode == "system" and os.geteuid()
        hint = "sudo mcp-broker init --system" if system else f"ls -ld {error.filename or places.state}"
        raise BrokerError(message, hint=hint) from None


def choices(places: Places) -> Sequence[Choice]:
    """Return the places for a master key on this machine, best first: one that has been in use before all others."""
    offered = (_credential(places), _keyring(places), _file(places))
    if default_key_file(places.state).exists():
        return offered[::-1]
    return offered


def _initialise(places: Places, choose: Choose) -> Report:
    owner = _service_owner(places)
    steps = [
        _directory(places.config, mode=0o755 if places.mode == "system" else 0o700),
        _directory(places.config / "broker.d", mode=0o755 if places.mode == "system" else 0o700),
        _directory(places.state, mode=0o700, owner=owner),
    ]
    main = places.config / "broker.toml"
    warnings = [*_wide(places.state), *_no_service_user(places, owner)]
    if os.path.lexists(main):
        key = config.load(places).backends["local"].options.get("key", {})
        why, more = "the config says so", None
    else:
        offered = choices(places)
        choice = choose(offered)
        key, why, more = _option(choice), _reason(choice, offered), choice.warning
        warnings.append(_where_secrets_go(offered))
    source = key_source(key, _surroundings(places))
    steps.extend(_key_file(key, places, owner))
    steps.append(_config_file(main, starting_config(key, places.mode), places, owner))
    warnings.extend(text for text in (more, source.caution) if text)
    return Report(steps=steps, key=source.label, why=why, warnings=warnings)


def _best(offered: Sequence[Choice]) -> Choice:
    return next(choice for choice in offered if choice.usable)


def _reason(choice: Choice, offered: Sequence[Choice]) -> str:
    """Return what speaks for a choice, and against those that would have been better."""
    better = offered[: offered.index(choice)]
    return "; ".join([choice.why, *(each.why for each in better if not each.usable)])


def _where_secrets_go(offered: Sequence[Choice]) -> str:
    """Return where secrets are kept on this machine, which may have no desktop."""
    (ring,) = (choice for choice in offered if choice.kind == "keyring")
    if ring.usable:
        return 'secrets go into the sealed store, and with [backends.desktop] type = "keyring" into the keyring as well'
    return f"secrets go into the sealed store; no keyring is used: {ring.why}"


def _option(choice: Choice) -> Mapping[str, Any]:
    match choice.kind:
        case "credential":
            return {"credential": CREDENTIAL}
        case "keyring":
            return {"keyring": True}
        case "file":
            return {}  # the config need not say what holds anyway, and one that does not can begin to run before


def _credential(places: Places) -> Choice:
    directory = credentials_directory()
    if directory is not None and (directory / CREDENTIAL).exists():
        try:
            credential_key(CREDENTIAL, directory)
        except BackendError as error:
            return Choice(kind="credential", usable=False, why=error.message)
        return Choice(kind="credential", usable=True, why="systemd hands it to the unit and keeps it in no file")
    stored = _CREDSTORE / CREDENTIAL
    if places.mode == "system" and stored.exists():
        return Choice(
            kind="credential",
            usable=True,
            why=f"{stored} is there, sealed to this machine",
            warning=f"the unit has to load it: LoadCredentialEncrypted={CREDENTIAL} (systemctl edit mcp-broker)",
        )
    return Choice(kind="credential", usable=False, why=f"systemd has no credential {CREDENTIAL}")


def _keyring(places: Places) -> Choice:
    if places.mode == "system":
        return Choice(kind="keyring", usable=False, why="a service has no desktop, and so no keyring")
    if places.state != user().state:
        return Choice(kind="keyring", usable=False, why="a broker in a directory of its own keeps its key there, too")
    # 120 ms of imports, and it may ask somebody for a password.
    from backends.keyring_choice import default_name  # noqa: PLC0415
    from backends.keyring_key import probe  # noqa: PLC0415

    asking = Worker("keyring-probe")
    try:
        if default_name() == "secret-service":
            require_found_by_a_daemon()
        name = asking.submit(lambda: probe(_surroundings(places))).result(_KEYRING_SECONDS)
    except LateError:
        return Choice(kind="keyring", usable=False, why="the OS keyring waits for somebody to unlock it")
    except BackendError as error:
        return Choice(kind="keyring", usable=False, why=error.message)
    finally:
        asking.stop()
    return Choice(
        kind="keyring",
        usable=True,
        why=f"the OS keyring ({name}) works, and a copy of the disk does not hold it in clear",
        warning="the broker is locked until the keyring is unlocked, which a login on the desktop does",
    )


def _file(places: Places) -> Choice:
    path = default_key_file(places.state)
    why = f"{path} is there already" if path.exists() else f"{path} needs nothing but the disk"
    return Choice(kind="file", usable=True, why=why)


def _key_file(key: Mapping[str, Any], places: Places, owner: _Owner | None) -> Sequence[Step]:
    """Make the key file where the key is to be in one."""
    if key and "file" not in key:
        return ()
    path = places.config / Path(key["file"]).expanduser() if key else default_key_file(places.state)
    if path.exists():
        return (Step(path=path, created=False),)
    store = places.state / "sealed.db"
    if store.exists():
        message = f"the key file {path} has gone, and {store} was sealed with it"
        raise IntegrityError(message, hint=f"restore {path} from your backup of it")
    create_key_file(path, owner=None if owner is None else (owner.uid, owner.gid))
    return (Step(path=path, created=True),)


def _config_file(path: Path, text: str, places: Places, owner: _Owner | None) -> Step:
    if os.path.lexists(path):
        return Step(path=path, created=False)
    # In system mode it stays root's, and the broker's group may read it: who can write the config is above the broker.
    group = None if owner is None else (os.geteuid(), owner.gid)
    mode = 0o640 if places.mode == "system" and group is not None else 0o600
    private_file.create(path, text.encode(), mode=mode, owner=group)
    return Step(path=path, created=True)


def _directory(path: Path, *, mode: int, owner: _Owner | None = None) -> Step:
    if path.is_dir():
        return Step(path=path, created=False)
    path.mkdir(mode=mode, parents=True)
    # The umask may have narrowed it, and the system's broker has to read its config.
    path.chmod(mode)
    if owner is not None:
        os.chown(path, owner.uid, owner.gid)
    return Step(path=path, created=True)


def _service_owner(places: Places) -> _Owner | None:
    if places.mode != "system" or os.geteuid() != 0:
        return None
    try:
        user = pwd.getpwnam(SERVICE_USER)
    except KeyError:
        return None
    return _Owner(uid=user.pw_uid, gid=user.pw_gid)


def _no_service_user(places: Places, owner: _Owner | None) -> Sequence[str]:
    if places.mode != "system" or owner is not None:
        return ()
    return (f"there is no user {SERVICE_USER} for the broker to run as: systemd-sysusers makes it",)


def _wide(state: Path) -> Sequence[str]:
    if stat.S_IMODE(state.stat().st_mode) & 0o077:
        return (f"others can look into {state}: chmod 700 {state}",)
    return ()


def _surroundings(places: Places) -> Surroundings:
    return Surroundings(mode=places.mode, config=places.config, state=places.state)
