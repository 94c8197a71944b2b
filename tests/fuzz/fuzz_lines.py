"""
Fuzz the line dialect: any bytes on a connection, in any pieces.

``python tests/fuzz/fuzz_lines.py -runs=N tests/fuzz/corpus/lines`` looks for new
inputs, guided by coverage, with atheris; without it ``tests/fuzz/test_replay.py``
replays the corpus. The first byte of an input says how long the pieces are, and
whether the other end hangs up behind the last one.
"""

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.fuzz.in_process import Broker


def one_input(broker: "Broker", raw: bytes) -> None:
    """
    Try one input, whole and in pieces.

    Raises:
        AssertionError: what is promised of every input does not hold.

    """
    from tests.fuzz.promises import answers, require  # noqa: PLC0415 -- see main

    how, said = raw[:1], raw[1:]
    if said[:1].isalpha():
        said = b"{" + said
    size = (how[0] & 0x3F) + 1 if how else 1
    ends = bool(how and how[0] & 0x40)
    whole = answers(broker.hears([said] if said else [], ends=ends))
    require(len(whole) <= said.count(b"\n") + 1, "more answers than lines")
    pieces = [said[at : at + size] for at in range(0, len(said), size)]
    in_pieces = answers(broker.hears(pieces, ends=ends))
    require(sorted(map(str, whole)) == sorted(map(str, in_pieces)), "another answer to the same bytes")


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
