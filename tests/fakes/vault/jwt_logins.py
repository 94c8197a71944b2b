"""
Auth methods that take what somebody else has signed: JWTs, Kubernetes service accounts, certificates.

It refuses to ask anybody: keys, tokens and certificates are what a test has put in.
"""

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from tests.fakes.vault.logins import AuthMethod
from tests.fakes.vault.wire import Answer, Refusal, Request, bad


def _part(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def read_jwt(text: str) -> tuple[Mapping[str, Any], bytes, bytes]:
    """Return the claims, what was signed, and the signature. Raises ``ValueError``."""
    head, body, signature = text.split(".")
    claims: dict[str, Any] = json.loads(_part(body))
    return claims, f"{head}.{body}".encode(), _part(signature)


class Jwt(AuthMethod):
    """JWTs under RSA keys that ``config`` names (``jwt_validation_pubkeys``)."""

    kind = "jwt"

    def login(self, request: Request, name: str) -> Answer:
        """Take a role and a JWT."""
        role = str(request.body.get("role") or self.config.get("default_role") or "")
        entry = self.entries.get(f"role/{role}")
        if entry is None:
            raise bad(f'role "{role}" could not be found')
        claims = self._claims(str(request.body.get("jwt", "")))
        if float(claims.get("exp", 0)) + 150 <= self.vault.clock.now():
            raise bad("error validating token: invalid expiration time (exp) claim: token is expired")
        audience = claims.get("aud", [])
        audiences = {audience} if isinstance(audience, str) else set(audience)
        bound = entry.get("bound_audiences") or []
        if bound and not audiences & set(bound if isinstance(bound, list) else [bound]):
            text = "invalid audience (aud) claim: audience claim does not match any expected audience"
            raise bad(f"error validating token: {text}")
        name = str(claims.get(str(entry.get("user_claim", "sub")), ""))
        return self.token(request, entry, meta={"role": role}, name=f"jwt-{name}", path="login")

    def _claims(self, text: str) -> Mapping[str, Any]:
        try:
            claims, signed, signature = read_jwt(text)
        except (ValueError, binascii.Error):
            raise bad("error validating token: malformed jwt") from None
        for pem in self.config.get("jwt_validation_pubkeys", []):
            key = serialization.load_pem_public_key(str(pem).encode())
            try:
                if isinstance(key, rsa.RSAPublicKey):
                    key.verify(signature, signed, padding.PKCS1v15(), hashes.SHA256())
                    return claims
            except InvalidSignature:
                continue
        text = "error verifying token signature: no known key successfully validated the token signature"
        raise bad(f"error validating token: {text}")


class Kubernetes(AuthMethod):
    """
    Service accounts.

    Attributes:
        known: from each token that the cluster would know to the account: ``namespace:name``.

    """

    kind = "kubernetes"

    def login(self, request: Request, name: str) -> Answer:
        """Take a role and a service account's token."""
        role = str(request.body.get("role", ""))
        entry = self.entries.get(f"role/{role}")
        if entry is None:
            raise bad(f'invalid role name "{role}"')
        known: Mapping[str, str] = self.config.get("known_tokens", {})
        account = known.get(str(request.body.get("jwt", "")))
        if account is None:
            raise Refusal(403, "permission denied")
        space, _, name = account.partition(":")
        bound = (entry.get("bound_service_account_names", ["*"]), entry.get("bound_service_account_namespaces", ["*"]))
        for given, allowed in zip((name, space), bound, strict=True):
            if "*" not in allowed and given not in allowed:
                raise Refusal(403, "service account name not authorized")
        meta = {"role": role, "service_account_name": name, "service_account_namespace": space}
        return self.token(request, entry, meta=meta, name=f"kubernetes-{space}-{name}", path="login")


class Certificates(AuthMethod):
    """Certificates that were shown in the TLS handshake, below certificates that are entered here."""

    kind = "cert"

    def login(self, request: Request, name: str) -> Answer:
        """Take the certificate of the connection, and the name of an entry if there is one."""
        if request.peer is None:
            raise bad("no client certificate found")
        shown = x509.load_der_x509_certificate(request.peer)
        wanted = str(request.body.get("name") or "")
        for key, entry in self.entries.items():
            name = key.removeprefix("certs/")
            if wanted in {"", name} and _issued(entry, shown) and _named(entry, shown):
                meta = {"cert_name": name, "common_name": _common_name(shown)}
                return self.token(request, entry, meta=meta, name=f"cert-{name}", path="login")
        raise bad("invalid certificate or no client certificate supplied")


def _issued(entry: Mapping[str, Any], shown: x509.Certificate) -> bool:
    trusted = x509.load_pem_x509_certificate(str(entry["certificate"]).encode())
    try:
        shown.verify_directly_issued_by(trusted)
    except (ValueError, TypeError, InvalidSignature):
        return trusted == shown
    return True


def _named(entry: Mapping[str, Any], shown: x509.Certificate) -> bool:
    allowed = entry.get("allowed_common_names") or []
    return not allowed or _common_name(shown) in allowed


def _common_name(shown: x509.Certificate) -> str:
    names = shown.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    return str(names[0].value) if names else ""
