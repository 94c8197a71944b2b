"""
Small engines, and the table of all kinds.

It refuses to guess: what is not in the table cannot be mounted.
"""

import base64
import hashlib
import hmac
import struct
from collections.abc import Callable, Mapping
from functools import partial
from http import HTTPStatus
from types import MappingProxyType
from typing import Any, Final

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from tests.fakes.vault import kv
from tests.fakes.vault.certificates import Accounts, Pki, Ssh
from tests.fakes.vault.core import Engine, Mount, Plain, Vault
from tests.fakes.vault.database import Database
from tests.fakes.vault.jwt_logins import Certificates, Jwt, Kubernetes
from tests.fakes.vault.logins import AppRole, Passwords
from tests.fakes.vault.system import SystemPaths
from tests.fakes.vault.token_paths import TokenPaths
from tests.fakes.vault.wire import NOTHING, Answer, Refusal, Request, bad, moment


class Totp(Plain):
    """Codes that change every thirty seconds."""

    kind = "totp"

    def __init__(self, vault: Vault) -> None:
        """Begin without keys."""
        self._vault = vault
        self._keys: dict[str, Mapping[str, Any]] = {}

    def answer(self, request: Request, rest: str) -> Answer:
        """Keep a key, or say the code of the moment."""
        verb, _, name = rest.partition("/")
        if verb == "keys" and request.writes:
            self._keys[name] = request.body
            return NOTHING
        if name not in self._keys:
            raise bad(f"unknown key: {name}")
        now = int(self._vault.clock.now())
        period = int(self._keys[name].get("period", 30))
        secret = str(self._keys[name].get("key", "MFRGGZDFMZTWQ2LK")).upper()
        secret += "=" * (-len(secret) % 8)
        digest = hmac.digest(base64.b32decode(secret), struct.pack(">Q", now // period), hashlib.sha1)
        at = digest[-1] & 15
        code = (int.from_bytes(digest[at : at + 4], "big") & 0x7FFFFFFF) % 1_000_000
        fields = {"code": f"{code:06d}", "expire_time": (now // period + 1) * period, "generated": now}
        return Answer(data=fields | {"period": f"{period}s"})


class Transit(Plain):
    """Keys that sign and never leave."""

    kind = "transit"

    def __init__(self, vault: Vault) -> None:
        """Begin without keys."""
        self._vault = vault
        self._keys: dict[str, tuple[ed25519.Ed25519PrivateKey, float]] = {}

    def answer(self, request: Request, rest: str) -> Answer:
        """Make a key, or sign with one."""
        verb, _, name = rest.partition("/")
        if verb == "keys" and request.writes:
            self._keys.setdefault(name, (ed25519.Ed25519PrivateKey.generate(), self._vault.clock.now()))
            return self._described(name)
        if verb == "export":
            raise bad("private key material is not exportable")
        if name not in self._keys:
            raise bad("signing key not found")
        if verb == "sign":
            signed = self._keys[name][0].sign(base64.b64decode(str(request.body.get("input", ""))))
            return Answer(data={"key_version": 1, "signature": f"vault:v1:{base64.b64encode(signed).decode()}"})
        if verb == "encrypt":
            raise bad("message encryption not supported for key type ed25519")
        raise Refusal(HTTPStatus.NOT_FOUND)

    def _described(self, name: str) -> Answer:
        key, made = self._keys[name]
        raw = key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        one = {"certificate_chain": "", "creation_time": moment(made), "name": "ed25519"}
        one["public_key"] = base64.b64encode(raw).decode()
        no = ("allow_plaintext_backup", "deletion_allowed", "derived", "exportable", "imported_key", "soft_deleted")
        yes = ("supports_derivation", "supports_signing")
        numbers = {"latest_version": 1, "min_decryption_version": 1}
        numbers |= dict.fromkeys(("auto_rotate_period", "min_available_version", "min_encryption_version"), 0)
        flags = dict.fromkeys((*no, "supports_decryption", "supports_encryption"), False) | dict.fromkeys(yes, True)
        return Answer(data=flags | numbers | {"keys": {"1": one}, "name": name, "type": "ed25519"})


class Cubbyhole(kv.Kv1):
    """What each token keeps for itself. Here one for all: nothing of ours looks into it."""

    kind = "cubbyhole"


_LDAP_WRONG: Final = "ldap operation failed: failed to bind as user"


def _ldap(vault: Vault, mount: Mount) -> Passwords:
    users = Passwords(vault, mount, wrong=_LDAP_WRONG)
    users.kind = "ldap"
    return users


def _make_accounts(kind: str, vault: Vault, mount: Mount) -> Accounts:
    del vault, mount
    return Accounts(kind)


MAKERS: Final[Mapping[str, Callable[[Vault, Mount], Engine]]] = MappingProxyType(
    {
        "system": lambda vault, _: SystemPaths(vault),
        "token": lambda vault, _: TokenPaths(vault),
        "cubbyhole": lambda _, __: Cubbyhole(),
        "kv": kv.make,
        "database": lambda vault, _: Database(vault),
        "pki": lambda vault, _: Pki(vault),
        "ssh": lambda _, __: Ssh(),
        "totp": lambda vault, _: Totp(vault),
        "transit": lambda vault, _: Transit(vault),
        "rabbitmq": partial(_make_accounts, "rabbitmq"),
        "aws": partial(_make_accounts, "aws"),
        "approle": AppRole,
        "userpass": Passwords,
        "ldap": _ldap,
        "jwt": Jwt,
        "kubernetes": Kubernetes,
        "cert": Certificates,
    }
)
"""Every kind that ``sys/mounts`` and ``sys/auth`` take."""
