"""Predicted masks on disk: one NIfTI file a case, named after the case, in the scan's own geometry."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any, Final

import nibabel as nib
import numpy as np
from monai.transforms import Transform

from brats_fl.cases.cache_folder import hash_file
from brats_fl.cases.nifti import in_scanner_space
from brats_fl.errors import FolderError
from brats_fl.failures import during
from brats_fl.files import appearing
from brats_fl.scoring.mask_records import Maker, MaskRecord, foreign_file, write_record

logger = logging.getLogger(__name__)

SCANS_SHA256 = "scans_sha256"
"""Key of an item: ``mask_records.hash_scans`` of its scans, where they were hashed."""

JUDGEMENT = "judgement"
"""Key of an item: what was said of its scans, where they were judged."""


NOBODY: Final = Maker()


class SaveMaskd(Transform):
    """Write ``mask`` (1, H, W, D) as ``<output_dir>/<case>_<output_postfix><output_ext>``, uint8, with its affine.

    Unlike MONAI's ``SaveImaged`` the file is named after the case, not after the first modality's file, and appears
    whole or not at all, with a record beside it; a file that was not written so, such as an expert's label, is never
    replaced.

    Args:
        output_dir: Folder to write to, made when missing.
        output_postfix: Follows the case's name.
        output_ext: ``.nii.gz`` or ``.nii``.
    """

    maker = NOBODY
    """What makes the masks, for their records."""

    def __init__(self, output_dir: str | Path, output_postfix: str = "seg", output_ext: str = ".nii.gz") -> None:
        if output_ext not in (".nii.gz", ".nii"):
            raise ValueError(f"output_ext must be .nii.gz or .nii (got {output_ext!r})")
        self.output_dir = Path(output_dir)
        self.output_postfix = output_postfix
        self.output_ext = output_ext

    def path_of(self, case: str) -> Path:
        """Where the mask of a case is written."""
        return self.output_dir / f"{case}_{self.output_postfix}{self.output_ext}"

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:  # noqa: D102
        path = self.path_of(str(data["case"]))
        with during("writing the mask", [{"case": data["case"]}]):
            scans, judgement = (str(data.get(key, "")) for key in (SCANS_SHA256, JUDGEMENT))
            save_recorded(path, as_nifti(data["mask"]), self.output_ext, self.maker, scans, judgement)
        logger.info("case=%s mask=%s", data["case"], path)
        return dict(data)


def save_recorded(
    path: Path, image: nib.Nifti1Image, ending: str, maker: Maker = NOBODY, scans: str = "", judgement: str = ""
) -> None:
    """Write a volume with a record beside it; it appears whole or not at all.

    Args:
        path: Where; its folder is made when missing.
        image: The volume.
        ending: Of the file's name.
        maker: Of the volume, for the record, as are the digest of its scans and what was said of them.
        scans: As ``MaskRecord.scans_sha256``.
        judgement: As ``MaskRecord.judgement``.

    Raises:
        FolderError: A file lies there that was not written so, such as an expert's label.
    """
    if foreign := foreign_file(path):
        raise FolderError(
            f"{foreign} was not written by brats-fl, or was changed since, and is not replaced; choose another "
            "output_dir, or move it away"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    with appearing(path, ending=ending) as scratch:  # nibabel goes by the ending
        nib.save(image, scratch)
        record = MaskRecord(maker, scans, hash_file(str(scratch)), judgement)
        write_record(path, record)  # first: a volume without a record would be taken for somebody else's


def as_nifti(mask: Any) -> nib.Nifti1Image:
    """A mask (1, H, W, D) as uint8 image in the space that its affine says."""
    return in_scanner_space(np.asarray(mask, dtype=np.uint8)[0], mask.affine)
