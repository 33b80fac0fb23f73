"""The runs that a baseline consists of: who trains in each, on which lists, and whose cases it is tested on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal

from brats_fl.cases.datalists import DATALIST_FILE, Case, DataList, read_datalist, write_datalist
from brats_fl.constants import SPLITS
from brats_fl.errors import DataListError, JobError

Kind = Literal["local", "central", "leave-one-out"]

POOLED: Final = "pooled"
LISTS_FOLDER: Final = "lists"


@dataclass(frozen=True)
class Part:
    """One run of a baseline."""

    name: str
    """Of its run folder in the baseline's."""
    lists: Path
    """Folder with ``SITE/datalist.json`` of those that train."""
    trained: tuple[str, ...]
    tested: tuple[str, ...]
    """Hospitals of the folder of sites whose test cases it is evaluated on."""
    made_for: tuple[str, ...]
    """Those of them whose cases are in the baseline's own table under this model."""


def parts_of(kind: Kind, sites: Path, chosen: Sequence[str], out: Path) -> list[Part]:
    """The runs of a baseline; nothing is written, the pooled list of ``central`` neither: see ``write_pooled``.

    Args:
        kind: Which baseline.
        sites: Folder with ``SITE/datalist.json``.
        chosen: The hospitals of the federation that it is compared with.
        out: Folder of the baseline.

    Raises:
        JobError: There is one hospital, and none is left when it is left out.
        DataListError: A test case of one hospital is one that another trains on.
    """
    if kind == "local":
        return [Part(site, sites, (site,), (site,), (site,)) for site in chosen]
    refuse_shared_cases(sites, chosen)
    if kind == "central":
        return [Part(POOLED, out / LISTS_FOLDER, (POOLED,), tuple(chosen), tuple(chosen))]
    if len(chosen) < 2:
        raise JobError(f"{sites}: holds one hospital that trains, {chosen[0]}; leaving it out leaves nobody")
    return [
        # All are tested: what the others' cases lose without a hospital is what it contributes.
        Part(f"without-{site}", sites, tuple(other for other in chosen if other != site), tuple(chosen), (site,))
        for site in chosen
    ]


def refuse_shared_cases(sites: Path, chosen: Sequence[str]) -> None:
    """Refuse lists of which one tests on scans that another trains or chooses its model on.

    Raises:
        DataListError: Names the first such case, and both lists.
    """
    lists = {site: read_datalist(sites / site / DATALIST_FILE) for site in chosen}
    seen = {case.image: site for site, found in lists.items() for case in (*found.training, *found.validation)}
    for site, found in lists.items():
        for case in found.testing:
            if case.image in seen:
                raise DataListError(
                    f"{sites / site / DATALIST_FILE}: {case.case} is a test case, and {seen[case.image]} trains on the "
                    "same scans; take it out of one of the lists"
                )


def write_pooled(sites: Path, chosen: Sequence[str], folder: Path) -> Path:
    """Write ``FOLDER/pooled/datalist.json``, one list of all hospitals' cases, and return it.

    Patients are named by their hospital, and so are cases of a name that two hospitals have.
    """
    lists = {site: read_datalist(sites / site / DATALIST_FILE) for site in chosen}
    counts = Counter(case.case for found in lists.values() for split in SPLITS for case in found.split(split))

    def renamed(case: Case, site: str) -> Case:
        name = case.case if counts[case.case] == 1 else f"{site}-{case.case}"
        return replace(case, case=name, patient=f"{site}-{case.patient}")

    splits = {
        split: tuple(renamed(case, site) for site, found in lists.items() for case in found.split(split))
        for split in SPLITS
    }
    path = folder / POOLED / DATALIST_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    write_datalist(path, DataList(POOLED, **splits))
    return path
