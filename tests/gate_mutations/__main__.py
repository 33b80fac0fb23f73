"""``python -m tests.gate_mutations``: plant every fault in the sample and the real cases, write the tables of the docs.

``python -m tests.gate_mutations margins`` writes the table of margins alone, in a minute. The whole takes a
minute for each of the 13 real cases on an idle core.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from tests.gate_mutations.clean_cases import real_cases, sample_cases
from tests.gate_mutations.faults import FAULTS
from tests.gate_mutations.margins import draw_margins, find_margins, institution_of, measure_case
from tests.gate_mutations.suite import Outcome, run_suite
from tests.shared_data import REAL_CASES

from brats_fl.files import write_whole
from brats_fl.gate import RULES

PAGE = Path(__file__).parents[2] / "docs" / "data-gate.md"
MARGINS_BEGIN, MARGINS_END = (
    "<!-- margins: written by `python -m tests.gate_mutations` -->\n",
    "<!-- end of margins -->\n",
)
SAMPLE_HOSPITALS = tuple((hospital, index) for hospital in range(1, 6) for index in range(1, 5))
BEGIN, END = "<!-- faults: written by `python -m tests.gate_mutations` -->\n", "<!-- end of faults -->\n"


def main() -> None:
    """Run the suite and replace the table between the two markers of the page."""
    if not REAL_CASES.is_dir():
        sys.exit(f"{REAL_CASES}: no real cases; the table is for sample and real ones, and stays as it is")
    replace_table(MARGINS_BEGIN, draw_margins(find_margins(measure_sound_cases())), MARGINS_END)
    if sys.argv[1:] == ["margins"]:
        return
    with tempfile.TemporaryDirectory() as folder:
        outcomes = {"sample": run_suite(sample_cases(Path(folder)), report)}
    outcomes["real"] = run_suite(real_cases(), report)
    replace_table(BEGIN, draw_table(outcomes), END)


def replace_table(begin: str, table: str, end: str) -> None:
    """Put a table between two markers of the page."""
    before, rest = PAGE.read_text(encoding="utf-8").split(begin)
    write_whole(PAGE, before + begin + table + end + rest.split(end)[1])


def measure_sound_cases() -> Iterator[tuple[str, dict[str, float]]]:
    """Institution and numbers of every sound case: sample hospitals, the real cases, and the odd one beside them."""
    with tempfile.TemporaryDirectory() as folder:
        for clean in sample_cases(Path(folder), which=SAMPLE_HOSPITALS):
            yield institution_of(clean), measure_case(clean)
    for cases in (REAL_CASES, REAL_CASES.parent / "odd"):
        for clean in real_cases(cases):
            yield institution_of(clean), measure_case(clean)


def report(line: str) -> None:
    """One line of progress."""
    sys.stderr.write(f"{line}\n")


def draw_table(outcomes: Mapping[str, Outcome]) -> str:
    """A row a fault: its rule, how often it was found, and in how many clean cases that rule found something."""
    kinds = list(outcomes)
    heads = ["fault", "rule", *(f"found, {kind}" for kind in kinds), *(f"false alarms, {kind}" for kind in kinds)]
    lines = [heads, ["---"] * len(heads)]
    for fault in FAULTS:
        found = [count_hits(fault.rule, o.found[fault.name].values()) for o in outcomes.values()]
        alarms = [f"{o.alarms_of(fault.rule)} of {len(o.clean)}" for o in outcomes.values()]
        lines.append([fault.name, f"`{fault.rule}`", *found, *alarms])
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def count_hits(rule: str, hits: Collection[str]) -> str:
    """How often a fault was found, and how often with a warning in place of an error."""
    doubts = sum(hit == "warning" for hit in hits) if RULES[rule].severity == "error" else 0
    count = f"{sum(bool(hit) for hit in hits)} of {len(hits)}"
    return f"{count} ({doubts} as a warning)" if doubts else count


if __name__ == "__main__":
    main()
