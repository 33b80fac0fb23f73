"""The case table: one row per case, the one form in which every later step meets a download.

A CSV file with the columns ``COLUMNS``, between commas, or between semicolons or tabs as a spreadsheet may save it.
The five path columns are relative to the table's folder where the file lies beneath it, so that table and scans can be
moved together, and absolute elsewhere; a volume of a 4-D file is ``path#k``. ``seg`` and ``tumour_ml`` are empty for a
case without a label; ``time_point``, ``institution`` and ``grade`` are empty where the download does not tell. A column
``hospital`` may be added by hand: ``brats-fl partition --strategy institution`` then names the sites by it. Column
names may be in capitals. Other columns are passed over.
"""

from __future__ import annotations

import csv
import io
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from brats_fl.cases.scans import split_volume
from brats_fl.constants import LABEL_TABLES, MODALITIES
from brats_fl.errors import CaseError
from brats_fl.files import write_whole
from brats_fl.numbers import is_finite
from brats_fl.reading import Reader, Table
from brats_fl.typed import shorten
from brats_fl_tools.one_writer import writes

COLUMNS = (
    *("case", "patient", "time_point", "institution", "grade", "labels"),
    *MODALITIES,
    *("seg", "tumour_ml", "shape", "spacing_mm"),
)

HOSPITAL = "hospital"

READER = Reader(CaseError, "save it as CSV in UTF-8", "no such table; write it with `brats-fl import`")

GRADES = ("HGG", "LGG")
"""High- and low-grade glioma, as BraTS 2018 to 2020 tell them."""


@dataclass(frozen=True)
class CaseRow:
    """One case of the table: a subject at one time point, its five files and what their headers say."""

    case: str
    patient: str
    image: tuple[Path, ...]
    """The four scans in the order of ``MODALITIES``, absolute; a volume of a 4-D file is ``path#k``."""
    label: Path | None
    labels: str
    """Name of the label convention, a key of ``LABEL_TABLES``."""
    shape: tuple[int, ...]
    """Voxels along the three axes."""
    spacing_mm: tuple[float, ...]
    institution: str = ""
    grade: str = ""
    hospital: str = ""
    time_point: str = ""
    tumour_ml: float | None = None
    """Volume of the whole tumour, everything that the label marks."""


@writes("path")
def write_case_table(path: Path, rows: Sequence[CaseRow], force: bool = False) -> None:
    """Write the table, sorted by case; it appears whole or not at all.

    Raises:
        CaseError: The file is there and ``force`` is not given.
    """
    refuse_existing_table(path, force)
    path.parent.mkdir(parents=True, exist_ok=True)
    table = io.StringIO()
    writer = csv.DictWriter(table, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(_as_record(row, path.parent.resolve()) for row in sorted(rows, key=lambda r: r.case))
    write_whole(path, table.getvalue())


def refuse_existing_table(path: Path, force: bool) -> None:
    """Raise ``CaseError`` where ``path`` is there and may not be replaced."""
    if path.is_dir():
        raise CaseError(f"{path}: is a folder; --out names a file, such as {path / 'cases.csv'}")
    if path.exists() and not force:
        raise CaseError(f"{path}: is already there; give --force to replace it, or another --out")


def _as_record(row: CaseRow, folder: Path) -> dict[str, str]:
    files = {**dict(zip(MODALITIES, row.image, strict=True)), "seg": row.label}
    return {
        "case": row.case,
        "patient": row.patient,
        "time_point": row.time_point,
        "institution": row.institution,
        "grade": row.grade,
        "labels": row.labels,
        **{column: "" if file is None else _shorten(file, folder) for column, file in files.items()},
        "tumour_ml": "" if row.tumour_ml is None else f"{row.tumour_ml:.3f}",
        "shape": "x".join(str(size) for size in row.shape),
        "spacing_mm": "x".join(f"{size:g}" for size in row.spacing_mm),
    }


def _shorten(file: Path, folder: Path) -> str:
    return (file.relative_to(folder) if file.is_relative_to(folder) else file).as_posix()


def read_case_table(path: Path) -> list[CaseRow]:
    """Rows of a case table, checked, with absolute paths.

    The files themselves are not looked for; ``check_files`` does that.

    Raises:
        CaseError: The file is missing or is no case table, a field is empty or malformed, a case stands
            twice, or a file, be it a scan or a label, does.
    """
    columns, records = _in_small_letters(path, *READER.table(path))
    missing = [column for column in COLUMNS if column not in columns]
    if missing:
        raise CaseError(f"{path}: column {shorten(missing[0])} is missing; write it with `brats-fl import`")
    if not records:
        raise CaseError(f"{path}: holds no case; write it again with `brats-fl import`")
    folder = path.parent.resolve()
    rows = [_parse_row(f"{path}, line {line}", folder, record) for line, record in records]
    for what, names in (
        ("case", [row.case for row in rows]),
        ("file", [str(file) for row in rows for file in (*row.image, row.label) if file is not None]),
    ):
        name, times = Counter(names).most_common(1)[0]
        if times > 1:
            raise CaseError(f"{path}: {what} {name} stands {times} times; keep one row of it")
    return rows


def _in_small_letters(path: Path, columns: Sequence[str], records: Sequence[tuple[int, dict[str, str]]]) -> Table:
    """The table with the names of its own columns as they are written here: a person may have written ``Hospital``."""
    own = {column: column.lower() if column.lower() in (*COLUMNS, HOSPITAL) else column for column in columns}
    if len(set(own.values())) < len(columns):
        twice = Counter(own.values()).most_common(1)[0][0]
        raise CaseError(f"{path}: column {twice} is there twice, in other capitals; keep one")
    return Table([*own.values()], [(line, {own[key]: record[key] for key in own}) for line, record in records])


def _parse_row(place: str, folder: Path, record: dict[str, str]) -> CaseRow:
    for column in ("case", *MODALITIES):
        if not record[column]:
            raise CaseError(f"{place}: {column} is empty; every case needs a name and four scans")
    labels = record["labels"]
    if labels not in LABEL_TABLES:
        raise CaseError(f"{place}: labels must be one of {', '.join(LABEL_TABLES)} (got {shorten(record['labels'])})")
    try:
        shape = tuple(int(size) for size in record["shape"].split("x"))
        spacing_mm = tuple(float(size) for size in record["spacing_mm"].split("x"))
    except ValueError:
        shape, spacing_mm = (), ()
    sizes = (*shape, *spacing_mm)
    if len(shape) != 3 or len(spacing_mm) != 3 or not all(is_finite(size) and size > 0 for size in sizes):
        got = f"{shorten(record['shape'])} and {shorten(record['spacing_mm'])}"
        raise CaseError(f"{place}: shape and spacing_mm must be like 240x240x155 and 1x1x1 (got {got})")
    try:
        tumour_ml = float(record["tumour_ml"]) if record["tumour_ml"] else None
    except ValueError:
        tumour_ml = math.nan
    if tumour_ml is not None and not (is_finite(tumour_ml) and tumour_ml >= 0):
        raise CaseError(
            f"{place}: tumour_ml must be a number with a decimal point, 0 or more, or empty "
            f"(got {shorten(record['tumour_ml'])})"
        )
    return CaseRow(
        case=record["case"],
        patient=record["patient"] or record["case"],
        image=tuple(folder / record[modality] for modality in MODALITIES),
        label=folder / record["seg"] if record["seg"] else None,
        labels=labels,
        shape=shape,
        spacing_mm=spacing_mm,
        institution=record["institution"],
        grade=record["grade"],
        hospital=record.get(HOSPITAL, ""),
        time_point=record["time_point"],
        tumour_ml=tumour_ml,
    )


def check_files(path: Path, rows: Iterable[CaseRow]) -> None:
    """Raise ``CaseError`` where a file that the table names is not there.

    Args:
        path: The table, for the message.
        rows: Its cases.
    """
    files = [split_volume(file)[0] for row in rows for file in (*row.image, row.label) if file is not None]
    lost = [file for file in files if not file.is_file()]
    if lost:
        raise CaseError(
            f"{path}: {len(lost)} of the {len(files)} files it names are not there, the first is {lost[0]}; "
            "put the scans back where they were, or import them again"
        )
