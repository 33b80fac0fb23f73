"""Cases without a fault, to plant faults in: sample cases, and real ones where they lie beside the checkout."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from tests.shared_data import REAL_CASES

from brats_fl.cases.datalists import Case, scans_of
from brats_fl.cases.folders import find_cases
from brats_fl.constants import LABEL, MODALITIES
from brats_fl_tools.sample import make_case

# Hospital and number.
SAMPLE_CASES = ((1, 1), (2, 1), (3, 1), (4, 2), (4, 3), (5, 1), (5, 2), (5, 5))


@dataclass(frozen=True)
class Clean:
    """A case as it should be, on disk and in memory."""

    case: Case
    voxels: Mapping[str, NDArray[Any]]
    """Modality or ``label`` -> (H, W, D)."""
    affine: NDArray[np.float64]

    def files(self, folder: Path, case: Case | None = None, **voxels: NDArray[Any]) -> Case:
        """The case with some of its files written anew to ``folder``, each on the case's own grid."""
        written = self.case if case is None else case
        for name, values in voxels.items():
            written = with_file(written, name, save(folder / f"{name}.nii", values, self.affine))
        return written


def save(path: Path, values: NDArray[Any], affine: NDArray[np.float64]) -> Path:
    """Write a NIfTI file and return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(values, affine), path)
    return path


def with_file(case: Case, name: str, path: Path | str) -> Case:
    """The case with another file for a modality or its label."""
    if name == LABEL:
        return replace(case, label=str(path))
    image = tuple(str(path) if modality == name else old for modality, old in zip(MODALITIES, case.image, strict=True))
    return replace(case, image=image)


def sample_cases(
    folder: Path,
    count: int | None = None,
    spacing_mm: float = 2.0,
    which: Sequence[tuple[int, int]] = SAMPLE_CASES,
) -> list[Clean]:
    """Sample cases of high and low grade, written to ``folder``."""
    cases = []
    for hospital, index in which[:count]:
        made = make_case(0, hospital, index, spacing_mm)
        voxels = {**made.images, LABEL: made.seg}
        paths = {name: str(save(folder / made.case / f"{name}.nii", v, made.affine)) for name, v in voxels.items()}
        case = Case(made.case, made.case, tuple(paths[name] for name in MODALITIES), paths[LABEL])
        cases.append(Clean(case, voxels, made.affine))
    return cases


def real_cases(folder: Path = REAL_CASES) -> Iterator[Clean]:
    """Real cases, one in memory at a time; none where there is no folder of them."""
    for item in find_cases(folder) if folder.is_dir() else []:
        label = folder / item["case"] / f"{item['case']}_seg.nii.gz"
        case = Case(item["case"], item["case"], tuple(item["image"]), str(label))
        images = {name: nib.load(path) for name, path in scans_of(case).items()}
        voxels = {name: np.asanyarray(image.dataobj) for name, image in images.items()}
        yield Clean(case, voxels, images[MODALITIES[0]].affine)
