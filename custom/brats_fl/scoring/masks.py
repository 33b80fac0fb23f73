"""Predicted masks on disk: one NIfTI file a case, named after the case, in the scan's own geometry."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from monai.transforms import Transform

from brats_fl.files import appearing

logger = logging.getLogger(__name__)

SCANNER_SPACE = 1
"""NIfTI's code for coordinates of the scanner; viewers that read the code 0 ignore the affine."""


class SaveMaskd(Transform):
    """Write ``mask`` (1, H, W, D) as ``<output_dir>/<case>_<output_postfix><output_ext>``, uint8, with its affine.

    Unlike MONAI's ``SaveImaged`` the file is named after the case, not after the first modality's file, and appears
    whole or not at all.

    Args:
        output_dir: Folder to write to, made when missing.
        output_postfix: Follows the case's name.
        output_ext: ``.nii.gz`` or ``.nii``.
    """

    def __init__(self, output_dir: str | Path, output_postfix: str = "seg", output_ext: str = ".nii.gz") -> None:
        if output_ext not in (".nii.gz", ".nii"):
            raise ValueError(f"output_ext must be .nii.gz or .nii (got {output_ext!r})")
        self.output_dir = Path(output_dir)
        self.output_postfix = output_postfix
        self.output_ext = output_ext

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:  # noqa: D102
        mask = data["mask"]
        affine = np.asarray(mask.affine, dtype=np.float64)
        volume = nib.Nifti1Image(np.asarray(mask, dtype=np.uint8)[0], affine)
        volume.set_qform(affine, SCANNER_SPACE)
        volume.set_sform(affine, SCANNER_SPACE)
        volume.header.set_xyzt_units("mm")
        name = f"{data['case']}_{self.output_postfix}{self.output_ext}"
        self.output_dir.mkdir(parents=True, exist_ok=True)
        with appearing(self.output_dir / name, ending=self.output_ext) as scratch:  # nibabel goes by the ending
            nib.save(volume, scratch)
        logger.info("case=%s mask=%s", data["case"], self.output_dir / name)
        return dict(data)
