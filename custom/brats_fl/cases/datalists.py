"""Data lists: which cases of a site are for training, validation and testing. A data list never leaves its site."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from brats_fl.constants import DEFAULT_LABEL_TABLE, LABEL, LABEL_TABLES, MODALITIES, SPLITS
from brats_fl.errors import DataListError
from brats_fl.files import is_passed_over, write_whole
from brats_fl.reading import Reader
from brats_fl.typed import shorten

DATALIST_FILE = "datalist.json"
DATALIST_VARIABLE = "BRATS_FL_DATALIST"
SITES_VARIABLE = "BRATS_FL_SITES"
CACHE_VARIABLE = "BRATS_FL_CACHE"

READER: Final = Reader(
    DataListError,
    "mend it, or make one with `brats-fl partition`",
    "no such data list; make one with `brats-fl partition`",
)


@dataclass(frozen=True)
class Case:
    """One subject at one time point: four scans and, where known, the label."""

    case: str
    patient: str
    image: tuple[str, ...]
    """Paths of the four scans, in the order of ``MODALITIES``; a volume of a 4-D file is ``path#k``, k from 0."""
    label: str | None = None
    labels: str = DEFAULT_LABEL_TABLE
    """Name of the label convention, a key of ``LABEL_TABLES``."""


def scans_of(case: Case) -> dict[str, str]:
    """Modality, or ``label`` where the case has one -> the scan as the data list names it."""
    scans = dict(zip(MODALITIES, case.image, strict=True))
    return scans if case.label is None else {**scans, LABEL: case.label}


@dataclass(frozen=True)
class DataList:
    """The cases of one site, split once and for all."""

    site: str
    training: tuple[Case, ...] = ()
    validation: tuple[Case, ...] = ()
    testing: tuple[Case, ...] = ()

    def split(self, name: str) -> tuple[Case, ...]:
        """Cases of a split; ``DataListError`` where the name is none of ``SPLITS``."""
        if name not in SPLITS:
            raise DataListError(f"split must be one of {', '.join(SPLITS)} (got {shorten(name)})")
        return getattr(self, name)


def read_datalist(path: Path) -> DataList:
    """Data list of a file, checked, with absolute paths.

    Relative paths in the file are relative to the file's folder.

    Raises:
        DataListError: As ``parse_datalist``, a case is named twice, or a patient is in two splits.
    """
    datalist = parse_datalist(path)
    check_unique(path, datalist)
    return datalist


def parse_datalist(path: Path) -> DataList:
    """Data list of a file as ``read_datalist``, but what stands twice in it is left for the data gate to find.

    Raises:
        DataListError: The file is missing or is no data list, or an entry lacks a field.
    """
    content = READER.json(path)
    if not isinstance(content, dict):
        raise DataListError(
            f"{path}: must hold an object with the keys {', '.join(SPLITS)}; write it with `brats-fl partition`"
        )
    unknown = sorted(set(content) - {"site", *SPLITS})
    if unknown:
        raise DataListError(
            f"{path}: unknown key {shorten(unknown[0])}; a data list has site, {', '.join(SPLITS)}: remove it"
        )
    splits: dict[str, tuple[Case, ...]] = {}
    for name in SPLITS:
        entries = content.get(name, [])
        if not isinstance(entries, list):
            READER.refuse(path, f"{name} must be a list of cases (got {type(entries).__name__})")
        splits[name] = tuple(_parse_case(path, name, index, entry) for index, entry in enumerate(entries))
    site = content.get("site", path.parent.name)
    return DataList(site=_one_line(site, path, "site"), **splits)


def _parse_case(path: Path, split: str, index: int, entry: Any) -> Case:
    place = f"{path}: {split}[{index}]"
    if not isinstance(entry, dict):
        raise DataListError(f"{place} must be an object with case, image and label")
    for key in ("case", "image"):
        if key not in entry:
            raise DataListError(f"{place} has no {shorten(key)}; add it")
    name = _one_line(entry["case"], place, "case")
    if not name or name != Path(name).name:
        raise DataListError(f"{place}: case must be a name that can name a file, without / (got {shorten(name)})")
    image = entry["image"]
    if not isinstance(image, list) or len(image) != len(MODALITIES) or not all(isinstance(file, str) for file in image):
        raise DataListError(
            f"{place} ({name}): image must list {len(MODALITIES)} files in the order {', '.join(MODALITIES)}"
        )
    table = entry.get("labels", DEFAULT_LABEL_TABLE)
    if not isinstance(table, str) or table not in LABEL_TABLES:
        raise DataListError(f"{place} ({name}): labels must be one of {', '.join(LABEL_TABLES)} (got {shorten(table)})")
    label = entry.get("label")
    if label is None and split != "testing":
        raise DataListError(f"{place} ({name}): a case for {split} needs a label; move it to testing or add the label")
    folder = path.parent.resolve()
    return Case(
        case=name,
        patient=_one_line(entry.get("patient", name), place, "patient"),
        image=tuple(str(folder / file) for file in image),
        label=None if label is None else str(folder / READER.typed(str, label, f"{place}: label")),
        labels=table,
    )


def _one_line(value: object, place: Path | str, key: str) -> str:
    """A name; a whole number is one, too."""
    name = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if not isinstance(name, str) or "\n" in name or "\t" in name:
        READER.refuse(place, f"{key} must be one line of text (got {shorten(value)})")
    return name


def check_unique(path: Path, datalist: DataList) -> None:
    """Raise ``DataListError`` where a case stands twice, or one patient in two splits."""
    seen: dict[str, str] = {}
    split_of_patient: dict[str, str] = {}
    for split in SPLITS:
        for case in datalist.split(split):
            if case.case in seen:
                where = f"twice in {split}" if seen[case.case] == split else f"in {seen[case.case]} and in {split}"
                raise DataListError(f"{path}: case {case.case} stands {where}; keep one of the two")
            seen[case.case] = split
            if split_of_patient.setdefault(case.patient, split) != split:
                raise DataListError(
                    f"{path}: patient {case.patient} has cases in {split_of_patient[case.patient]} and in {split}; "
                    "keep a patient in one split"
                )


def write_datalist(path: Path, datalist: DataList) -> None:
    """Write a data list; the file appears whole or not at all."""
    content: dict[str, Any] = {"site": datalist.site}
    for split in SPLITS:
        content[split] = [
            {key: value for key, value in asdict(case).items() if value is not None} for case in datalist.split(split)
        ]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(content, indent=1) + "\n")


def load_split(path: str | Path, split: str) -> list[dict[str, Any]]:
    """Cases of one split as MONAI wants them: ``{"case", "image": [4 paths], "label", "labels"}``.

    Raises:
        DataListError: As ``read_datalist``, or the split is empty.
    """
    cases = read_datalist(Path(path)).split(split)
    if not cases:
        raise DataListError(f"{path}: {split} is empty; at least one case is needed")
    return [as_monai_item(case) for case in cases]


def as_monai_item(case: Case) -> dict[str, Any]:
    """A case as an item of a MONAI dataset."""
    item: dict[str, Any] = {"case": case.case, "image": list(case.image), "labels": case.labels}
    if case.label is not None:
        item["label"] = case.label
    return item


def find_datalist(site: str, kit: Path | None = None, environ: Mapping[str, str] = os.environ) -> Path:
    """Path of a site's data list: ``BRATS_FL_DATALIST``, else ``local/`` of its kit, else ``$BRATS_FL_SITES/<site>/``.

    Args:
        site: Name of the site.
        kit: Root of the site's startup kit, the folder that holds ``local``.
        environ: Environment of the process.

    Raises:
        DataListError: None of the three is there, or the first is set to a file that is not; the text names all.
    """
    if own := environ.get(DATALIST_VARIABLE):
        if not Path(own).is_file():
            raise DataListError(
                f"{DATALIST_VARIABLE} is set to {own}, which is no file; set it to the site's data list"
            )
        return Path(own)
    places: Sequence[Path | None] = (
        kit / "local" / DATALIST_FILE if kit else None,
        Path(environ[SITES_VARIABLE]) / site / DATALIST_FILE if environ.get(SITES_VARIABLE) else None,
    )
    for place in places:
        if place is not None and place.is_file():
            return place.resolve()  # a kit's is a link to the site's own file, where relative paths begin
    in_kit = f"{places[0]} is not there" if places[0] else "there is no kit with local/" + DATALIST_FILE
    in_sites = f"{places[1]} is not there" if places[1] else f"{SITES_VARIABLE} is not set"
    raise DataListError(
        f"{site} has no data list: {DATALIST_VARIABLE} is not set, {in_kit}, and {in_sites}; "
        "write one with `brats-fl partition`"
    )


def find_datalists(where: Path) -> list[Path]:
    """The data list that is given, or every ``SITE/datalist.json`` of a folder.

    Raises:
        DataListError: There is none.
    """
    if not where.is_dir():
        if not where.exists():
            raise DataListError(f"{where}: {READER.missing}")
        return [where]
    found = list_sites(where)
    own = where / DATALIST_FILE
    if not found and not own.is_file():
        raise DataListError(
            f"{where}: holds no SITE/{DATALIST_FILE}; give a data list, or a folder of sites as "
            "`brats-fl partition` writes it"
        )
    return found or [own]


def list_sites(folder: Path) -> list[Path]:
    """Every ``SITE/datalist.json`` of a folder, sorted; those in hidden folders, such as ``.snapshot``, left out."""
    return sorted(path for path in folder.glob(f"*/{DATALIST_FILE}") if not is_passed_over(path.parent.name))


def default_cache_dir(datalist: str | Path) -> str:
    """Folder of preprocessed cases: ``$BRATS_FL_CACHE``, else the folder ``cache`` beside the site's data list."""
    return os.environ.get(CACHE_VARIABLE) or str(Path(datalist).resolve().parent / "cache")
