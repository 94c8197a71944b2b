"""
Fuzz the HTTP dialect: any bytes on a connection, in any pieces.

``python tests/fuzz/fuzz_http.py -runs=N tests/fuzz/corpus/http`` looks for new
inputs, guided by coverage, with atheris; without it ``tests/fuzz/test_replay.py``
replays the corpus. The first byte of an input says how long the pieces are, and
whether the other end hangs up behind the last one.
"""

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.fuzz.in_process import Broker

PROMISED = frozenset({100, 200, 400, 403, 404, 405, 410, 413, 415, 417, 503})
"""What may be answered here: 503 because this broker's audit log is not open."""


def one_input(broker: "Broker", raw: bytes) -> None:
    """
    Try one input, whole and in pieces.

    Raises:
        AssertionError: what is promised of every input does not hold.

    """
    from tests.fuzz.promises import require, responses  # noqa: PLC0415 -- see main

    how, said = raw[:1], raw[1:]
    if not said[:1].isupper():
        said = b"GET " + said
    size = (how[0] & 0x3F) + 1 if how else 1
    ends = bool(how and how[0] & 0x40)
    whole = responses(broker.hears([said], ends=ends))
    pieces = [said[at : at + size] for at in range(0, len(said), size)]
    in_pieces = responses(broker.hears(pieces, ends=ends))
    require(set(whole + in_pieces) <= PROMISED, "a status that was not promised")
    # Where what follows a good request cannot be read, the good one may be lost with it if both come in one piece.
    sure = whole[:-1] if whole[-1:] == [400] else whole
    require(sure == in_pieces[: len(sure)], "another answer to the same bytes")
    require(sure != whole or whole == in_pieces, "more answers to the same bytes")


def main() -> None:
    """Fuzz until the runs that were asked for are done, or something is found."""
    import atheris  # noqa: PLC0415 -- the replay of the corpus does without it

    # Coverage of what is ours, and of the library that reads for us; that of the loop would only slow it down.
    with atheris.instrument_imports(include=["broker", "aiohttp"]):
        from tests.fuzz.in_process import Broker  # noqa: PLC0415

    broker = Broker()
    atheris.Setup(sys.argv, lambda raw: one_input(broker, raw))
    atheris.Fuzz()


if __name__ == "__main__":
    main()
