"""``python -m tests.gate_mutations``: plant every fault in the sample and the real cases, write the table of the docs.

Takes a minute for each of the 13 real cases on an idle core.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from tests.gate_mutations.clean_cases import real_cases, sample_cases
from tests.gate_mutations.faults import FAULTS
from tests.gate_mutations.suite import Outcome, run_suite
from tests.shared_data import REAL_CASES

from brats_fl.files import write_whole

PAGE = Path(__file__).parents[2] / "docs" / "data-gate.md"
BEGIN, END = "<!-- faults: written by `python -m tests.gate_mutations` -->\n", "<!-- end of faults -->\n"


def main() -> None:
    """Run the suite and replace the table between the two markers of the page."""
    if not REAL_CASES.is_dir():
        sys.exit(f"{REAL_CASES}: no real cases; the table is for sample and real ones, and stays as it is")
    with tempfile.TemporaryDirectory() as folder:
        outcomes = {"sample": run_suite(sample_cases(Path(folder)), report)}
    outcomes["real"] = run_suite(real_cases(), report)
    before, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
    write_whole(PAGE, before + BEGIN + draw_table(outcomes) + END + rest.split(END)[1])


def report(line: str) -> None:
    """One line of progress."""
    sys.stderr.write(f"{line}\n")


def draw_table(outcomes: Mapping[str, Outcome]) -> str:
    """A row a fault: its rule, how often it was found, and in how many clean cases that rule found something."""
    kinds = list(outcomes)
    heads = ["fault", "rule", *(f"found, {kind}" for kind in kinds), *(f"false alarms, {kind}" for kind in kinds)]
    lines = [heads, ["---"] * len(heads)]
    for fault in FAULTS:
        found = [f"{sum(hits.values())} of {len(hits)}" for hits in (o.found[fault.name] for o in outcomes.values())]
        alarms = [f"{o.alarms_of(fault.rule)} of {len(o.clean)}" for o in outcomes.values()]
        lines.append([fault.name, f"`{fault.rule}`", *found, *alarms])
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


if __name__ == "__main__":
    main()
