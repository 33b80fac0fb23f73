"""Plants every fault in every clean case, runs the gate, and counts what its rules found."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from tests.gate_mutations.clean_cases import Clean
from tests.gate_mutations.faults import FAULTS, Fault

from brats_fl.cases.datalists import DataList
from brats_fl.gate import Finding, check_case, check_list
from brats_fl.gate.lists import entries_of

RIGHT_ON_SAMPLE = frozenset({"G08-spacing-not-1mm"})
"""The sample is at 2 mm: no false alarm."""


@dataclass
class Outcome:
    """What became of the faults and of the clean cases."""

    clean: list[str] = field(default_factory=list)
    found: dict[str, dict[str, str]] = field(default_factory=lambda: {fault.name: {} for fault in FAULTS})
    """Fault -> clean case that it was planted in -> severity of what its rule found; empty where it found nothing."""
    alarms: list[Finding] = field(default_factory=list)
    """What the gate found in the cases as they are."""

    def alarms_of(self, rule: str) -> int:
        """Clean cases in which a rule found something."""
        return len({finding.case for finding in self.alarms if finding.rule == rule})


def pairs_of(cases: Iterable[Clean]) -> Iterator[tuple[Clean, Clean]]:
    """Every case with another one, two of them in memory at a time."""
    iterator = iter(cases)
    first = next(iterator)
    previous = next(iterator)
    yield first, previous
    yield previous, first
    for case in iterator:
        yield case, previous
        previous = case


def run_suite(cases: Iterable[Clean], report: Callable[[str], None] = lambda line: None) -> Outcome:
    """Every fault, planted in every case."""
    outcome = Outcome()
    for clean, other in pairs_of(cases):
        name = clean.case.case
        outcome.clean.append(name)
        as_it_is = run_gate([DataList("hospital-1", training=(clean.case,))])
        outcome.alarms += [finding for finding in as_it_is if finding.rule not in RIGHT_ON_SAMPLE]
        for fault in FAULTS:
            found = find_fault(fault, clean, other, as_it_is)
            if found is not None:
                outcome.found[fault.name][name] = found
            if found == "":
                report(f"{name}: missed: {fault.name}")
        report(f"{name}: {len(FAULTS)} faults planted")
    return outcome


def find_fault(fault: Fault, clean: Clean, other: Clean, as_it_is: Iterable[Finding]) -> str | None:
    """How the fault's rule calls what it does not find in the case as it is; None where the fault has no place."""
    before = {(finding.rule, finding.found) for finding in as_it_is}
    with tempfile.TemporaryDirectory() as folder:
        planted = fault.plant(clean, other, Path(folder))
        if planted is None:
            return None
        lists = planted if isinstance(planted, list) else [DataList("hospital-1", training=(planted,))]
        findings = run_gate(lists)
    return min((f.severity for f in findings if f.rule == fault.rule and (f.rule, f.found) not in before), default="")


def run_gate(datalists: Iterable[DataList]) -> list[Finding]:
    """Everything the gate finds in some lists."""
    entries = entries_of(datalists)
    return check_list(entries, [_check_case(entry.case) for entry in entries])


# Most faults leave the other case, and many this one, as they are.
_check_case = lru_cache(maxsize=4)(check_case)
