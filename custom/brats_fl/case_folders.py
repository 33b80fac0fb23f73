"""Cases in a folder of the BraTS layouts, labelled or not, as the bundles' ``inference`` takes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from brats_fl.constants import FILE_SUFFIXES, MODALITIES
from brats_fl.errors import CaseError, DataListError


def find_cases(folder: str | Path) -> list[dict[str, Any]]:
    """Items ``{"case", "image": [4 paths], "labels"}`` of every case below a folder, in the order of their names.

    A case is a folder that holds ``<case>_t1ce.nii.gz`` or ``<case>-t1c.nii.gz``, ``.nii`` too.

    Raises:
        DataListError: The folder is missing or holds no case.
        CaseError: A case lacks a modality, or has one twice; or two folders have the same name.
    """
    root = Path(folder)
    if not root.is_dir():
        raise DataListError(f"{root}: no such folder; set dataset_dir to the folder that holds the cases")
    items: list[dict[str, Any]] = []
    folders: dict[str, Path] = {}
    for case_folder in sorted(path for path in [root, *root.rglob("*")] if path.is_dir()):
        found = {name: _files(case_folder, FILE_SUFFIXES[name]) for name in MODALITIES}
        if not any(found.values()):
            continue
        for name, files in found.items():
            if len(files) != 1:
                what = f"has {len(files)} files for {name}" if files else f"has no {name}"
                raise CaseError(
                    f"{case_folder.name}: {what}; a case needs one file per modality, named "
                    f"{' or '.join(f'<case>{suffix}.nii[.gz]' for suffix in FILE_SUFFIXES[name])} ({case_folder})"
                )
        if (other := folders.setdefault(case_folder.name, case_folder)) != case_folder:
            raise CaseError(f"{case_folder.name}: two folders have this name; rename one ({other} and {case_folder})")
        table = "brats2023" if any("-t1c." in file.name for file in found["t1c"]) else "brats2018-2021"
        items.append({"case": case_folder.name, "image": [str(found[name][0]) for name in MODALITIES], "labels": table})
    if not items:
        raise DataListError(f"{root}: holds no case; expected folders with <case>_t1ce.nii.gz or <case>-t1c.nii.gz")
    return items


def _files(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    return sorted(
        path
        for path in folder.iterdir()
        # Archives made on a Mac bring a ._name beside each file.
        if path.is_file()
        and not path.name.startswith(".")
        and any(path.name.endswith((f"{suffix}.nii", f"{suffix}.nii.gz")) for suffix in suffixes)
    )
