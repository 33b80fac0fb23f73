"""What docs/trust.md calls a proof is a test or a fault of the drill that there is."""

from __future__ import annotations

import re
from pathlib import Path

from brats_fl_tools.drill.faults import FAULTS

ROOT = Path(__file__).parents[1]


def test_every_proof_of_the_page_is_there() -> None:
    page = (ROOT / "docs" / "trust.md").read_text(encoding="utf-8")
    rows = [line.split("|")[4] for line in page.splitlines() if line.startswith("| **")]
    named = {name for row in rows for name in re.findall(r"`([^`]+)`", row)}
    tests = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))

    assert len(named) >= 15
    assert [name for name in sorted(named) if name not in FAULTS and f"def {name}(" not in tests] == []
