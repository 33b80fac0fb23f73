"""Cases in a folder of the BraTS layouts or the decathlon's, as the bundles' ``inference`` takes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from brats_fl.cases import msd
from brats_fl.constants import DEFAULT_LABEL_TABLE, FILE_SUFFIXES, MODALITIES
from brats_fl.errors import CaseError, DataListError


def find_cases(folder: str | Path) -> list[dict[str, Any]]:
    """Items ``{"case", "image": [4 scans], "labels"}`` of every case below a folder, in the order of their names.

    A case is a folder that holds ``<case>_t1ce.nii.gz`` or ``<case>-t1c.nii.gz``, ``.nii`` too, or a file of
    ``imagesTr`` or ``imagesTs`` beside a ``dataset.json``, as in MSD Task01.

    Raises:
        DataListError: The folder is missing or holds no case.
        CaseError: A case lacks a modality, or has one twice; or two cases have the same name.
    """
    root = Path(folder)
    if not root.is_dir():
        raise DataListError(f"{root}: no such folder; set dataset_dir to the folder that holds the cases")
    items: dict[str, dict[str, Any]] = {}
    places: dict[str, Path] = {}
    for place in sorted(path for path in [root, *root.rglob("*")] if path.is_dir()):
        for item in _msd_items(place) if msd.is_msd(place) else _folder_items(place):
            case = item["case"]
            if case in items:
                raise CaseError(f"{case}: two cases have this name; rename one ({places[case]} and {place})")
            items[case], places[case] = item, place
    if not items:
        raise DataListError(f"{root}: holds no case; expected folders with <case>_t1ce.nii.gz or <case>-t1c.nii.gz")
    return [items[case] for case in sorted(items)]


def _msd_items(folder: Path) -> list[dict[str, Any]]:
    order = msd.read_volume_order(folder)
    files = [*msd.list_images(folder, msd.IMAGES), *msd.list_images(folder, msd.TEST_IMAGES)]
    return [
        {
            "case": msd.case_name(file),
            "image": [str(scan) for scan in msd.name_scans(file, order)],
            "labels": msd.LABEL_TABLE,
        }
        for file in files
    ]


def _folder_items(folder: Path) -> list[dict[str, Any]]:
    """The one case of a folder, or none."""
    found = {name: _files(folder, FILE_SUFFIXES[name]) for name in MODALITIES}
    if not any(found.values()):
        return []
    for name, files in found.items():
        if len(files) != 1:
            what = f"has {len(files)} files for {name}" if files else f"has no {name}"
            raise CaseError(
                f"{folder.name}: {what}; a case needs one file per modality, named "
                f"{' or '.join(f'<case>{suffix}.nii[.gz]' for suffix in FILE_SUFFIXES[name])} ({folder})"
            )
    table = "brats2023" if any("-t1c." in file.name for file in found["t1c"]) else DEFAULT_LABEL_TABLE
    return [{"case": folder.name, "image": [str(found[name][0]) for name in MODALITIES], "labels": table}]


def _files(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    return sorted(
        path
        for path in folder.iterdir()
        # Archives made on a Mac bring a ._name beside each file.
        if path.is_file()
        and not path.name.startswith(".")
        and any(path.name.endswith((f"{suffix}.nii", f"{suffix}.nii.gz")) for suffix in suffixes)
    )
