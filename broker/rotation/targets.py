"""
What is replaced: the secrets and backends of the config that have ``rotate``, and what replaces each.

This module refuses to guess: where nothing can replace a credential, it says what the config lacks.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from backends.base import Backend, Drawer, KeepingBackend, KeyedBackend
from backends.rotating import RotatingBackend, RotatingLoginBackend
from broker.config import Config, SecretConfig
from broker.config.model import LOCAL
from broker.config.replacing import GenerateConfig, RotateConfig
from broker.core.schedule import Timing
from broker.errors import ConfigError
from broker.rotation import oauth2, program
from broker.rotation.oauth2 import AccessToken, Fetch
from broker.rotation.program import Run
from broker.rotation.rotators import AtSource, Generated, Rotator
from broker.rotation.staging import staging
from broker.rotation.timing import rule, timing

OF_BACKENDS: Final = "backends."
"""What the names of backends' own keys and logins begin with. No secret's does: it holds no dot."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """
    One thing that is replaced.

    Attributes:
        name: of the secret, or ``backends.NAME``.
        backend: where it is.
        secret: as the config has it; None for a backend's own key or login.
        rotate: how and when.
        timing: when, ready to be asked.
        rule: when, in words.

    """

    name: str
    backend: str
    secret: SecretConfig | None
    rotate: RotateConfig
    timing: Timing
    rule: str


def targets(config: Config) -> Mapping[str, Target]:
    """Return everything that the config has replaced, by name."""
    found = {
        secret.name: _target(secret.name, secret.backend, secret.rotate, secret)
        for secret in config.secrets.values()
        if secret.rotate is not None
    }
    own = {
        name: _target(name, backend.name, backend.rotate)
        for backend in config.backends.values()
        if backend.rotate is not None and (name := OF_BACKENDS + backend.name)
    }
    return found | own


def _target(name: str, backend: str, rotate: RotateConfig, secret: SecretConfig | None = None) -> Target:
    return Target(name=name, backend=backend, secret=secret, rotate=rotate, timing=timing(rotate), rule=rule(rotate))


@dataclass(frozen=True, slots=True, kw_only=True)
class Workshop:
    """
    What rotators are made with.

    Attributes:
        backends: by name.
        locks: the directory of the files that running programs hold locked.
        clock: Unix seconds, UTC.
        run: runs an admin's program.
        fetch: asks a token endpoint.

    """

    backends: Mapping[str, Backend]
    locks: Path
    clock: Callable[[], float]
    run: Run = program.run
    fetch: Fetch = oauth2.fetch

    def rotator(self, target: Target) -> Rotator:
        """Return what replaces it. Raises ``ConfigError`` where nothing can."""
        backend = self.backends.get(target.backend)
        if backend is None:
            message = f"there is no backend {target.backend!r} yet"
            raise ConfigError(message, hint="mcp-broker stop: the next start makes it")
        if target.secret is None:
            return _own(backend, target.rotate)
        return self._of_secret(target, target.secret, backend)

    def _of_secret(self, target: Target, secret: SecretConfig, backend: Backend) -> Rotator:
        rotate = target.rotate
        if rotate.oauth2 is not None:
            return AccessToken(
                secret=target.name,
                staging=staging(backend, secret.path, self._drawer(target.name)),
                config=rotate.oauth2,
                local=self.backends[LOCAL],
                fetch=self.fetch,
                clock=self.clock,
            )
        if not rotate.command and rotate.generate is None:
            if isinstance(backend, RotatingBackend):
                return AtSource(lambda token: backend.rotate(secret.path, token=token))
            message = (
                f"nothing replaces it: backend {backend.name!r} does not, and there is neither a program nor a rule"
            )
            raise ConfigError(message, hint='rotate = { with = ["PROGRAM"] }, or generate = { length = 40 }')
        return Generated(
            secret=target.name,
            staging=staging(backend, secret.path, self._drawer(target.name)),
            rule=rotate.generate or GenerateConfig(),
            command=rotate.command,
            lock=self.locks / f"{target.name}.lock",
            run=self.run,
            clock=self.clock,
        )

    def _drawer(self, name: str) -> Drawer | None:
        local = self.backends.get(LOCAL)
        # No backend's name has a slash in it, so that their drawers are others.
        return local.drawer(f"rotation/{name}") if isinstance(local, KeepingBackend) else None


def _own(backend: Backend, rotate: RotateConfig) -> Rotator:
    if isinstance(backend, RotatingLoginBackend):
        return AtSource(lambda token: backend.rotate_login(token=token))
    if isinstance(backend, KeyedBackend):
        return AtSource(lambda _: backend.rotate_key(reencrypt=rotate.reencrypt))
    message = f"backend {backend.name!r} has no key or login of its own that could be replaced"
    raise ConfigError(message, hint=f"take rotate out of [backends.{backend.name}]")
