"""
Engines that sign: certificates with real keys, and keys of users and hosts.

It refuses to check more of a role than its domains and its times.
"""

import uuid
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from tests.fakes.vault.core import Plain, Vault
from tests.fakes.vault.wire import NOTHING, Answer, Refusal, Request, Wanted, bad, random_name, seconds, unsupported

_LONGEST: Final = 2764800.0


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode().strip()


def _go(duration: float) -> str:
    """Return a duration with all its parts, as this one engine writes it."""
    return f"{int(duration) // 3600}h{int(duration) // 60 % 60}m{int(duration) % 60}s"


class Pki(Plain):
    """A certificate authority."""

    kind = "pki"

    def __init__(self, vault: Vault) -> None:
        """Begin without a root."""
        self._vault = vault
        self._key: ec.EllipticCurvePrivateKey | None = None
        self._root: x509.Certificate | None = None
        self._roles: dict[str, Mapping[str, Any]] = {}
        self.issued: set[str] = set()
        self.revoked: dict[str, float] = {}

    def answer(self, request: Request, rest: str) -> Answer:
        """Do what the first part of the path says."""
        verb, _, name = rest.partition("/")
        if rest == "root/generate/internal" and request.writes:
            return self._generate(request)
        if verb == "roles":
            if request.writes:
                self._roles[name] = request.body
            return Answer(data=dict(self._roles.get(name, {})))
        if verb in {"issue", "sign"} and request.writes:
            return self._issue(request, verb, name)
        if verb == "cert" and request.reads:
            return Answer(data={"certificate": "", "revocation_time": int(self.revoked.get(name, 0))})
        if verb == "revoke" and request.writes:
            return self._revoke_serial(str(request.body.get("serial_number", "")))
        if verb in {"issue", "sign", "revoke"}:
            raise unsupported()
        raise Refusal(HTTPStatus.NOT_FOUND)

    def _generate(self, request: Request) -> Answer:
        self._key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, str(request.body["common_name"]))])
        self._root = self._sign(subject, subject, self._key.public_key(), 86400.0, authority=True)
        fields = {"certificate": _pem(self._root), "issuing_ca": _pem(self._root), "serial_number": _serial(self._root)}
        return Answer(data=fields | {"expiration": int(self._root.not_valid_after_utc.timestamp())})

    def _issue(self, request: Request, verb: str, name: str) -> Answer:
        role = self._roles.get(name)
        if role is None:
            raise bad(f"unknown role: {name}")
        if verb == "sign":
            raise bad("csr contains no data")
        if self._root is None or self._key is None:
            raise bad("error fetching CA certificate: no CA configured")
        common = str(request.body.get("common_name", ""))
        if not _fits(role, common):
            raise bad(f"common name {common} not allowed by this role")
        longest = seconds(role.get("max_ttl")) or _LONGEST
        ttl = seconds(request.body.get("ttl")) or seconds(role.get("ttl")) or longest
        warnings = []
        if ttl > longest:
            said = f'TTL "{_go(ttl)}" is longer than permitted maxTTL "{_go(longest)}"'
            warnings, ttl = [f"{said}, so maxTTL is being used"], longest
        return self._made(common, ttl, warnings, leased=bool(role.get("generate_lease")))

    def _made(self, common: str, ttl: float, warnings: list[str], *, leased: bool) -> Answer:
        assert self._root is not None
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common)])
        made = self._sign(subject, self._root.subject, key.public_key(), ttl)
        shape = (serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL)
        private = key.private_bytes(*shape, serialization.NoEncryption()).decode().strip()
        fields = {
            "ca_chain": [_pem(self._root)],
            "certificate": _pem(made),
            "expiration": int(made.not_valid_after_utc.timestamp()),
            "issuing_ca": _pem(self._root),
            "not_before": int(made.not_valid_before_utc.timestamp()),
            "private_key": private,
            "private_key_type": "ec",
            "serial_number": _serial(made),
        }
        self.issued.add(_serial(made))
        lease = Wanted(ttl=ttl, max_ttl=ttl, renewable=False, internal={"serial": _serial(made)})
        return Answer(data=fields, warnings=warnings, lease=lease if leased else None)

    def _sign(
        self,
        subject: x509.Name,
        issuer: x509.Name,
        key: ec.EllipticCurvePublicKey,
        ttl: float,
        *,
        authority: bool = False,
    ) -> x509.Certificate:
        assert self._key is not None
        now = datetime.fromtimestamp(int(self._vault.clock.now()), UTC)
        builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key)
        builder = builder.serial_number(x509.random_serial_number()).not_valid_before(now - timedelta(seconds=30))
        builder = builder.not_valid_after(now + timedelta(seconds=ttl))
        builder = builder.add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        return builder.sign(self._key, hashes.SHA256())

    def _revoke_serial(self, serial: str) -> Answer:
        if serial not in self.issued:
            raise bad(f"certificate with serial {serial} not found.")
        at = self.revoked.setdefault(serial, self._vault.clock.now())
        stamp = datetime.fromtimestamp(int(at), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return Answer(data={"revocation_time": int(at), "revocation_time_rfc3339": stamp, "state": "revoked"})

    def revoke(self, internal: Mapping[str, Any]) -> None:
        """Revoke a certificate that had a lease."""
        self.revoked.setdefault(str(internal["serial"]), self._vault.clock.now())


def _fits(role: Mapping[str, Any], common: str) -> bool:
    domains = role.get("allowed_domains") or []
    names = domains.split(",") if isinstance(domains, str) else domains
    inside = bool(role.get("allow_subdomains"))
    bare = bool(role.get("allow_bare_domains"))
    fits = [(bare and common == name) or (inside and common.endswith(f".{name}")) for name in names]
    return bool(role.get("allow_any_name")) or any(fits)


def _serial(certificate: x509.Certificate) -> str:
    text = f"{certificate.serial_number:x}"
    text = text.zfill(len(text) + len(text) % 2)
    return ":".join(text[at : at + 2] for at in range(0, len(text), 2))


class Ssh(Plain):
    """Signed keys, and passwords that work once."""

    kind = "ssh"

    def __init__(self) -> None:
        """Begin with a key of its own."""
        self._key = ed25519.Ed25519PrivateKey.generate()
        self._roles: dict[str, Mapping[str, Any]] = {}
        self._issuer = str(uuid.uuid4())
        self.passwords: set[str] = set()

    def answer(self, request: Request, rest: str) -> Answer:
        """Do what the first part of the path says."""
        verb, _, name = rest.partition("/")
        if verb == "roles" and request.writes:
            self._roles[name] = request.body
            return NOTHING
        if rest == "config/ca" and request.writes:
            shape = (serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
            return Answer(data={"public_key": self._key.public_key().public_bytes(*shape).decode()})
        if not request.writes:
            raise unsupported()
        if name not in self._roles:
            raise bad(f"Unknown role: {name}" if verb == "sign" else f'Role "{name}" not found')
        return self._sign(request, name) if verb == "sign" else self._password(request, name)

    def _sign(self, request: Request, name: str) -> Answer:
        given = serialization.load_ssh_public_key(str(request.body.get("public_key", "")).encode())
        assert isinstance(given, ed25519.Ed25519PublicKey)
        role, serial = self._roles[name], uuid.uuid4().int >> 65
        now = int(datetime.now(UTC).timestamp())
        ttl = seconds(request.body.get("ttl")) or seconds(role.get("ttl")) or 3600
        users = str(request.body.get("valid_principals", "")).split(",")
        kind = serialization.SSHCertificateType.USER
        builder = serialization.SSHCertificateBuilder().public_key(given).serial(serial).type(kind)
        builder = builder.key_id(f"vault-root-{serial}".encode()).valid_principals([user.encode() for user in users])
        made = builder.valid_after(now - 30).valid_before(now + int(ttl)).sign(self._key)
        fields = {"issuer_id": self._issuer, "serial_number": f"{serial:x}"}
        return Answer(data=fields | {"signed_key": f"{made.public_bytes().decode()}\n"})

    def _password(self, request: Request, name: str) -> Answer:
        key = str(uuid.uuid4())
        self.passwords.add(key)
        user = self._roles[name].get("default_user", "ubuntu")
        fields = {"ip": request.body.get("ip", ""), "key": key, "key_type": "otp", "port": 22, "username": user}
        return Answer(data=fields, lease=Wanted(renewable=False, internal={"key": key}))

    def revoke(self, internal: Mapping[str, Any]) -> None:
        """Forget a password."""
        self.passwords.discard(str(internal["key"]))


class Accounts(Plain):
    """
    Engines that make an account somewhere else: ``rabbitmq``, ``aws``, ``ldap``.

    Attributes:
        living: the accounts that were made and not taken back.

    """

    def __init__(self, kind: str) -> None:
        """Begin without roles."""
        self.kind = kind
        self._roles: dict[str, Mapping[str, Any]] = {}
        self.living: set[str] = set()

    def answer(self, request: Request, rest: str) -> Answer:
        """Make an account, or keep a role."""
        verb, _, name = rest.partition("/")
        if verb in {"config", "roles", "role"}:
            self._roles[name] = request.body
            return NOTHING
        role = self._roles.get(name)
        if role is None:
            raise bad(f'Role "{name}" not found' if self.kind == "aws" else f"unknown role: {name}")
        user = f"root-{random_name(12)}"
        ttl = seconds(request.body.get("ttl")) or seconds(role.get("default_ttl"))
        if self.kind == "aws":
            return self._aws(verb, user, ttl)
        self.living.add(user)
        fields = {"username": user, "password": random_name(20)}
        return Answer(data=fields, lease=Wanted(ttl=ttl, max_ttl=seconds(role.get("max_ttl")), internal={"user": user}))

    def _aws(self, verb: str, user: str, ttl: float) -> Answer:
        temporary = verb == "sts"
        fields: dict[str, str | None] = {"access_key": f"AKIA{user[-12:]}", "secret_key": random_name(40)}
        fields |= {"security_token": random_name(60) if temporary else None, "arn": f"arn:aws:iam::1:user/{user}"}
        if not temporary:
            self.living.add(user)
        wanted = Wanted(ttl=ttl or (3600 if temporary else 0), renewable=not temporary, internal={"user": user})
        return Answer(data=fields, lease=wanted)

    def revoke(self, internal: Mapping[str, Any]) -> None:
        """Delete an account; what AWS has signed for a time cannot be taken back."""
        self.living.discard(str(internal["user"]))
