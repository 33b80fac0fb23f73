"""Folds of each hospital's cases: every case is tested once, by a model that has seen nothing of its patient."""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from brats_fl.cases.datalists import DATALIST_FILE, Case, DataList, list_sites, read_datalist, write_datalist
from brats_fl.constants import SPLITS
from brats_fl.errors import DataListError
from brats_fl.gate.acceptance import accepted_file
from brats_fl_tools.partition.splits import split_sizes
from brats_fl_tools.partition.strategies import shuffle_names

FOLD_RULE: Final = (
    "Within a hospital, the patients of its list, all splits together, are shuffled by name and dealt to the folds in "
    "turn. A fold's patients are its test cases; of those that follow in the order, as large a share is for validation "
    "as in the list, and the rest for training. Cases without a label are left out. The list of a hospital that trains "
    "on nothing stays as it is."
)
"""What a study says of its folds."""

Lists = Mapping[str, DataList]
"""Hospital -> its list."""


def read_lists(sites: Path) -> Lists:
    """The lists of a folder of sites.

    Raises:
        DataListError: There is none, or one is wrong.
    """
    found = {path.parent.name: read_datalist(path) for path in list_sites(sites)}
    if not found:
        what = f"no SITE/{DATALIST_FILE} there" if sites.is_dir() else "no such folder"
        raise DataListError(f"{sites}: {what}; make data lists with `brats-fl partition` or `brats-fl sample`")
    return found


def deal_folds(datalist: DataList, folds: int, place: Path) -> list[DataList]:
    """A hospital's list in as many folds, by ``FOLD_RULE``.

    Args:
        datalist: Of the hospital.
        folds: 2 or more.
        place: Where the list is, for the message.

    Raises:
        DataListError: There are fewer patients than folds.
    """
    if not datalist.training and not datalist.validation:
        return [datalist] * folds
    patients: dict[str, list[Case]] = defaultdict(list)
    for case in (case for split in SPLITS for case in datalist.split(split) if case.label is not None):
        patients[case.patient].append(case)
    if len(patients) < folds:
        raise DataListError(
            f"{place}: has {len(patients)} patients with a label, too few for {folds} folds; take fewer folds, or take "
            "the hospital out of the folder"
        )
    order = shuffle_names(patients, 0, "fold")
    seen = [{case.patient for case in datalist.split(split)} for split in ("training", "validation")]
    share = len(seen[1]) / (len(seen[0]) + len(seen[1]))
    return [_fold(datalist.site, patients, order, number, folds, share) for number in range(folds)]


def _fold(
    site: str, patients: Mapping[str, list[Case]], order: Sequence[str], number: int, folds: int, share: float
) -> DataList:
    tested = order[number::folds]
    rest = [name for name in (*order[number + 1 :], *order[:number]) if name not in tested]
    validated, _ = split_sizes(len(rest), share, 0.0)
    parts = {"testing": tested, "validation": rest[:validated], "training": rest[validated:]}
    cases = {split: tuple(case for name in sorted(names) for case in patients[name]) for split, names in parts.items()}
    return DataList(site, **cases)


def fold_lists(sites: Path, lists: Lists, folds: int) -> list[Lists]:
    """The lists of all hospitals, once a fold; raises as ``deal_folds``."""
    dealt = {site: deal_folds(found, folds, sites / site / DATALIST_FILE) for site, found in lists.items()}
    return [{site: found[number] for site, found in dealt.items()} for number in range(folds)]


def write_lists(folder: Path, lists: Lists, sites: Path) -> None:
    """Write a folder of sites, with what was accepted of the lists that they were made of.

    Args:
        folder: To write ``SITE/datalist.json`` into.
        lists: Of a fold.
        sites: Folder of the sites that were dealt.
    """
    for site, datalist in lists.items():
        write_datalist(folder / site / DATALIST_FILE, datalist)
        accepted, copy = (accepted_file(place / site / DATALIST_FILE) for place in (sites, folder))
        if accepted.is_file():
            shutil.copyfile(accepted, copy)
        else:
            copy.unlink(missing_ok=True)
