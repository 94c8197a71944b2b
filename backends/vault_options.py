"""
What ``[backends.NAME]`` of type ``vault`` may say, read strictly into frozen shapes.

It refuses plain HTTP to anywhere but this machine, an address with a user, a
path or a query in it, two ways to log in, and none.
"""

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import urlsplit

from backends.base import MisconfiguredError, Surroundings
from backends.options import Options

Method = Literal["token", "approle", "userpass", "ldap", "jwt", "kubernetes", "cert"]

KUBERNETES_TOKEN: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")
"""Where a pod finds the token of its service account."""

_KNOWN: Final = (
    "address",
    "addresses",
    "auth",
    "ca_file",
    "cache",
    "child_tokens",
    "client_cert_file",
    "client_key_file",
    "namespace",
    "server_name",
    "timeout",
    "unsafe_http",
)
_AUTH: Final[Mapping[Method, Sequence[str]]] = {
    "token": ("file",),
    "approle": (
        "role_id",
        "role_id_file",
        "secret_id_file",
        "secret_id_credential",
        "wrapped_secret_id_file",
        "creation_path",
        "mount",
    ),
    "userpass": ("username", "password_file", "mount"),
    "ldap": ("username", "password_file", "mount"),
    "jwt": ("role", "token_file", "mount"),
    "kubernetes": ("role", "token_file", "mount"),
    "cert": ("name", "mount"),
}
_HTTPS_PORT: Final = 443
_HTTP_PORT: Final = 80


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """
    One place where a server listens.

    Attributes:
        scheme: ``https``, ``http``, or ``unix``.
        host: name or number; for ``unix`` the path of the socket.
        port: 0 for ``unix``.

    """

    scheme: str
    host: str
    port: int

    def __str__(self) -> str:
        """Return it as the config writes it."""
        if self.scheme == "unix":
            return f"unix://{self.host}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """
    Where one part of a login is read from, each time anew.

    Attributes:
        path: the file.
        private: whether others must not be able to read it.

    """

    path: Path
    private: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """
    How the broker logs in.

    Attributes:
        method: which.
        mount: of the auth method, without ``auth/``.
        name: the role, the user name, or the name of a certificate role; empty where there is none.
        name_file: where the name is read from instead.
        proof: what proves it: a secret-id, a password, a token; None for ``cert``.
        wrapped: whether ``proof`` is the token of a wrapped secret-id.
        creation_path: where a wrapped secret-id must have been made.

    """

    method: Method
    mount: str = ""
    name: str = ""
    name_file: Source | None = None
    proof: Source | None = None
    wrapped: bool = False
    creation_path: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class VaultOptions:
    """
    The whole table.

    Attributes:
        addresses: at least one; which of them is asked is decided while it runs.
        login: how.
        namespace: sent with every request; empty for none.
        ca_file: certificates to trust instead of the system's.
        client_cert_file: shown to the server, with its key in it or in ``client_key_file``.
        client_key_file: see above.
        server_name: asked for and looked for in the server's certificate instead of the host.
        timeout: seconds that one request may take.
        cache: seconds for which a static value that was read counts as current.
        child_tokens: whether each dynamic credential is minted under a token of its own; None for where it is allowed.

    """

    addresses: Sequence[Address]
    login: Login
    namespace: str = ""
    ca_file: Path | None = None
    client_cert_file: Path | None = None
    client_key_file: Path | None = None
    server_name: str | None = None
    timeout: float = 10.0
    cache: float = 30.0
    child_tokens: bool | None = None


def read(name: str, options: Mapping[str, Any], surroundings: Surroundings) -> VaultOptions:
    """Return what ``[backends.NAME]`` says. Raises ``MisconfiguredError``."""
    where = f"backends.{name}"
    chosen = Options(where, options, known=_KNOWN)
    given = set(chosen.given())
    if ("address" in given) == ("addresses" in given):
        message = f"{where} needs address or addresses, one of the two"
        raise MisconfiguredError(message, hint=f'address = "https://vault.example:8200" in [{where}]')
    unsafe = "unsafe_http" in given and chosen.flag("unsafe_http")
    texts = [chosen.text("address")] if "address" in given else chosen.texts("addresses")
    key = "address" if "address" in given else "addresses"
    addresses = tuple(_address(f"{where}.{key}", text, unsafe=unsafe) for text in texts)
    if not addresses:
        message = f"{where}.addresses is empty"
        raise MisconfiguredError(message, hint='addresses = ["https://vault-1.example:8200", …]')

    def path(key: str) -> Path | None:
        return surroundings.config / chosen.text(key) if key in given else None

    if "client_key_file" in given and "client_cert_file" not in given:
        message = f"{where}.client_key_file is of no use without client_cert_file"
        raise MisconfiguredError(message, hint=f"add client_cert_file to [{where}]")
    login = _login(where, chosen.table("auth"), surroundings)
    if login.method == "cert" and "client_cert_file" not in given:
        message = f"{where}.auth.cert needs client_cert_file"
        raise MisconfiguredError(message, hint=f"add client_cert_file and client_key_file to [{where}]")
    return VaultOptions(
        addresses=addresses,
        login=login,
        namespace=chosen.text("namespace").strip("/") if "namespace" in given else "",
        ca_file=path("ca_file"),
        client_cert_file=path("client_cert_file"),
        client_key_file=path("client_key_file"),
        server_name=chosen.text("server_name") if "server_name" in given else None,
        timeout=chosen.seconds("timeout", default=10.0, least=0.1, most=25.0),
        cache=chosen.seconds("cache", default=30.0, least=0.0, most=86400.0),
        child_tokens=chosen.flag("child_tokens") if "child_tokens" in given else None,
    )


def _address(where: str, text: str, *, unsafe: bool) -> Address:
    hint = 'write "https://vault.example:8200", or "unix:///run/vault-agent.sock"'
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    if parts.scheme == "unix" and not parts.netloc and parts.path.startswith("/"):
        return Address(scheme="unix", host=parts.path, port=0)
    plain = parts.scheme in {"http", "https"} and parts.hostname and not parts.username and not parts.password
    if not plain or parts.path.strip("/") or parts.query or parts.fragment or not text.isprintable():
        message = f"{where} is not the address of a server"
        raise MisconfiguredError(message, hint=hint)
    host = str(parts.hostname)
    if parts.scheme == "http" and not unsafe and not _is_loopback(host):
        message = f"{where} is plain http to another machine: whoever is in between reads every secret"
        raise MisconfiguredError(message, hint="use https, or say unsafe_http = true")
    default = _HTTPS_PORT if parts.scheme == "https" else _HTTP_PORT
    return Address(scheme=parts.scheme, host=host, port=port or default)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _login(where: str, table: Mapping[str, Any], surroundings: Surroundings) -> Login:
    known = ", ".join(_AUTH)
    chosen = Options(f"{where}.auth", table, known=tuple(_AUTH))
    if len(chosen.given()) != 1:
        message = f"{where}.auth says {'more than one way' if table else 'no way'} to log in"
        raise MisconfiguredError(message, hint=f"add one of auth.{known.replace(', ', ', auth.')} to [{where}]")
    method: Method = next(each for each in _AUTH if each in table)
    inside = Options(f"{where}.auth.{method}", chosen.table(method), known=_AUTH[method])
    return _of_method(method, inside, surroundings)


def _of_method(method: Method, chosen: Options, surroundings: Surroundings) -> Login:
    given = set(chosen.given())

    def source(key: str, *, private: bool = True) -> Source:
        return Source(path=surroundings.config / chosen.text(key), private=private)

    mount = chosen.text("mount").strip("/") if "mount" in given else method
    match method:
        case "token":
            return Login(method=method, proof=source("file"))
        case "approle":
            return _approle(chosen, mount, source)
        case "userpass" | "ldap":
            return Login(method=method, mount=mount, name=chosen.text("username"), proof=source("password_file"))
        case "jwt" | "kubernetes":
            default = Source(path=KUBERNETES_TOKEN, private=False)
            here = source("token_file", private=False) if method == "jwt" or "token_file" in given else default
            return Login(method=method, mount=mount, name=chosen.text("role"), proof=here)
        case _:
            # A certificate is shown by the connection.
            return Login(method=method, mount=mount, name=chosen.text("name") if "name" in given else "")


def _approle(chosen: Options, mount: str, source: Any) -> Login:  # noqa: ANN401 -- a closure of ``_of_method``
    given = set(chosen.given())
    if ("role_id" in given) == ("role_id_file" in given):
        message = f"{chosen.where} needs role_id or role_id_file, one of the two"
        raise MisconfiguredError(message, hint=f"bao read auth/{mount}/role/ROLE/role-id, and put it as role_id there")
    proofs = [key for key in ("secret_id_file", "secret_id_credential", "wrapped_secret_id_file") if key in given]
    if len(proofs) != 1:
        message = f"{chosen.where} needs one of secret_id_file, secret_id_credential and wrapped_secret_id_file"
        raise MisconfiguredError(message, hint=f'secret_id_file = "secret-id" in [{chosen.where}]')
    wrapped = proofs[0] == "wrapped_secret_id_file"
    if wrapped != ("creation_path" in given):
        message = f"{chosen.where}.creation_path goes with wrapped_secret_id_file, and only with it"
        raise MisconfiguredError(message, hint=f'creation_path = "auth/{mount}/role/ROLE/secret-id"')
    if proofs[0] == "secret_id_credential":
        proof = Source(path=_credential(chosen.where, chosen.text("secret_id_credential")))
    else:
        proof = source(proofs[0])
    return Login(
        method="approle",
        mount=mount,
        name=chosen.text("role_id") if "role_id" in given else "",
        name_file=source("role_id_file") if "role_id_file" in given else None,
        proof=proof,
        wrapped=wrapped,
        creation_path=chosen.text("creation_path").strip("/") if wrapped else "",
    )


def _credential(where: str, name: str) -> Path:
    # A name in the directory that systemd makes, which is known by its variable alone.
    if "/" in name or name.startswith("."):
        message = f"{where}.secret_id_credential is not the name of a systemd credential"
        raise MisconfiguredError(message, hint="LoadCredentialEncrypted=NAME in the unit, and that NAME here")
    return Path("$CREDENTIALS_DIRECTORY") / name
