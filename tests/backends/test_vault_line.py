"""The way to one Vault over several addresses: who is asked, after what, how often, and who never."""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from email.utils import formatdate
from pathlib import Path
from typing import Any, Final, TypeVar

import pytest

from backends.base import (
    BackendError,
    LockedError,
    MisconfiguredError,
    OutcomeUnknownError,
    Secret,
    Surroundings,
    UnavailableError,
)
from backends.vault_calls import Spoken, fetching
from backends.vault_engines import Plan
from backends.vault_http import FaultError
from backends.vault_line import AT_ONCE, LimitedError, Line
from backends.vault_options import read
from backends.vault_wire import Kind
from tests.backends.raw_server import drip, hang, listening, nobody
from tests.backends.vault_asks import GOOD, READ, TOKEN
from tests.fakes.authority import Authority
from tests.fakes.faulty_http import PROXY, Asked, Cut, Fault, FaultyServer, Half, Hang, Late, Said, Say

Found = TypeVar("Found")
SECRET: Final = "secret"
SEALED: Final = Say(status=503, errors=("Vault is sealed",))
QUICK: Final = 0.4
"""Seconds of a time-out that a test waits for."""


async def good(asked: Asked) -> Said:
    """Answer as an active node."""
    del asked
    return Said(status=200, body=b'{"data": {"value": "x"}}')


def standby(location: str) -> Callable[[Asked], Awaitable[Said]]:
    """Return how a standby answers that sends everybody elsewhere."""

    async def answer(asked: Asked) -> Said:
        if asked.target.startswith("/v1/sys/health"):
            return Said(status=429, body=b'{"standby": true}')
        return Said(status=307, headers={"location": f"{location}{asked.target}"})

    return answer


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """Give what ends the servers of a test."""
    with ExitStack() as found:
        yield found


@pytest.fixture
def servers(stack: ExitStack) -> tuple[FaultyServer, FaultyServer]:
    """Give two active nodes, which is more than a cluster has: each test says what is wrong with them."""
    return stack.enter_context(FaultyServer(good)), stack.enter_context(FaultyServer(good))


def line(*addresses: str, **more: Any) -> Line:  # noqa: ANN401 -- whatever TOML can hold
    """Return the way to these addresses."""
    around = Surroundings(mode="user", config=Path("/"), state=Path("/"))
    return Line("v", read("v", {"addresses": list(addresses), "auth": {"token": {"file": "/t"}}, **more}, around))


def using(found: Line, work: Callable[[Line], Awaitable[Found]]) -> Found:
    """Open a line, do something with it, and close it."""

    async def run() -> Found:
        await found.open()
        try:
            return await work(found)
        finally:
            found.close()

    return asyncio.run(run())


async def value(found: Line, say: Spoken = READ, *, minting: bool = False) -> object:
    """Ask with a token, and return what was answered, or the error."""
    try:
        answer = await found.ask(say, token=Secret(TOKEN), minting=minting)
    except (BackendError, FaultError) as error:
        return error
    return (answer.data or {}).get("value")


def asked(*addresses: str, minting: bool = False, **more: Any) -> object:  # noqa: ANN401
    """Ask once, and return what was answered, or the error."""
    return using(line(*addresses, **more), lambda found: value(found, minting=minting))


def counts(*nodes: FaultyServer) -> list[int]:
    """Return how often each node was asked for the secret."""
    return [node.count(SECRET) for node in nodes]


# -- from one address to the next ---------------------------------------------------


def test_the_next_address_is_asked_where_nobody_listens(servers: tuple[FaultyServer, FaultyServer]) -> None:
    """Where the first node is dead the second one answers, a mint too: nothing was sent to the first."""
    found = [asked(nobody(), servers[1].address, minting=minting) for minting in (False, True)]
    assert (["x", "x"], 2) == (found, servers[1].count(SECRET))


def test_who_answered_is_asked_first_from_then_on(servers: tuple[FaultyServer, FaultyServer]) -> None:
    """After a failover nobody waits for the dead node again."""

    async def work(found: Line) -> str:
        await value(found)
        return found.address

    assert servers[1].address == using(line(nobody(), servers[1].address), work)


@pytest.mark.parametrize("minting", [False, True])
def test_a_sealed_node_is_passed_over(servers: tuple[FaultyServer, FaultyServer], *, minting: bool) -> None:
    """A node that is sealed has done nothing: another one is asked."""
    servers[0].fail(SEALED, on=SECRET)
    found = asked(servers[0].address, servers[1].address, minting=minting)
    assert ("x", [1, 1]) == (found, counts(*servers))


def test_when_all_are_sealed_somebody_has_to_unseal(servers: tuple[FaultyServer, FaultyServer]) -> None:
    """Sealed says more than unreachable, and says what mends it."""
    servers[0].fail(SEALED)
    error = asked(nobody(), servers[0].address)
    assert isinstance(error, LockedError)
    assert ("bao operator unseal, or vault operator unseal", True) == (error.hint, "it is sealed" in error.message)


@pytest.mark.parametrize(
    "fault", [Cut(), Cut(after=True), Half(), PROXY, Say(status=500, errors=("internal",)), Say(status=504)], ids=repr
)
def test_a_mint_whose_answer_was_lost_is_not_asked_for_elsewhere(
    servers: tuple[FaultyServer, FaultyServer], fault: Fault
) -> None:
    """What may have been minted is told as unknown, and no other node is asked for another one."""
    servers[0].fail(fault, on=SECRET)
    error = asked(servers[0].address, servers[1].address, minting=True)
    assert (OutcomeUnknownError, [1, 0]) == (type(error), counts(*servers))


@pytest.mark.parametrize("fault", [Cut(), Half(), PROXY, Say(status=500), Say(status=412)], ids=repr)
def test_a_read_is_asked_of_the_next_one(servers: tuple[FaultyServer, FaultyServer], fault: Fault) -> None:
    """What only reads is asked of another node when one has failed."""
    servers[0].fail(fault, on=SECRET)
    assert ("x", [1, 1]) == (asked(servers[0].address, servers[1].address), counts(*servers))


@pytest.mark.parametrize(
    ("status", "kind"), [(400, Kind.REFUSED), (403, Kind.FORBIDDEN), (404, Kind.ABSENT), (405, Kind.WRONG_METHOD)]
)
def test_a_no_is_an_answer(servers: tuple[FaultyServer, FaultyServer], status: int, kind: Kind) -> None:
    """What the server says no to is not asked of another node."""
    servers[0].fail(Say(status=status), on=SECRET)
    error = asked(servers[0].address, servers[1].address)
    assert isinstance(error, FaultError)
    assert (kind, [1, 0]) == (error.fault.kind, counts(*servers))


def test_a_rate_limit_is_not_evaded(servers: tuple[FaultyServer, FaultyServer]) -> None:
    """Who is told to slow down does not ask the next node, which counts together with the first."""
    servers[0].fail(Say(status=429, errors=("rate limit quota exceeded",), headers={"retry-after": "7"}), on=SECRET)
    error = asked(servers[0].address, servers[1].address)
    assert isinstance(error, LimitedError)
    assert (7.0, [1, 0]) == (error.wait, counts(*servers))


def test_the_active_node_is_asked_and_not_a_standby(stack: ExitStack) -> None:
    """With several addresses the active node is found first: a standby may lag behind what was written."""
    active = stack.enter_context(FaultyServer(good))
    behind = stack.enter_context(FaultyServer(standby(active.address)))
    assert ("x", [0, 1]) == (asked(behind.address, active.address), counts(behind, active))


def test_a_lone_standby_is_asked(stack: ExitStack) -> None:
    """One address is asked without looking who it is."""
    lone = stack.enter_context(FaultyServer(good))
    assert ("x", 1) == (asked(lone.address), len(lone.seen))


# -- where a standby sends us --------------------------------------------------------


def test_a_redirect_to_a_configured_peer_is_followed_with_the_token(stack: ExitStack) -> None:
    """A standby may send us to a node that the config names, and there the token is shown."""
    active = stack.enter_context(FaultyServer(good))
    behind = stack.enter_context(FaultyServer(standby(active.address)))
    active.fail(Say(status=503), on="sys/health")
    behind.fail(Say(status=200), on="sys/health")
    found = asked(behind.address, active.address)
    assert ("x", [1, 1], TOKEN) == (found, counts(behind, active), active.requests(SECRET)[0].token)


def test_redirects_in_a_circle_are_followed_once(stack: ExitStack) -> None:
    """Two nodes that send us to each other are asked a few times, and then it is unavailable."""
    first = stack.enter_context(FaultyServer(good))
    second = stack.enter_context(FaultyServer(standby(first.address)))
    first.fail(Say(status=307, headers={"location": f"{second.address}/v1/secret/a"}), on=SECRET)
    error = asked(first.address, second.address)
    assert (True, True) == (isinstance(error, UnavailableError), sum(counts(first, second)) <= 3)


@pytest.mark.parametrize("where", ["foreign", "", "//", "http://[", "https://127.0.0.1:99999/", "unix:///x"])
def test_a_redirect_to_a_foreign_host_is_never_followed(stack: ExitStack, where: str) -> None:
    """A redirect to a host that the config does not name, or to nonsense, is an error that says what to add."""
    foreign = stack.enter_context(FaultyServer(good))
    place = foreign.address if where == "foreign" else where
    sending = stack.enter_context(FaultyServer(good))
    sending.fail(Say(status=307, headers={"location": place}), on=SECRET)
    error = asked(sending.address)
    told = error.hint if isinstance(error, MisconfiguredError) else "the server itself was asked again"
    expected = (
        "the server itself was asked again" if where in {"", "//"} else "add its address to addresses in [backends.v]"
    )
    assert (expected, []) == (told, foreign.seen)


def test_a_redirect_from_https_to_http_is_never_followed(stack: ExitStack, tmp_path: Path) -> None:
    """No token goes over plain http because a server says so, even to a configured host's other port."""
    authority = Authority(tmp_path)
    plain = stack.enter_context(FaultyServer(good))
    secured = stack.enter_context(FaultyServer(good, tls=authority.listening()))
    secured.fail(Say(status=307, headers={"location": f"http://127.0.0.1:{secured.port}/v1/secret/a"}), on=SECRET)
    error = asked(secured.address, ca_file=str(authority.ca_file))
    assert (MisconfiguredError, []) == (type(error), plain.seen)


def test_a_redirect_to_a_dead_node_means_ask_another(stack: ExitStack) -> None:
    """After the active node has died, standbys send everybody to it for a while: a third node is asked."""
    dead, third = nobody(), stack.enter_context(FaultyServer(good))
    behind = stack.enter_context(FaultyServer(standby(dead)))
    behind.fail(Say(status=200), on="sys/health")
    assert ("x", [1, 1]) == (asked(behind.address, dead, third.address), counts(behind, third))


def test_with_no_other_node_a_redirect_to_a_dead_one_means_wait(stack: ExitStack) -> None:
    """Where the only other node is dead it is unavailable for now, which is tried again, and not a wrong config."""
    dead = nobody()
    behind = stack.enter_context(FaultyServer(standby(dead)))
    error = asked(behind.address, dead)
    assert (True, 1) == (isinstance(error, UnavailableError), behind.count(SECRET))


# -- how often ------------------------------------------------------------------------


def test_a_server_that_hangs_is_asked_a_few_times(stack: ExitStack) -> None:
    """While a server hangs, somebody who asks all the time makes it see a handful of requests, and waits for none."""
    hanging = stack.enter_context(FaultyServer(good))
    hanging.fail(Hang())

    async def work(found: Line) -> tuple[int, float]:
        begin, waits = time.monotonic(), list[float]()
        while time.monotonic() - begin < 4:
            before = time.monotonic()
            assert isinstance(await value(found), UnavailableError)
            waits.append(time.monotonic() - before)
            await asyncio.sleep(0.005)
        return len(waits), sorted(waits)[len(waits) // 2]

    many, middle = using(line(hanging.address, timeout=QUICK), work)
    assert (True, True, True) == (many > 50, middle < QUICK / 4, 2 <= len(hanging.seen) <= 6)


def test_many_who_ask_a_server_that_hangs_make_few_requests(stack: ExitStack) -> None:
    """Of 300 who ask at once, no more than there are threads reach a server that hangs; all get an error in time."""
    hanging = stack.enter_context(FaultyServer(good))
    hanging.fail(Hang())

    async def work(found: Line) -> Counter[type]:
        return Counter(type(each) for each in await asyncio.gather(*(value(found) for _ in range(300))))

    told = using(line(hanging.address, timeout=QUICK), work)
    assert ({UnavailableError: 300}, True) == (told, len(hanging.seen) <= AT_ONCE + 1), len(hanging.seen)


def test_no_more_than_sixteen_requests_are_under_way(stack: ExitStack) -> None:
    """A hundred who ask at once are all answered, sixteen at a time."""
    slow = stack.enter_context(FaultyServer(good))
    slow.fail(Late(seconds=0.02))

    async def work(found: Line) -> list[object]:
        return await asyncio.gather(*(value(found) for _ in range(100)))

    assert (["x"] * 100, 100, True) == (using(line(slow.address), work), len(slow.seen), slow.most_at_once <= AT_ONCE)


def test_when_a_server_is_back_everybody_is_answered(stack: ExitStack) -> None:
    """After an outage one request finds out, and then nobody is kept from asking."""
    server = stack.enter_context(FaultyServer(good))
    server.fail(Cut())

    async def work(found: Line) -> tuple[object, object, list[object]]:
        down = await value(found)
        gated = await value(found)
        server.mend()
        while await value(found) != "x":  # noqa: ASYNC110 -- the server tells nobody that it is back
            await asyncio.sleep(0.05)
        return down, gated, await asyncio.gather(*(value(found) for _ in range(20)))

    down, gated, after = using(line(server.address), work)
    assert (UnavailableError, UnavailableError, ["x"] * 20) == (type(down), type(gated), after)


def test_a_path_that_fails_keeps_nobody_from_the_others(stack: ExitStack) -> None:
    """An engine that answers 500 is that path's trouble: others are asked at once."""
    server = stack.enter_context(FaultyServer(good))
    server.fail(Say(status=500), on="secret/broken")

    async def work(found: Line) -> tuple[object, object]:
        return await value(found, fetching(Plan(path="secret/broken"))), await value(found)

    broken, other = using(line(server.address), work)
    assert (True, "x") == (isinstance(broken, UnavailableError), other)


def test_one_that_fails_while_others_are_answered_keeps_nobody(stack: ExitStack) -> None:
    """A request that times out while others get answers is no outage."""
    server = stack.enter_context(FaultyServer(good))
    server.fail(Hang(), on="secret/slow")

    async def work(found: Line) -> tuple[object, object]:
        slow = asyncio.create_task(value(found, fetching(Plan(path="secret/slow"))))
        while not server.count("secret/slow"):  # noqa: ASYNC110 -- the server has a thread of its own
            await asyncio.sleep(0.01)
        await value(found)
        return await slow, await value(found)

    slow, other = using(line(server.address, timeout=QUICK), work)
    assert (UnavailableError, "x") == (type(slow), other)


# -- until when -----------------------------------------------------------------------


@pytest.mark.parametrize("minting", [False, True])
@pytest.mark.parametrize("act", [hang, drip(GOOD)], ids=["hangs", "drips"])
def test_an_answer_that_does_not_end_is_given_up(act: Any, *, minting: bool) -> None:  # noqa: ANN401
    """A server that hangs or drips costs the time-out and no more; a mint is then unknown."""
    with listening(act) as server:
        begin = time.monotonic()
        error = asked(server.address, minting=minting, timeout=QUICK)
        took = time.monotonic() - begin
    assert (OutcomeUnknownError if minting else UnavailableError, True) == (type(error), took < QUICK + 3)


# -- what else it knows -----------------------------------------------------------------


def test_the_clock_of_the_server_is_known(stack: ExitStack) -> None:
    """An answer's date tells by how much the server's clock is ahead."""

    async def ahead(asked: Asked) -> Said:
        said = await good(asked)
        return Said(status=said.status, headers={"date": formatdate(time.time() + 120, usegmt=True)}, body=said.body)

    async def work(found: Line) -> float:
        await value(found)
        return found.skew or 0.0

    server = stack.enter_context(FaultyServer(ahead))
    assert 115 < using(line(server.address), work) < 125


@pytest.mark.parametrize(("fault", "status"), [(None, 200), (Say(status=429), 429), (SEALED, 503), (Cut(), 0)], ids=str)
def test_the_health_of_a_server(stack: ExitStack, fault: Fault | None, status: int) -> None:
    """Health is the status that the server gives it, and 0 where nobody answers."""
    server = stack.enter_context(FaultyServer(good))
    if fault is not None:
        server.fail(fault)
    assert status == using(line(server.address), lambda found: found.health())


def test_health_is_that_of_the_first_that_is_well(servers: tuple[FaultyServer, FaultyServer]) -> None:
    """A sealed node beside an active one is no outage."""
    servers[0].fail(SEALED)
    assert 200 == using(line(servers[0].address, servers[1].address), lambda found: found.health())


def test_a_certificate_is_read_again_when_it_was_missing(stack: ExitStack, tmp_path: Path) -> None:
    """A ``ca_file`` that is put there later works without a restart."""
    authority = Authority(tmp_path)
    server = stack.enter_context(FaultyServer(good, tls=authority.listening()))
    late = tmp_path / "late.pem"

    async def work(found: Line) -> tuple[object, object]:
        before = await value(found)
        late.write_bytes(authority.ca_file.read_bytes())
        return before, await value(found)

    before, after = using(line(server.address, ca_file=str(late)), work)
    assert (MisconfiguredError, "x") == (type(before), after)


def test_what_is_not_trusted_says_how_to_look(stack: ExitStack, tmp_path: Path) -> None:
    """A server whose certificate is not accepted is told with the option that mends it."""
    server = stack.enter_context(FaultyServer(good, tls=Authority(tmp_path).listening()))
    error = asked(server.address)
    assert isinstance(error, UnavailableError)
    assert (True, True) == ("its certificate is not accepted" in error.message, "ca_file" in str(error.hint))


def test_an_answer_is_not_kept_in_the_error_of_the_next(stack: ExitStack) -> None:
    """While nobody is asked everybody gets an error of their own: one that is raised again and again grows."""
    server = stack.enter_context(FaultyServer(good))
    server.fail(Cut())

    async def work(found: Line) -> list[object]:
        return [await value(found) for _ in range(3)]

    errors = using(line(server.address), work)
    assert (3, 1) == (len({id(each) for each in errors}), len({str(each) for each in errors}))
