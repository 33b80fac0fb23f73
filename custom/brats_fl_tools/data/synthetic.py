"""The mark of scans that no scanner took: a line in the header, which stays with a file wherever it is put."""

from __future__ import annotations

from typing import Final

from brats_fl.cases.datalists import Case
from brats_fl.cases.nifti import open_image
from brats_fl.cases.scans import split_volume
from brats_fl.errors import ScanError

SYNTHETIC: Final = "synthetic: brats-fl sample"
"""``descrip`` of the NIfTI header, at most 79 characters."""


def is_synthetic(case: Case) -> bool:
    """Whether a case's first scan bears the mark; False where it cannot be read, which reading the case will say."""
    file, _ = split_volume(case.image[0])
    try:
        image, _ = open_image(file)
    except ScanError:
        return False
    return bytes(image.header["descrip"]).rstrip(b"\0").decode("latin-1") == SYNTHETIC
