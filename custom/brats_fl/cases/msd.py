"""Task01_BrainTumour of the Medical Segmentation Decathlon: one 4-D file a case.

```
dataset.json                     which volume is which modality, which label value is which
imagesTr/BRATS_001.nii.gz        4-D            labelsTr/BRATS_001.nii.gz
imagesTs/BRATS_485.nii.gz        4-D, without a label
```

Source: Antonelli et al. 2022, doi:10.1038/s41467-022-30695-9.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from brats_fl.cases.nifti import nifti_stem
from brats_fl.cases.scans import name_volume
from brats_fl.constants import MODALITIES
from brats_fl.errors import CaseError
from brats_fl.files import is_passed_over
from brats_fl.reading import Reader
from brats_fl.typed import shorten

DATASET_FILE: Final = "dataset.json"
IMAGES, LABELS, TEST_IMAGES = "imagesTr", "labelsTr", "imagesTs"
LABEL_TABLE: Final = "msd-task01"
READER: Final = Reader(CaseError, "it must be the decathlon's, an object with modality and labels: download it again")

_MODALITIES: Final = {"t1gd": "t1c", "t1w": "t1n", "t2w": "t2w", "flair": "t2f"}
_NUMBERS: Final = ("0", "1", "2", "3")
_LABELS: Final = {"0": "background", "1": "edema", "2": "non-enhancing tumour", "3": "enhancing tumour"}


def is_msd(folder: Path) -> bool:
    """Whether a folder is laid out as a task of the decathlon."""
    return (folder / DATASET_FILE).is_file() and any((folder / name).is_dir() for name in (IMAGES, TEST_IMAGES))


def read_volume_order(folder: Path) -> tuple[int, ...]:
    """Number of the volume that holds each modality, in the order of ``MODALITIES``: (2, 1, 3, 0) as published.

    Raises:
        CaseError: ``dataset.json`` cannot be read, or its modalities or labels are not those of Task01.
    """
    path = folder / DATASET_FILE
    content = READER.json_object(path)
    modality, labels = (READER.at(dict[str, str], content, [key], path) for key in ("modality", "labels"))
    names = {number: name.lower() for number, name in modality.items()}
    labels = {value: name.lower().replace("tumor", "tumour") for value, name in labels.items()}
    found = {_MODALITIES.get(name): int(number) for number, name in names.items() if number in _NUMBERS}
    if set(found) != set(MODALITIES) or len(names) != len(MODALITIES):
        got = shorten(", ".join(names.values()))[1:-1]
        raise CaseError(
            f"{path}: modality must name {', '.join(_MODALITIES)}, each once (got {got}); which volume is which is not "
            "guessed"
        )
    if labels != _LABELS:
        expected = ", ".join(f"{value} {name}" for value, name in _LABELS.items())
        got = shorten(", ".join(f"{value} {name}" for value, name in labels.items()))[1:-1]
        raise CaseError(f"{path}: labels must be {expected} (got {got}); what a value means is not guessed")
    return tuple(found[modality] for modality in MODALITIES)


def list_images(folder: Path, subfolder: str) -> list[Path]:
    """NIfTI files of ``imagesTr`` or another subfolder, sorted; a Mac's ``._`` shadows left out, which it ships."""
    files = sorted((folder / subfolder).glob("*"))
    return [file for file in files if nifti_stem(file) is not None and not is_passed_over(file.name)]


def name_scans(file: Path, order: tuple[int, ...]) -> tuple[Path, ...]:
    """The four scans of a case's file, as a data list names them, in the order of ``MODALITIES``."""
    return tuple(name_volume(file, number) for number in order)


def case_name(file: Path) -> str:
    """``BRATS_001`` for ``BRATS_001.nii.gz``."""
    return nifti_stem(file) or file.name
