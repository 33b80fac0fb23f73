"""What an evaluation reads of the hospitals, and what it leaves, whoever made the masks."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import typer

from brats_fl.cases.datalists import DATALIST_FILE, Case, list_sites, read_datalist, scans_of
from brats_fl.cases.scans import split_volume
from brats_fl.errors import DataListError, FolderError, RunError
from brats_fl.files import CASE_TABLE_FILE, write_whole
from brats_fl.machine import describe_machine
from brats_fl.provenance import find_commit
from brats_fl_tools.data.synthetic import is_synthetic
from brats_fl_tools.own_folders import claim, refuse_foreign
from brats_fl_tools.runs.folder import EVALUATION_FILE, MASKS_FOLDER, now, versions


def sites_with_cases(
    sites: Path, split: str, only: Collection[str] | None = None, scans: bool = True
) -> dict[str, int]:
    """Number of labelled cases of a split per site, of all sites or of some.

    Args:
        sites: Folder with ``SITE/datalist.json``.
        split: Whose cases.
        only: Names of sites; None for all.
        scans: Whether the cases' scans will be read, too, and must be there.

    Raises:
        DataListError: A data list is wrong, no site has a case of the split, or a scan is not where its list says.
    """
    from brats_fl.scoring.evaluation import load_labelled

    counts: dict[str, int] = {}
    found: list[tuple[str, Case]] = []
    for path in _lists_of(sites):
        if only is not None and path.parent.name not in only:
            continue
        cases = read_datalist(path).split(split)
        if cases:
            counts[path.parent.name] = len(load_labelled(path, split))
            found += [(path.parent.name, case) for case in cases]
        else:
            typer.echo(f"{path.parent.name}: no case for {split}, left out")
    if not counts:
        raise DataListError(f"{sites}: no site has a case for {split}; make data lists with `brats-fl partition`")
    if scans:
        refuse_lost(found)
    tell_repeats(found)
    return counts


def refuse_lost(cases: Iterable[tuple[str, Case]]) -> None:
    """Raise ``DataListError`` where scans or labels of cases are not there, before the first hour goes into others."""
    files = [(f"{site}/{case.case}", split_volume(file)[0]) for site, case in cases for file in scans_of(case).values()]
    lost = [(name, file) for name, file in files if not file.is_file()]
    if lost:
        name, file = lost[0]
        raise DataListError(
            f"{len(lost)} of {len(files)} files that the data lists name are not there, the first is {file} of {name}; "
            "put them back where they were, or take the cases off the list"
        )


def _lists_of(sites: Path) -> list[Path]:
    """Every ``SITE/datalist.json`` of a folder.

    Raises:
        DataListError: There is none.
    """
    found = list_sites(sites)
    if not found:
        why = f"holds no SITE/{DATALIST_FILE}" if sites.is_dir() else "is no folder"
        raise DataListError(f"{sites}: {why}; --sites names a folder of sites as `brats-fl partition` writes it")
    return found


def tell_repeats(cases: Iterable[tuple[str, Case]]) -> None:
    """Say which cases count more than once in every mean, as they have a scan of an earlier one.

    Args:
        cases: With their sites. Names may be alike at two hospitals; the same file is the same case.
    """
    first: dict[str, str] = {}
    for site, case in cases:
        name = f"{site}/{case.case}"
        earlier = [first.setdefault(os.path.realpath(scan), name) for scan in case.image]
        if other := next((one for one in earlier if one != name), None):
            typer.echo(f"note: {name} has scans of {other}, so that one case counts twice; keep one of them", err=True)


def count_synthetic(sites: Path, names: Iterable[str], split: str) -> int:
    """How many cases of a split of these sites are synthetic."""
    return sum(
        is_synthetic(case) for name in names for case in read_datalist(sites / name / DATALIST_FILE).split(split)
    )


def refuse_earlier(out: Path, force: bool) -> None:
    """Refuse to replace an earlier evaluation.

    Raises:
        RunError: There is one, and ``force`` is not given.
        FolderError: ``out`` is a file, or there are masks that no evaluation wrote.
    """
    if out.is_file():
        raise FolderError(f"{out}: is a file; --out names a folder")
    existing = [path for path in (out / CASE_TABLE_FILE, out / MASKS_FOLDER) if path.exists()]
    if existing and not force:
        raise RunError(f"{existing[0]} exists; choose another --out or add --force")
    refuse_foreign(out / MASKS_FOLDER, "masks", force)


def describe_evaluation(sites: Path, counts: Mapping[str, int], split: str, begin: float) -> dict[str, Any]:
    """What ``evaluation.json`` says of any evaluation that began then, by ``time.perf_counter``."""
    cases = sum(counts.values())
    return {
        "split": split,
        "cases": cases,
        "synthetic_cases": count_synthetic(sites, counts, split),
        "seconds_per_case": round((time.perf_counter() - begin) / cases, 2),
        "sites_dir": str(sites),
        "finished": now(),
        "versions": versions(),
        **({"commit": commit} if (commit := find_commit()) else {}),
        "machine": describe_machine(),
    }


def replace_masks(out: Path, made: Mapping[str, Path]) -> None:
    """Put each site's folder of masks in the place of what an earlier evaluation left, its table included.

    No table stays beside the masks of another model, nor the other way round.
    """
    (out / CASE_TABLE_FILE).unlink(missing_ok=True)
    shutil.rmtree(out / MASKS_FOLDER, ignore_errors=True)
    if made:
        claim(out / MASKS_FOLDER, "masks")
    for site, folder in made.items():
        shutil.move(folder, out / MASKS_FOLDER / site)


def write_evaluation(out: Path, facts: Mapping[str, Any], table: str) -> None:
    """Write ``evaluation.json`` and then, as the last file, ``evaluation.csv``."""
    write_whole(out / EVALUATION_FILE, json.dumps(facts, indent=1) + "\n")
    write_whole(out / CASE_TABLE_FILE, table)
