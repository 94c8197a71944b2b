"""How a server has to prove who it is before anything is sent, and what is shown to it."""

import socket
import ssl
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization

from backends.base import MisconfiguredError
from backends.vault_http import Call, NotSentError, tls
from tests.backends.raw_server import RawServer, answers, listening, mute, talk
from tests.backends.vault_asks import GOOD, ask, options, outcome
from tests.fakes.authority import Authority


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Give somebody who signs certificates."""
    return Authority(tmp_path_factory.mktemp("authority"))


def told(address: str, **more: Any) -> str:  # noqa: ANN401
    """Return why nothing was sent."""
    with pytest.raises(NotSentError) as caught:
        ask(address, **more)
    return str(caught.value)


def named(server: RawServer, name: str = "localhost") -> str:
    """Return the address with a name instead of a number."""
    return server.address.replace("127.0.0.1", name)


def test_a_server_whose_authority_is_trusted_is_asked(authority: Authority) -> None:
    """With ``ca_file`` a server of one's own authority is asked."""
    with listening(answers(GOOD), tls=authority.listening()) as server:
        assert {"value": "x"} == ask(server.address, ca_file=str(authority.ca_file)).data


def test_a_server_of_an_unknown_authority_is_not_asked(authority: Authority) -> None:
    """Without ``ca_file`` a server of one's own authority is not trusted, and nothing is sent to it."""
    with listening(answers(GOOD), tls=authority.listening()) as server:
        why = told(server.address)
    assert (True, []) == (why.startswith("its certificate is not accepted: self-signed certificate"), server.requests)


def test_a_server_of_another_name_is_not_asked(authority: Authority) -> None:
    """A certificate for another name is refused, unless ``server_name`` says that this is the name."""
    with listening(answers(GOOD), tls=authority.listening("vault.internal")) as server:
        trusted: dict[str, Any] = {"ca_file": str(authority.ca_file)}
        why = told(named(server), server_name="other.internal", **trusted)
        answer = ask(named(server), server_name="vault.internal", **trusted)
    mismatch = "its certificate is not accepted: hostname mismatch, certificate is not valid for 'other.internal'"
    assert (mismatch, {"value": "x"}, 1) == (why, answer.data, len(server.requests))


def test_the_name_of_a_server_is_that_of_its_address(authority: Authority) -> None:
    """Without ``server_name`` the certificate has to be for the host of the address."""
    with listening(answers(GOOD), tls=authority.listening("vault.internal")) as server:
        why = told(named(server), ca_file=str(authority.ca_file))
    assert (True, []) == (why.endswith("certificate is not valid for 'localhost'"), server.requests)


def test_older_than_tls_1_2_is_not_spoken(authority: Authority) -> None:
    """A server that speaks TLS 1.1 at most is not asked."""
    old = authority.listening()
    old.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1"):
        old.minimum_version, old.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    with listening(answers(GOOD), tls=old) as server:
        told(server.address, ca_file=str(authority.ca_file))
    assert ([], ssl.TLSVersion.TLSv1_2) == (server.requests, tls(options("https://v")).minimum_version)


def test_a_client_certificate_is_shown(authority: Authority) -> None:
    """A server that wants a certificate gets the one that the config names, and refuses who has none."""
    certificate, key = authority.certificate("broker")
    strict = authority.listening()
    strict.verify_mode = ssl.CERT_REQUIRED
    trusted: dict[str, Any] = {"ca_file": str(authority.ca_file)}
    with listening(answers(GOOD), tls=strict) as server:
        shown = ask(server.address, client_cert_file=str(certificate), client_key_file=str(key), **trusted)
        without, _ = outcome(server.address, **trusted)
    assert ({"value": "x"}, True) == (shown.data, without in {"NotSentError", "CutError"})


def test_a_plain_server_behind_https_is_told_as_no_tls() -> None:
    """Where something else than TLS answers, nothing was sent, and the reason says so."""
    with listening(talk(b"SSH-2.0-OpenSSH_9.2\r\n")) as server:
        assert "no TLS connection can be made" == told(server.address.replace("http:", "https:"))


def test_a_handshake_that_never_ends_has_a_deadline(authority: Authority) -> None:
    """A server that accepts and says nothing is left, and nothing was sent."""
    with listening(mute) as server:
        address = server.address.replace("http:", "https:")
        assert ("NotSentError", False) == outcome(address, seconds=0.3, ca_file=str(authority.ca_file))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            {"ca_file": "/no/such/ca.pem"},
            "the certificates in /no/such/ca.pem cannot be read: No such file or directory",
        ),
        (
            {"client_cert_file": "/no/c.pem"},
            "the client certificate /no/c.pem cannot be used: No such file or directory",
        ),
    ],
)
def test_a_certificate_that_is_not_there_is_a_mistake_of_the_config(more: dict[str, str], message: str) -> None:
    """A certificate's file that is missing is named, with what belongs there."""
    with pytest.raises(MisconfiguredError) as caught:
        tls(options("https://v", **more))
    assert (message, True) == (caught.value.message, caught.value.hint is not None)


def test_a_certificate_that_is_none_is_a_mistake_of_the_config(tmp_path: Path) -> None:
    """A file that holds no PEM is told as that."""
    file = tmp_path / "none.pem"
    file.write_text("nothing")
    with pytest.raises(MisconfiguredError) as caught:
        tls(options("https://v", ca_file=str(file)))
    assert f"the certificates in {file} cannot be read: they are no PEM" == caught.value.message


def test_a_key_with_a_passphrase_asks_nobody(tmp_path: Path, authority: Authority) -> None:
    """A key that is encrypted is a mistake, and no question on somebody's terminal."""
    certificate, plain = authority.certificate("broker")
    key = serialization.load_pem_private_key(plain.read_bytes(), None)
    sealed = serialization.BestAvailableEncryption(b"made up")
    shape = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, sealed)
    (tmp_path / "sealed.key").write_bytes(key.private_bytes(*shape))
    with pytest.raises(MisconfiguredError, match="cannot be used"):
        tls(options("https://v", client_cert_file=str(certificate), client_key_file=str(tmp_path / "sealed.key")))


def test_a_handshake_that_drips_can_be_cut_off(authority: Authority) -> None:
    """A server that sends its part of the handshake byte by byte is cut off from outside, and nothing was sent."""

    def babble(server: RawServer, connection: socket.socket) -> None:
        connection.sendall(b"\x16\x03\x03\x40\x00")
        while not server.over.wait(0.05):
            connection.sendall(b"\x02")

    call, why = Call(), list[str]()

    def run() -> None:
        why.append(told(address, call=call, seconds=60, ca_file=str(authority.ca_file)))

    with listening(babble) as server:
        address = server.address.replace("http:", "https:")
        asking = threading.Thread(target=run)
        asking.start()
        time.sleep(0.3)
        call.abort()
        asking.join(5)
        ended = not asking.is_alive()
    assert (True, False, 1) == (ended, call.sent, len(why))
