"""The verification of audit chains, by the vectors and by chance."""

import json
from pathlib import Path
from typing import Any, Final

import pytest

from broker.core import chain
from broker.core.findings import Report
from broker.core.verification import verify

VECTORS: Final = Path(__file__).parent.parent / "vectors" / "audit"
NAMES: Final = sorted(path.name for path in VECTORS.iterdir() if path.is_dir())


def judged(place: Path) -> Report:
    """Verify the log in a directory."""
    names = chain.in_order(path.name for path in place.iterdir())
    return verify((name, (place / name).read_bytes().splitlines(keepends=True)) for name in names)


@pytest.mark.parametrize("name", NAMES)
def test_vector(name: str) -> None:
    """Every vector has exactly the outcome that it declares."""
    declared: dict[str, Any] = json.loads((VECTORS / name / "outcome.json").read_text())
    report = judged(VECTORS / name)
    found = [{"kind": x.kind, "where": x.where, "alarm": x.alarm} for x in report.findings]
    assert declared["findings"] == found
    assert declared["intact"] == report.intact
