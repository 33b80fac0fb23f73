"""How unsure the network is of each voxel, as a volume beside the mask."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from monai.transforms import Transform
from numpy.typing import NDArray

from brats_fl.cases.nifti import in_scanner_space
from brats_fl.failures import during
from brats_fl.scoring.calibration import entropy_bits
from brats_fl.scoring.masks import save_recorded
from brats_fl.scoring.postprocessing import PROBABILITY

POSTFIX: Final = "uncertainty"


def voxel_uncertainty(probability: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """The largest entropy of a voxel's three regions, in bits: 0 sure of all, 1 undecided about one.

    Args:
        probability: (3, H, W, D) in [0, 1]; with ``mirror_axes`` set, of the mean over mirrored copies.

    Returns:
        (H, W, D) in [0, 1].

    Source: predictive entropy over test-time augmentation, Wang et al. 2019, doi:10.1016/j.neucom.2019.01.103.
    """
    return np.asarray(entropy_bits(probability).max(axis=0), dtype=np.float32)


class SaveUncertaintyd(Transform):
    """Write ``voxel_uncertainty`` of ``probability`` as ``<output_dir>/<case>_uncertainty<output_ext>``.

    One byte a voxel, scaled by the header to bits, on the grid of ``mask``, with a record beside it as a mask has.

    Args:
        output_dir: Folder to write to, made when missing.
        output_ext: ``.nii.gz`` or ``.nii``.
    """

    def __init__(self, output_dir: str | Path, output_ext: str = ".nii.gz") -> None:
        self.output_dir = Path(output_dir)
        self.output_ext = output_ext

    def path_of(self, case: str) -> Path:
        """Where the volume of a case is written."""
        return self.output_dir / f"{case}_{POSTFIX}{self.output_ext}"

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:  # noqa: D102
        with during("writing the uncertainty", [{"case": data["case"]}]):
            image = in_scanner_space(voxel_uncertainty(data[PROBABILITY].cpu().numpy()), data["mask"].affine)
            image.set_data_dtype(np.uint8)
            save_recorded(self.path_of(str(data["case"])), image, self.output_ext)
        return dict(data)
