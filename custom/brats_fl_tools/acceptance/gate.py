"""What the data gate finds in a study's lists, where they are at hand: by rule and hospital, no case by its name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from brats_fl.cases.datalists import DATALIST_FILE, DataList, read_datalist
from brats_fl.cases.scans import split_volume
from brats_fl.constants import SPLITS
from brats_fl.errors import BratsFLError
from brats_fl.gate import Finding, mark_accepted, read_acceptances
from brats_fl.gate.findings import ERROR, RULES
from brats_fl.gate.lists import entries_of
from brats_fl_tools.acceptance.evidence import Candidate
from brats_fl_tools.check import count_cores
from brats_fl_tools.check.verdict import check_entries


@dataclass(frozen=True)
class GateCount:
    """Findings of one rule at one hospital."""

    site: str
    rule: str
    says: str
    """What must hold."""
    errors: int
    warnings: int
    accepted: int
    """That somebody accepted as sound; they are not among the warnings."""


@dataclass(frozen=True)
class GateFindings:
    """Of the lists of one partition."""

    partition: str
    cases: Mapping[str, int]
    """Hospital whose scans were read -> its cases."""
    absent: tuple[str, ...]
    """Hospitals whose list or scans are not at hand."""
    counts: tuple[GateCount, ...]


def check_study(candidates: Iterable[Candidate], sites: Path | None = None) -> tuple[GateFindings, ...]:
    """Run the data gate over the lists that the runs of a study stand on, once for each partition.

    Of folds the first has every case; of labels spoilt on purpose those that were trained on are read.

    Args:
        candidates: Jobs on their partitions.
        sites: Where the data lists are now, if not where the runs say.

    Raises:
        RunError: A process of the check died.
    """
    places: dict[str, tuple[Path, tuple[str, ...]]] = {}
    for one in candidates:
        places.setdefault(one.partition, (sites or one.own_runs[0].sites_dir, one.federated.sites))
    return tuple(_check(partition, *place) for partition, place in places.items())


def _check(partition: str, folder: Path, hospitals: Iterable[str]) -> GateFindings:
    lists = {site: _at_hand(folder / site / DATALIST_FILE) for site in hospitals}
    there = {site: found for site, found in lists.items() if found is not None}
    entries = entries_of(there.values())
    findings = check_entries(entries, count_cores(), headers_only=False) if entries else []
    marked = [
        finding
        for site, found in there.items()
        for finding in mark_accepted(
            (one for one in findings if one.site == found.site), read_acceptances(folder / site / DATALIST_FILE)
        )
    ]
    return GateFindings(
        partition,
        {site: sum(len(found.split(split)) for split in SPLITS) for site, found in there.items()},
        tuple(site for site, found in lists.items() if found is None),
        count_findings(marked),
    )


def _at_hand(path: Path) -> DataList | None:
    """A hospital's list, if it can be read and a scan of it is there."""
    try:
        datalist = read_datalist(path)
        read_acceptances(path)
    except BratsFLError:
        return None
    scans = (scan for split in SPLITS for case in datalist.split(split) for scan in case.image)
    return datalist if any(split_volume(scan)[0].is_file() for scan in scans) else None


def count_findings(findings: Iterable[Finding]) -> tuple[GateCount, ...]:
    """Findings by hospital and rule, in the order of the findings' hospitals and of the rules."""
    told = [(one.site, one.rule, "accepted" if one.accepted else one.severity) for one in findings]
    counts = Counter(told)
    places = sorted(dict.fromkeys((site, rule) for site, rule, _ in told), key=lambda place: place[1])
    order = list(dict.fromkeys(site for site, _, _ in told))
    return tuple(
        GateCount(
            site, rule, RULES[rule].says, counts[site, rule, ERROR], counts[site, rule, "warning"],
            counts[site, rule, "accepted"],
        )
        for site, rule in sorted(places, key=lambda place: order.index(place[0]))
    )  # fmt: skip
