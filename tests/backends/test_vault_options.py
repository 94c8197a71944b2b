"""What ``[backends.NAME]`` of type ``vault`` may say, and the clear error for everything that it may not."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pytest

from backends.base import MisconfiguredError, Surroundings
from backends.vault_options import KUBERNETES_TOKEN, Address, Login, Source, VaultOptions, read

AROUND: Final = Surroundings(mode="user", config=Path("/etc/x"), state=Path("/var/x"))
TOKEN: Final = {"token": {"file": "token"}}
HERE: Final = "https://vault.example:8200"
APPROLE: Final = {"role_id": "r", "secret_id_file": "s"}


def options(**more: Any) -> VaultOptions:  # noqa: ANN401 -- whatever TOML can hold
    """Return what a table says that is right but for what is given."""
    table = {"address": HERE, "auth": TOKEN, **more}
    return read("v", {key: value for key, value in table.items() if value is not None}, AROUND)


def login(method: str, **inside: Any) -> Login:  # noqa: ANN401
    """Return how to log in by a method."""
    more = {"client_cert_file": "c.pem"} if method == "cert" else {}
    return options(auth={method: inside}, **more).login


def refused(**more: Any) -> MisconfiguredError:  # noqa: ANN401
    """Return the error that a table gives."""
    with pytest.raises(MisconfiguredError) as caught:
        options(**more)
    return caught.value


def test_the_smallest_table() -> None:
    """An address and a way to log in are enough; everything else has a default."""
    expected = VaultOptions(
        addresses=(Address(scheme="https", host="vault.example", port=8200),),
        login=Login(method="token", proof=Source(path=Path("/etc/x/token"))),
    )
    assert expected == options()


def test_the_whole_table() -> None:
    """Every option is taken, and paths start from the config's directory."""
    found = options(
        address=None,
        addresses=["https://a", "https://b:1234"],
        namespace="/team/mcp/",
        ca_file="ca.pem",
        client_cert_file="/abs/c.pem",
        client_key_file="c.key",
        server_name="vault.internal",
        timeout="3s",
        cache=0,
        child_tokens=False,
        unsafe_http=True,
    )
    expected = VaultOptions(
        addresses=(Address(scheme="https", host="a", port=443), Address(scheme="https", host="b", port=1234)),
        login=Login(method="token", proof=Source(path=Path("/etc/x/token"))),
        namespace="team/mcp",
        ca_file=Path("/etc/x/ca.pem"),
        client_cert_file=Path("/abs/c.pem"),
        client_key_file=Path("/etc/x/c.key"),
        server_name="vault.internal",
        timeout=3.0,
        cache=0.0,
        child_tokens=False,
    )
    assert expected == found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://v", Address(scheme="https", host="v", port=443)),
        ("https://v/", Address(scheme="https", host="v", port=443)),
        ("https://V.Example:8200", Address(scheme="https", host="v.example", port=8200)),
        ("https://[2001:db8::1]:8200", Address(scheme="https", host="2001:db8::1", port=8200)),
        ("http://127.0.0.1:8200", Address(scheme="http", host="127.0.0.1", port=8200)),
        ("http://127.9.9.9", Address(scheme="http", host="127.9.9.9", port=80)),
        ("http://[::1]:8200", Address(scheme="http", host="::1", port=8200)),
        ("http://localhost:8200", Address(scheme="http", host="localhost", port=8200)),
        ("unix:///run/agent.sock", Address(scheme="unix", host="/run/agent.sock", port=0)),
    ],
)
def test_an_address(text: str, expected: Address) -> None:
    """An address is a server by https, this machine by http, or the socket of a local agent."""
    assert (expected,) == options(address=text).addresses


@pytest.mark.parametrize("text", ["https://v:8200", "https://[2001:db8::1]:8200", "unix:///run/agent.sock"])
def test_an_address_is_shown_as_it_is_written(text: str) -> None:
    """What a person reads in a message is what stands in the config."""
    assert [text] == [str(each) for each in options(address=text).addresses]


@pytest.mark.parametrize(
    "text",
    [
        "vault.example:8200",
        "ftp://v",
        "https://",
        "https://user@v",
        "https://user:word@v",
        "https://v/v1",
        "https://v?x=1",
        "https://v#x",
        "https://v:port",
        "https://v:99999",
        "https://[::1",
        "unix://run/agent.sock",
        "unix:run/agent.sock",
        "https://v\n",
        "https://v\x00",
    ],
)
def test_what_is_no_address_is_not_repeated(text: str) -> None:
    """What is no address is an error that shows how one looks, and not what stood there: it may be a password."""
    error = refused(address=text)
    expected = ("backends.v.address is not the address of a server", 'write "https://vault.example:8200", or ')
    assert expected == (error.message, (error.hint or "")[: len(expected[1])])


@pytest.mark.parametrize("text", ["http://vault.example", "http://192.0.2.1:8200", "http://localhost.example"])
def test_plain_http_goes_to_this_machine_alone(text: str) -> None:
    """Plain http to another machine needs the switch with the bad name."""
    error = refused(address=text)
    allowed = options(address=text, unsafe_http=True).addresses[0].scheme
    assert ("use https, or say unsafe_http = true", "http") == (error.hint, allowed)


@pytest.mark.parametrize(
    ("more", "message", "hint"),
    [
        ({"address": None}, "needs address or addresses", "address = "),
        ({"addresses": [HERE]}, "needs address or addresses", "address = "),
        ({"address": None, "addresses": []}, "addresses is empty", "addresses = "),
        ({"address": None, "addresses": "https://v"}, "addresses must be a list of strings", None),
        ({"address": 5}, "address must be a string", None),
        ({"adress": "x"}, "backends.v.adress is not an option", "did you mean address?"),
        ({"client_key_file": "k"}, "client_key_file is of no use", "add client_cert_file"),
        ({"timeout": "0s"}, "timeout must be a length of time from 0.1s to 25s", None),
        ({"timeout": "1h"}, "timeout must be a length of time", None),
        ({"cache": -1}, "cache must be a length of time", None),
        ({"child_tokens": "yes"}, "child_tokens must be true or false", None),
        ({"unsafe_http": 1}, "unsafe_http must be true or false", None),
        ({"namespace": ""}, "namespace must be a string", None),
        ({"auth": None}, "auth says no way to log in", "auth.approle"),
        ({"auth": "approle"}, "auth must be a table", None),
        ({"auth": {"approle": APPROLE, **TOKEN}}, "auth says more than one way to log in", "auth.token"),
        ({"auth": {"aprole": APPROLE}}, "backends.v.auth.aprole is not an option", "did you mean approle?"),
        ({"auth": {"approle": "x"}}, "auth.approle must be a table", None),
        ({"auth": {"token": {"file": ""}}}, "auth.token.file must be a string", None),
        ({"auth": {"token": {"token": "x"}}}, "auth.token.token is not an option", "there is file"),
        ({"auth": {"approle": {"secret_id_file": "s"}}}, "needs role_id or role_id_file", "bao read"),
        ({"auth": {"approle": {**APPROLE, "role_id_file": "f"}}}, "needs role_id or role_id_file", "bao read"),
        ({"auth": {"approle": {"role_id": "r"}}}, "needs one of secret_id_file", "secret_id_file"),
        ({"auth": {"approle": {**APPROLE, "secret_id_credential": "c"}}}, "needs one of", "secret_id_file"),
        ({"auth": {"approle": {**APPROLE, "creation_path": "p"}}}, "creation_path goes with", "creation_path = "),
        (
            {"auth": {"approle": {"role_id": "r", "wrapped_secret_id_file": "w"}}},
            "creation_path goes with",
            'creation_path = "auth/approle/role/ROLE/secret-id"',
        ),
        (
            {"auth": {"approle": {"role_id": "r", "secret_id_credential": "../x"}}},
            "is not the name of a systemd credential",
            "LoadCredentialEncrypted=NAME",
        ),
        ({"auth": {"userpass": {"password_file": "p"}}}, "auth.userpass.username must be a string", None),
        ({"auth": {"ldap": {"username": "u"}}}, "auth.ldap.password_file must be a string", None),
        ({"auth": {"jwt": {"role": "r"}}}, "auth.jwt.token_file must be a string", None),
        ({"auth": {"kubernetes": {}}}, "auth.kubernetes.role must be a string", None),
        ({"auth": {"cert": {}}}, "auth.cert needs client_cert_file", "client_key_file"),
    ],
)
def test_a_mistake_has_a_clear_error(more: Mapping[str, Any], message: str, hint: str | None) -> None:
    """Every mistake names the option, and where there is something to do, says what."""
    error = refused(**more)
    assert (True, True) == (message in error.message, error.hint is None if hint is None else hint in str(error.hint))


@pytest.mark.parametrize(
    ("method", "inside", "expected"),
    [
        ("token", {"file": "/t"}, Login(method="token", proof=Source(path=Path("/t")))),
        (
            "approle",
            {"role_id_file": "r", "secret_id_file": "s", "mount": "/machines/"},
            Login(
                method="approle",
                mount="machines",
                name_file=Source(path=Path("/etc/x/r")),
                proof=Source(path=Path("/etc/x/s")),
            ),
        ),
        (
            "approle",
            {"role_id": "r", "secret_id_credential": "vault-id"},
            Login(
                method="approle",
                mount="approle",
                name="r",
                proof=Source(path=Path("$CREDENTIALS_DIRECTORY/vault-id")),
            ),
        ),
        (
            "approle",
            {"role_id": "r", "wrapped_secret_id_file": "w", "creation_path": "/auth/approle/role/b/secret-id"},
            Login(
                method="approle",
                mount="approle",
                name="r",
                proof=Source(path=Path("/etc/x/w")),
                wrapped=True,
                creation_path="auth/approle/role/b/secret-id",
            ),
        ),
        (
            "userpass",
            {"username": "ann", "password_file": "p"},
            Login(method="userpass", mount="userpass", name="ann", proof=Source(path=Path("/etc/x/p"))),
        ),
        (
            "ldap",
            {"username": "ann", "password_file": "p", "mount": "corp"},
            Login(method="ldap", mount="corp", name="ann", proof=Source(path=Path("/etc/x/p"))),
        ),
        (
            "jwt",
            {"role": "host", "token_file": "j"},
            Login(method="jwt", mount="jwt", name="host", proof=Source(path=Path("/etc/x/j"), private=False)),
        ),
        (
            "kubernetes",
            {"role": "pod"},
            Login(
                method="kubernetes", mount="kubernetes", name="pod", proof=Source(path=KUBERNETES_TOKEN, private=False)
            ),
        ),
        (
            "kubernetes",
            {"role": "pod", "token_file": "/t"},
            Login(method="kubernetes", mount="kubernetes", name="pod", proof=Source(path=Path("/t"), private=False)),
        ),
        ("cert", {}, Login(method="cert", mount="cert")),
        ("cert", {"name": "host", "mount": "tls"}, Login(method="cert", mount="tls", name="host")),
    ],
)
def test_a_way_to_log_in(method: str, inside: Mapping[str, Any], expected: Login) -> None:
    """Each method is read with its mount, its name and where its proof is."""
    assert expected == login(method, **inside)
