"""How unsure the network is of a voxel: figures by hand, and the file that is written."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from brats_fl.errors import FolderError
from brats_fl.network.inferers import BrainInferer
from brats_fl.scoring.uncertainty import SaveUncertaintyd, voxel_uncertainty

AFFINE = torch.diag(torch.tensor([-2.0, -2.0, 2.0, 1.0], dtype=torch.float64))


def test_uncertainty_is_the_largest_entropy_of_the_three_regions():
    # Entropy of .5 is 1 bit, of .25 it is .25 log2 4 + .75 log2 (4/3) = .5 + .3113, of 0 and 1 it is 0.
    probability = np.array([[0.0, 0.25, 1.0], [1.0, 0.5, 0.25], [0.0, 0.0, 0.0]]).reshape(3, 3, 1, 1)

    np.testing.assert_allclose(voxel_uncertainty(probability).ravel(), [0.0, 1.0, 0.8113], atol=1e-4)


def test_copies_that_say_the_opposite_make_a_voxel_undecided():
    # A network that says yes on the left and no on the right, whatever it is shown: logits +4 and -4.
    side = torch.tensor([4.0, -4.0]).reshape(1, 1, 2, 1, 1)
    network = lambda window: side.expand(1, 3, 2, 2, 2)  # noqa: E731
    image = torch.zeros(1, 4, 2, 2, 2)

    said = {
        axes: torch.sigmoid(BrainInferer([2, 2, 2], mirror_axes=axes, amp=False)(image, network))[0].numpy()
        for axes in ((), (0,))
    }

    # Alone it is sure: sigmoid of 4 is .982, of which the entropy is .982 * .0262 + .018 * 5.797 = .0257 + .1043.
    # The mean of both copies is a logit of 0.
    np.testing.assert_allclose(voxel_uncertainty(said[()]), 0.1300, atol=1e-4)
    np.testing.assert_allclose(voxel_uncertainty(said[0,]), 1.0)


def item(probability: torch.Tensor) -> dict:
    mask = MetaTensor(torch.zeros(1, *probability.shape[1:]), affine=AFFINE)
    return {"case": "P_001", "probability": probability, "mask": mask}


def test_file_is_in_bits_on_the_grid_of_the_mask_with_a_record_beside_it(tmp_path: Path):
    probability = torch.zeros(3, 2, 2, 2)
    probability[:, 0, 0, 0], probability[1, 1, 1, 1] = 0.5, 0.25

    SaveUncertaintyd(tmp_path)(item(probability))

    image = nib.load(tmp_path / "P_001_uncertainty.nii.gz")
    np.testing.assert_allclose(image.affine, AFFINE)
    assert image.get_data_dtype() == np.uint8
    bits = image.get_fdata()
    assert (bits[0, 0, 0], bits[0, 1, 0]) == (pytest.approx(1.0), 0.0)
    assert bits[1, 1, 1] == pytest.approx(0.8113, abs=0.5 / 255)
    assert (tmp_path / "P_001_uncertainty.json").is_file()


def test_file_of_somebody_else_is_not_replaced(tmp_path: Path):
    theirs = tmp_path / "P_001_uncertainty.nii.gz"
    theirs.write_bytes(b"theirs")

    with pytest.raises(FolderError, match="was not written by brats-fl"):
        SaveUncertaintyd(tmp_path)(item(torch.zeros(3, 2, 2, 2)))

    assert theirs.read_bytes() == b"theirs"
