"""The record of a partition, ``partition.json``: from it, anyone with the data writes the same lists again.

Its hashes speak of cases, patients, splits and label conventions, and not of where the files lie: the same study has
the same hash on every machine. Voxels are not in them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from brats_fl.cases.datalists import DataList
from brats_fl.constants import SPLITS
from brats_fl.errors import DataListError
from brats_fl.reading import Reader
from brats_fl_tools.data.case_table import CaseRow
from brats_fl_tools.partition.plan import Options, Partition, option_fault
from brats_fl_tools.partition.splits import SPLIT_RULE

MANIFEST_FILE = "partition.json"
READER = Reader(DataListError, f"give the {MANIFEST_FILE} that `brats-fl partition` wrote")


@dataclass(frozen=True)
class Inputs:
    """What a partition was made from."""

    cases: str
    """Name of the table."""
    institutions: str | None
    """Name of the table that was given with ``--institutions``."""
    sha256: str
    """Of all that the partition may depend on."""


@dataclass(frozen=True)
class Manifest:
    """What a manifest asks for."""

    path: Path
    options: Options
    cases_sha256: str
    """Of what the partition was made from."""
    institutions: str | None
    """Name of the table that was given with ``--institutions``."""
    study_sha256: str
    """Of what came out."""


def hash_cases(rows: Iterable[CaseRow]) -> str:
    """SHA-256 of all that a partition may depend on, whatever the order of the rows and the place of the files."""
    facts = [
        [
            *(row.case, row.patient, row.institution, row.hospital, row.grade, row.labels),
            row.label is not None,
            None if row.tumour_ml is None else f"{row.tumour_ml:.3f}",
        ]
        for row in sorted(rows, key=lambda row: row.case)
    ]
    return _hash(facts)


def hash_list(datalist: DataList, shift: float = 0.0) -> str:
    """SHA-256 of a data list: its site, each split's cases, patients and conventions, how far scans are altered."""
    splits = {split: _facts_of_split(datalist, split) for split in SPLITS}
    return _hash({"site": datalist.site, "shift": shift, **splits})


def hash_split(datalist: DataList, split: str) -> str:
    """SHA-256 of one split of a data list: its cases, patients and conventions."""
    return _hash(_facts_of_split(datalist, split))


def _facts_of_split(datalist: DataList, split: str) -> list[list[str]]:
    return [[case.case, case.patient, case.labels] for case in datalist.split(split)]


def hash_study(partition: Partition) -> str:
    """SHA-256 over the hashes of all lists, which states a study's split in one line."""
    return _hash({d.site: hash_list(d, partition.shifts.get(d.site, 0.0)) for d in partition.datalists})


def _hash(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def build_manifest(
    options: Options, partition: Partition, rows: Iterable[CaseRow], cases: Path, institutions: Path | None
) -> dict[str, Any]:
    """Content of ``partition.json``."""
    return {
        "study_sha256": hash_study(partition),
        "brats_fl": version("brats-fl"),
        "options": {**asdict(options), "strategy": options.strategy.value},
        "inputs": asdict(Inputs(cases.name, institutions.name if institutions else None, hash_cases(rows))),
        "rule": partition.rule,
        "split_rule": SPLIT_RULE,
        "stratified_by": partition.strata,
        "unlabelled": list(partition.unlabelled),
        "sites": {datalist.site: _describe(datalist, partition) for datalist in partition.datalists},
    }


def _describe(datalist: DataList, partition: Partition) -> dict[str, Any]:
    site = datalist.site
    shift = partition.shifts.get(site, 0.0)
    return {
        "institutions": partition.institutions(site),
        "patients": len({row.patient for row in partition.cases[site]}),
        "cases": {split: len(datalist.split(split)) for split in SPLITS},
        "left_out": site == partition.leave_out,
        "shift": shift,
        "sha256": hash_list(datalist, shift),
    }


def read_manifest(path: Path) -> Manifest:
    """What a ``partition.json`` asks for.

    Raises:
        DataListError: The file cannot be read, lacks a field, or has an option that is unknown or out of its range.
    """
    content = READER.json_object(path)
    options = READER.at(Options, content, ["options"], path)
    if fault := option_fault(options):
        READER.refuse(path, f"option {fault[0]} {fault[1]}")
    study, inputs = READER.at(str, content, ["study_sha256"], path), READER.at(Inputs, content, ["inputs"], path)
    return Manifest(path, options, inputs.sha256, inputs.institutions, study)


def check_inputs(manifest: Manifest, rows: Iterable[CaseRow], cases: Path, institutions: Path | None) -> None:
    """Raise ``DataListError`` where the cases are not those that the manifest was made from."""
    if hash_cases(rows) == manifest.cases_sha256:
        return
    table = ""
    if manifest.institutions and institutions is None:
        table = f" It was made with --institutions {manifest.institutions}: give that too."
    raise DataListError(
        f"{cases}: holds other cases, patients, institutions, grades or tumour volumes than {manifest.path} was made "
        f"from, so that other lists would come out; import the same data again.{table}"
    )


def check_result(manifest: Manifest, partition: Partition) -> None:
    """Raise ``DataListError`` where other lists came out than the manifest's."""
    if (found := hash_study(partition)) != manifest.study_sha256:
        raise DataListError(
            f"{manifest.path}: the same cases gave other lists, study {found} in place of {manifest.study_sha256}; use "
            "the version of brats-fl that the manifest names"
        )
