"""Which institution a case comes from: told by its name, by BraTS's mapping or by a table.

Three tables are understood:

* columns ``case`` and ``institution``, and ``hospital`` where sites are to be named by it;
* ``name_mapping.csv`` of a BraTS 2019 or 2020 download: columns ``BraTS_<year>_subject_ID``. The middle part
  of a 2017 to 2019 id is the institution (``BraTS19_TCIA01_231_1`` is TCIA01's);
* FeTS's ``partitioning_1.csv`` (by institution) and ``partitioning_2.csv`` (the largest split once more by tumour
  size): columns ``Partition_ID`` and ``Subject_ID``. The numbers of FeTS 2022 are those of BraTS 2021:
  ``BraTS2021_00000`` is found as well as ``FeTS2022_00000``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from brats_fl.errors import CaseError
from brats_fl.typed import shorten
from brats_fl_tools.data.case_table import READER, CaseRow

UNLISTED = "unlisted"
"""Institution of the cases that were new in BraTS 2020: the challenge did not publish whose they are."""

_NAMES = (
    # BraTS 2017 to 2019: Brats18_TCIA01_201_1 is institution TCIA01, patient 201, time point 1.
    re.compile(r"(?P<patient>brats1[789]_(?P<institution>[a-z0-9]+)_[a-z0-9]+)_(?P<time_point>\d+)", re.IGNORECASE),
    # BraTS 2023 and later: BraTS-GLI-00005-001 is patient 00005, time point 001; no institution.
    re.compile(r"(?P<patient>brats-[a-z]+-\d+)-(?P<time_point>\d+)(?P<institution>)", re.IGNORECASE),
    # UPENN-GBM-00001_11 is the first examination of patient 00001, _21 a later one.
    re.compile(r"(?P<patient>(?P<institution>UPENN)-GBM-\d+)_(?P<time_point>\d+)"),
    # UCSF-PDGM-0429_FU003d is an examination 3 days after UCSF-PDGM-0429.
    re.compile(r"(?P<patient>(?P<institution>UCSF)-PDGM-\d+)(_(?P<time_point>FU\d+d))?"),
)
_ID_COLUMN = re.compile(r"BraTS_\d{4}_subject_ID")


@dataclass(frozen=True)
class Origin:
    """Where a case comes from, as far as a table tells."""

    institution: str
    hospital: str = ""
    grade: str = ""


@dataclass(frozen=True)
class NameParts:
    """What a case's name says; institution and time point are empty where it does not tell."""

    patient: str
    time_point: str = ""
    institution: str = ""


def read_name(case: str) -> NameParts:
    """Parts of a BraTS name; the patient of another is the whole name."""
    for pattern in _NAMES:
        if match := pattern.fullmatch(case):
            return NameParts(**match.groupdict(default=""))
    return NameParts(patient=case)


def read_origins(path: Path) -> dict[str, Origin]:
    """Case -> origin, from any of the three tables.

    Raises:
        CaseError: The table is none of the three, a field is empty, or a case has two origins.
    """
    columns, records = READER.table(path)
    id_columns = sorted((column for column in columns if _ID_COLUMN.fullmatch(column)), reverse=True)
    origins: dict[str, Origin] = {}
    for line, record in records:
        if {"case", "institution"} <= set(columns):
            names, origin = [record["case"]], Origin(record["institution"], record.get("hospital", ""))
        elif {"Partition_ID", "Subject_ID"} <= set(columns):
            subject, number = record["Subject_ID"], record["Partition_ID"]
            names = [subject, subject.replace("FeTS2022_", "BraTS2021_")]
            origin = Origin(number and f"fets-{number}")
        elif id_columns:
            names = [record[column] for column in id_columns if record[column] not in ("", "NA")]
            origin = Origin(_newest_institution(names), grade=record.get("Grade", ""))
        else:
            raise CaseError(
                f"{path}: must have the columns case and institution, or be BraTS's name_mapping.csv or "
                f"FeTS's partitioning csv (got columns {shorten(columns)})"
            )
        if not names or not names[0] or not origin.institution:
            raise CaseError(f"{path}, line {line}: case or institution is empty; fill it in or delete the line")
        for name in names:
            if origins.setdefault(name, origin) != origin:
                raise CaseError(f"{path}, line {line}: case {name} has two different lines; keep one")
    return origins


def _newest_institution(names: Iterable[str]) -> str:
    """Institution of a mapping's row by its newest id: 2017's say ``TCIA`` without its number."""
    return next((found for name in names if (found := read_name(name).institution)), UNLISTED)


def assign_origins(path: Path, rows: Iterable[CaseRow], origins: Mapping[str, Origin]) -> list[CaseRow]:
    """Rows with the table's institution and hospital in place of their own.

    Args:
        path: The table that ``origins`` was read from, for the message.
        rows: Cases, each of which the table must name.
        origins: Case -> origin.

    Raises:
        CaseError: The table does not name a case.
    """
    rows = list(rows)
    unknown = [row.case for row in rows if row.case not in origins]
    if unknown:
        raise CaseError(
            f"{path}: names no institution for {len(unknown)} of {len(rows)} cases ({shortened(unknown)}); "
            "add them to the table, or take them out of the case table"
        )
    return [
        replace(row, institution=origins[row.case].institution, hospital=origins[row.case].hospital) for row in rows
    ]


def shortened(names: Iterable[str], most: int = 5) -> str:
    """The first few names, and how many more there are."""
    names = sorted(names)
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest
