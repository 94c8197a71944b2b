"""One request to one server: what is sent and what never is, and what each kind of failure is told as."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from backends.base import Secret
from backends.vault_calls import fetching
from backends.vault_engines import Plan
from backends.vault_http import Call, CutError, FaultError, NotSentError, VaultAdapter, Wire, api
from backends.vault_wire import LONGEST_ANSWER, Answer, Fault, Kind
from tests.backends.raw_server import Act, answers, cut, drip, hang, listening, nobody, slam, whole
from tests.backends.vault_asks import GOOD, PATIENCE, READ, TOKEN, ask, headers, options, outcome
from tests.running import room

# -- what is sent ---------------------------------------------------------------


def test_the_token_is_in_its_header_and_nowhere_else() -> None:
    """The token is in ``X-Vault-Token`` once, and in no URL, body or other header."""
    with listening(answers(GOOD)) as server:
        ask(server.address)
    request = server.requests[0]
    assert (TOKEN, 1) == (headers(request)["x-vault-token"], request.count(TOKEN.encode()))


def test_what_every_request_carries() -> None:
    """A request says that it is no browser's, what it wants, and who asks; no cookie and no password."""
    with listening(answers(GOOD)) as server:
        ask(server.address, namespace="team/mcp")
    found = headers(server.requests[0])
    host = server.address.removeprefix("http://")
    expected = {
        "host": host,
        "accept": "application/json",
        "accept-encoding": "identity",
        "user-agent": "mcp-secrets-broker",
        "x-vault-request": "true",
        "x-vault-token": TOKEN,
        "x-vault-namespace": "team/mcp",
    }
    assert (expected, b"GET /v1/secret/a HTTP/1.1") == (found, server.requests[0].split(b"\r\n")[0])


def test_without_a_token_none_is_sent() -> None:
    """Who logs in sends no old token along."""
    with listening(answers(GOOD)) as server:
        ask(server.address, token=None)
    assert {"x-vault-token", "x-vault-namespace", "authorization", "cookie"}.isdisjoint(headers(server.requests[0]))


def test_a_write_is_json() -> None:
    """What is written is a JSON body, exactly as the config has it."""
    body = {"common_name": "a.example", "ttl": 600, "exclude_cn_from_sans": True}
    with listening(answers(GOOD)) as server:
        ask(server.address, fetching(Plan(path="pki/issue/mcp", write=True, body=body)))
    line, sent = server.requests[0].split(b"\r\n")[0], server.requests[0].partition(b"\r\n\r\n")[2]
    assert (b"POST /v1/pki/issue/mcp HTTP/1.1", body) == (line, json.loads(sent))


def test_a_query_and_a_path_are_escaped() -> None:
    """No character of a path or a parameter can end the path, begin a query or another request."""
    plan = Plan(path="secret/data/a b?x=1#y\r\nEvil: 1/\u2603", query={"version": 3, "x": "a&b"})
    with listening(answers(GOOD)) as server:
        ask(server.address, fetching(plan))
    line = server.requests[0].split(b"\r\n")[0]
    path = b"/v1/secret/data/a%20b%3Fx%3D1%23y%0D%0AEvil%3A%201/%E2%98%83?version=3&x=a%26b"
    assert b"GET " + path + b" HTTP/1.1" == line


def test_a_percent_sign_in_a_path_stays_one() -> None:
    """A path with a percent sign in it is not decoded into another one."""
    with listening(answers(GOOD)) as server:
        ask(server.address, fetching(Plan(path="secret/data/50%2Foff")))
    assert b"GET /v1/secret/data/50%252Foff HTTP/1.1" == server.requests[0].split(b"\r\n")[0]


def test_the_path_of_the_api() -> None:
    """A path as a person writes it is one below ``/v1/``."""
    assert "/v1/secret/data/a%20b" == api("secret/data/a b")


ASKING: Final = """
import sys
from tests.backends.vault_asks import ask
ask(sys.argv[1], token=None)
"""


def test_nothing_of_the_environment_is_used(tmp_path: Path, root: Path) -> None:
    """No token, namespace, proxy or password that lies about is used, whatever other clients would do with them."""
    (tmp_path / ".vault-token").write_text("s.of-the-home")
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login ann password of-the-netrc")
    with listening(answers(GOOD)) as server, listening(answers(GOOD)) as proxy:
        environment = {
            "PYTHONPATH": str(root),
            "VAULT_TOKEN": "s.of-the-environment",
            "VAULT_ADDR": proxy.address,
            "VAULT_NAMESPACE": "ambient",
            "HOME": str(tmp_path),
            "NETRC": str(tmp_path / ".netrc"),
            **dict.fromkeys(("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY"), proxy.address),
        }
        subprocess.run([sys.executable, "-c", ASKING, server.address], env=environment, check=True, timeout=60)
    plain = {"accept", "accept-encoding", "host", "user-agent", "x-vault-request"}
    assert ([], plain) == (proxy.requests, set(headers(server.requests[0])))


# -- what is answered -----------------------------------------------------------


def test_a_redirect_is_told_and_not_followed() -> None:
    """A 307 is handed to who decides; nobody has been asked with the token there."""
    with listening(answers(GOOD)) as elsewhere:
        location = f"{elsewhere.address}/v1/secret/a"
        with listening(answers(whole(307, b"", f"Location: {location}"))) as server:
            with pytest.raises(FaultError) as caught:
                ask(server.address)
            connections = elsewhere.connections
    assert (Fault(kind=Kind.REDIRECT, status=307, location=location), 0) == (caught.value.fault, connections)


@pytest.mark.parametrize("status", [301, 302, 303, 308])
def test_no_other_redirect_is_followed_either(status: int) -> None:
    """Whatever its number, a redirect is a fault and no second request."""
    with listening(answers(whole(status, b"", "Location: /v1/secret/b"), GOOD)) as server:
        told = outcome(server.address)
    assert (("FaultError", True), 1) == (told, len(server.requests))


@pytest.mark.parametrize("status", [400, 403, 404, 429, 500, 502, 503])
def test_nothing_is_asked_a_second_time(status: int) -> None:
    """No status makes the library ask again, with or without ``Retry-After``."""
    with listening(answers(whole(status, b'{"errors": []}', "Retry-After: 0"), GOOD)) as server:
        told = outcome(server.address)
    assert (("FaultError", True), 1) == (told, len(server.requests))


def test_a_connection_is_used_again() -> None:
    """Two requests in turn go over one connection."""
    with listening(answers(GOOD)) as server:
        found = options(server.address)
        wire = Wire(found.addresses[0], found)
        for _ in range(3):
            READ(wire.adapter(Call(), Secret(TOKEN), PATIENCE))
        wire.close()
    assert (1, 3) == (server.connections, len(server.requests))


def test_a_fault_leaves_the_connection_usable() -> None:
    """After an error with a body the next request goes over the same connection."""
    with listening(answers(whole(404, b'{"errors": []}'), GOOD)) as server:
        found = options(server.address)
        wire = Wire(found.addresses[0], found)
        with pytest.raises(FaultError):
            READ(wire.adapter(Call(), Secret(TOKEN), PATIENCE))
        answer = READ(wire.adapter(Call(), Secret(TOKEN), PATIENCE))
        wire.close()
    assert (1, {"value": "x"}) == (server.connections, answer.data)


def test_an_answer_that_is_too_long_is_no_answer() -> None:
    """What is longer than the bound is not read to its end, and is garbled."""
    long = whole(200, b'{"data": {"value": "%s"}}' % (b"x" * (LONGEST_ANSWER + 65536)))
    with listening(answers(long)) as server, pytest.raises(FaultError) as caught:
        ask(server.address)
    assert Fault(kind=Kind.GARBLED, status=200) == caught.value.fault


def test_a_page_of_a_proxy_is_told_without_its_text() -> None:
    """HTML in the place of JSON is a fault in our words, of which the page is no part."""
    page = b"<html>canary-of-a-proxy</html>"
    with listening(answers(whole(200, page, "Content-Type: text/html"))) as server, pytest.raises(FaultError) as caught:
        ask(server.address)
    assert (Kind.GARBLED, False) == (caught.value.fault.kind, "canary" in str(caught.value))


def test_an_answer_in_chunks_is_one_answer() -> None:
    """What comes in chunks is read whole."""
    said = b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n8\r\n{"data":\r\n10\r\n {"value": "x"}}\r\n0\r\n\r\n'
    with listening(answers(said)) as server:
        assert {"value": "x"} == ask(server.address).data


# -- when it fails ----------------------------------------------------------------


def test_nobody_there_means_not_sent() -> None:
    """Where nobody listens, nothing was sent."""
    assert ("NotSentError", False) == outcome(nobody())


def test_a_name_that_does_not_exist_means_not_sent() -> None:
    """Where a name leads nowhere, nothing was sent."""
    assert ("NotSentError", False) == outcome("https://no-such-host.invalid:8200")


MOMENTS: Final[dict[str, Act]] = {
    "before the status": cut(),
    "in the status": cut(b"HTTP/1.1 20"),
    "in the status line": cut(b"HTTP/1.1 404 Not Fo"),
    "after the status": cut(b"HTTP/1.1 404 Not Found\r\n"),
    "before the length": cut(b"HTTP/1.1 200 OK\r\nCache-Control: no-store\r\n"),
    "without a length": cut(b'HTTP/1.1 200 OK\r\n\r\n{"data": {"value": "x"}}'),
    "after a redirect": cut(b"HTTP/1.1 307 Temporary Redirect\r\nLoc"),
    "in the headers": cut(b"HTTP/1.1 200 OK\r\nContent-Le"),
    "after the headers": cut(b"HTTP/1.1 200 OK\r\nContent-Length: 24\r\n\r\n"),
    "in the body": cut(GOOD[:-5]),
    "in a chunk": cut(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n18\r\n{"),
    "in words that are no HTTP": cut(b"SSH-2.0-OpenSSH_9.2\r\n"),
}


def test_what_cannot_be_read_of_a_head_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    """A body that stands where headers belong is in no log: the library would write down what it cannot read."""
    with listening(cut(b'HTTP/1.1 200 OK\r\n{"data": {"value": "canary"}}\r\n')) as server:
        told = outcome(server.address)
    assert (("CutError", True), "") == (told, caplog.text)


@pytest.mark.parametrize("act", MOMENTS.values(), ids=MOMENTS)
def test_a_cut_after_the_request_means_that_it_may_have_been_done(act: Act) -> None:
    """Wherever an answer is cut off, the request was sent, and what it asked for may have been done."""
    with listening(act) as server:
        told = outcome(server.address)
    assert (("CutError", True), 1) == (told, len(server.requests))


def test_a_connection_that_is_slammed_is_never_taken_for_an_answer() -> None:
    """A connection that was reset at once is a failure, and sent or not it says which."""
    with listening(slam) as server:
        told, sent = outcome(server.address)
    assert ("CutError" if sent else "NotSentError") == told


def test_an_idle_connection_that_was_closed_meanwhile_is_no_failure() -> None:
    """A server may close what is idle: the next request goes over a new connection, and is sent once."""
    with listening(cut(GOOD), answers(GOOD)) as server:
        found = options(server.address)
        wire = Wire(found.addresses[0], found)
        READ(wire.adapter(Call(), Secret(TOKEN), PATIENCE))
        time.sleep(0.1)
        answer = READ(wire.adapter(Call(), Secret(TOKEN), PATIENCE))
        wire.close()
    assert ({"value": "x"}, 2) == (answer.data, len(server.requests))


@pytest.mark.parametrize("act", [hang, drip(GOOD), drip(b"HTTP/1.1 200 OK\r\n" + b"X-Y: z\r\n" * 99)])
def test_another_thread_can_cut_a_request_off(act: Act) -> None:
    """A server that hangs, or that drips so that no time-out between two bytes ever ends, is cut off from outside."""
    call, told = Call(), list[str]()
    with listening(act) as server:
        asking = threading.Thread(target=_told, args=[told, server.address, call])
        asking.start()
        time.sleep(0.3)
        call.abort()
        asking.join(PATIENCE)
        ended = not asking.is_alive()
    assert (True, ["CutError"]) == (ended, told)


def _told(told: list[str], address: str, call: Call) -> None:
    try:
        ask(address, call=call, seconds=60)
    except (NotSentError, CutError) as error:
        told.append(type(error).__name__)


def test_a_request_that_was_cut_off_before_it_began_ends_at_once() -> None:
    """Who is cut off before there is a connection does not wait for an answer over it."""
    call = Call()
    call.abort()
    told = list[str]()
    with listening(hang) as server:
        asking = threading.Thread(target=_told, args=[told, server.address, call])
        asking.start()
        asking.join(PATIENCE)
        ended = not asking.is_alive()
    assert (True, 1) == (ended, len(told))


def test_silence_has_a_deadline_of_its_own() -> None:
    """A server that says nothing is left after the seconds that were given."""
    with listening(hang) as server:
        assert ("CutError", True) == outcome(server.address, seconds=0.2)


def test_what_was_cut_off_cuts_nobody_else() -> None:
    """A call that has ended has let go of its connection: to cut it off afterwards hurts no other request."""
    with listening(answers(GOOD)) as server:
        found = options(server.address)
        wire, first = Wire(found.addresses[0], found), Call()
        READ(wire.adapter(first, Secret(TOKEN), PATIENCE))
        first.abort()
        answer = READ(wire.adapter(Call(), Secret(TOKEN), PATIENCE))
        wire.close()
    assert ({"value": "x"}, 1) == (answer.data, server.connections)


# -- a local agent ----------------------------------------------------------------


def test_an_agent_at_a_unix_socket_is_asked() -> None:
    """The socket of a local agent is asked like a server, with the header that an agent may want."""
    with room() as directory, listening(answers(GOOD), path=directory / "agent.sock") as server:
        answer = ask(server.address, token=None)
    assert ({"value": "x"}, "true") == (answer.data, headers(server.requests[0])["x-vault-request"])


def test_an_agent_that_is_not_there_means_not_sent() -> None:
    """A socket that is not there is told as that, and nothing was sent."""
    with room() as directory, pytest.raises(NotSentError, match="No such file or directory"):
        ask(f"unix://{directory}/agent.sock")


# -- what hvac wants ----------------------------------------------------------------


def test_what_hvac_asks_for_and_is_not_done_here_is_no_silence() -> None:
    """A keyword that this adapter does not know fails instead of being passed over."""
    adapter = VaultAdapter(lambda *_: Answer())
    with pytest.raises(AssertionError):
        adapter.get("/v1/x", verify=False)


def test_a_token_is_never_taken_out_of_an_answer_by_hvac() -> None:
    """The library's own way to a login's token is closed."""
    with pytest.raises(NotImplementedError):
        VaultAdapter(lambda *_: Answer()).get_login_token(Answer())


def test_no_descriptor_is_left_open() -> None:
    """A wire that was closed, and one whose request was cut off, leave no socket behind."""
    before = _sockets()
    with listening(cut(), answers(GOOD)) as server:
        outcome(server.address)
        ask(server.address)
        outcome(nobody())
    after = _sockets()
    assert after <= before + 1


def _sockets() -> int:
    return sum(str(link.readlink()).startswith("socket:") for link in _links())


def _links() -> Iterator[Path]:
    # The one that lists is gone when it is looked at.
    return (link for link in Path("/proc/self/fd").iterdir() if os.path.lexists(link))


def test_a_socket_is_shut_only_while_it_is_held() -> None:
    """A call shuts the socket that it holds, also one that it gets after it was ended."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        call = Call()
        call.abort()
        call.hold(ours)
        assert b"" == theirs.recv(1)
