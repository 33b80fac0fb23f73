"""From probabilities to the mask that is delivered, and scored."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data import MetaTensor
from numpy.typing import NDArray

from brats_fl.cases.regions import labels_to_regions
from brats_fl.scoring.finishing import PostProcessing, finish, keep_large_parts
from brats_fl.scoring.postprocessing import BrainMaskd, FinishMaskd

ED, NCR, ET = 2, 1, 3


def voxels(*probabilities: tuple[float, float, float]) -> NDArray[np.float32]:
    """A row of voxels from their (tc, wt, et); (3, N, 1, 1)."""
    return np.array(probabilities, np.float32).T[:, :, None, None]


def row(labels: NDArray[np.uint8]) -> list[int]:
    return labels[:, 0, 0].tolist()


def test_each_voxel_gets_the_innermost_region_that_it_is_in():
    pred = voxels((0.1, 0.2, 0.1), (0.1, 0.9, 0.1), (0.9, 0.9, 0.1), (0.9, 0.9, 0.9))

    assert row(finish(pred, 0.001, PostProcessing())) == [0, ED, NCR, ET]


def test_core_outside_the_whole_tumour_and_enhancing_part_outside_the_core_are_dropped():
    pred = voxels((0.9, 0.1, 0.9), (0.9, 0.1, 0.1), (0.1, 0.9, 0.9))

    assert row(finish(pred, 0.001, PostProcessing())) == [0, 0, ED]


def test_threshold_of_a_region_is_its_own():
    pred = voxels((0.6, 0.6, 0.6), (0.8, 0.6, 0.6))

    assert row(finish(pred, 0.001, PostProcessing((0.7, 0.5, 0.5)))) == [ED, ET]


def test_parts_under_a_share_of_the_largest_go_with_what_is_inside_them():
    whole = [1, 1, 1, 1, 0, 1, 0, 1, 1]  # four voxels, one, two
    pred = voxels(*((float(v), float(v), 0.0) for v in whole))

    assert row(finish(pred, 0.001, PostProcessing(smallest_wt_share=0.5))) == [1, 1, 1, 1, 0, 0, 0, 1, 1]
    assert row(finish(pred, 0.001, PostProcessing(smallest_wt_share=0.6))) == [1, 1, 1, 1, 0, 0, 0, 0, 0]
    assert row(finish(pred, 0.001, PostProcessing())) == whole


def test_voxels_that_touch_by_a_corner_are_one_part():
    mask = np.zeros((4, 4, 4), bool)
    mask[0, 0, 0] = mask[1, 1, 1] = mask[3, 3, 3] = True

    assert keep_large_parts(mask, 0.9).sum() == 2
    assert not keep_large_parts(np.zeros((4, 4, 4), bool), 0.9).any()


def test_enhancing_part_that_is_too_small_as_a_whole_becomes_core():
    pred = voxels((0.9, 0.9, 0.9), (0.9, 0.9, 0.9), (0.9, 0.9, 0.1))

    assert row(finish(pred, 0.5, PostProcessing(smallest_et_ml=1.01))) == [NCR, NCR, NCR]
    assert row(finish(pred, 0.5, PostProcessing(smallest_et_ml=1.0))) == [ET, ET, NCR]


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.3]), st.sampled_from([0.0, 0.01]))
def test_regions_that_are_scored_are_those_of_the_mask_that_is_written(seed, share, smallest_ml):
    pred = torch.rand(3, 5, 6, 4, generator=torch.Generator().manual_seed(seed))
    finishing = FinishMaskd(smallest_wt_share=share, smallest_et_ml=smallest_ml, output_key="mask")

    done = finishing({"pred": MetaTensor(pred, affine=torch.eye(4)), "labels": "brats2023"})

    scored = torch.as_tensor(done["pred"])
    assert torch.equal(scored, labels_to_regions(torch.as_tensor(done["mask"])))
    tc, wt, et = scored
    assert bool((et <= tc).all())
    assert bool((tc <= wt).all())


@pytest.mark.parametrize(
    ("table", "values"),
    [("brats2018-2021", [0, 1, 2, 4]), ("brats2023", [0, 1, 2, 3]), ("msd-task01", [0, 2, 1, 3]), (None, [0, 1, 2, 4])],
)
def test_mask_has_the_values_of_the_cases_convention_and_the_scans_geometry(table, values):
    affine = torch.diag(torch.tensor([2.0, 2.0, 2.0, 1.0], dtype=torch.float64))
    regions = labels_to_regions(torch.tensor([0, 1, 2, 3], dtype=torch.uint8).reshape(4, 1, 1))
    item = {"pred": MetaTensor(regions, affine=affine)} | ({"labels": table} if table else {})

    mask = FinishMaskd(output_key="mask")(item)["mask"]

    assert (mask.dtype, tuple(mask.shape)) == (torch.uint8, (1, 4, 1, 1))
    assert mask.flatten().tolist() == values
    assert torch.equal(mask.affine, affine)


def test_volume_of_a_voxel_is_the_images_where_the_prediction_has_no_geometry():
    affine = torch.diag(torch.tensor([10.0, 10.0, 10.0, 1.0], dtype=torch.float64))  # 1 ml
    item = {
        "pred": torch.from_numpy(voxels((0.9, 0.9, 0.9))),
        "image": MetaTensor(torch.zeros(4, 1, 1, 1), affine=affine),
    }

    assert FinishMaskd(smallest_et_ml=1.5)(item)["pred"][2].item() == 0
    assert FinishMaskd(smallest_et_ml=0.5)(item)["pred"][2].item() == 1


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"thresholds": (0.5, 0.5)}, "thresholds must be 3 numbers between 0 and 1"),
        ({"thresholds": (0.5, 0.5, 1.0)}, "thresholds must be 3 numbers between 0 and 1"),
        ({"smallest_wt_share": 1.0}, "smallest_wt_share must be from 0 to under 1"),
        ({"smallest_et_ml": -1.0}, "smallest_et_ml must be >= 0 ml"),
        ({"smallest_et_ml": float("nan")}, "smallest_et_ml must be >= 0 ml"),
    ],
)
def test_setting_that_makes_no_sense_is_refused(values, message):
    with pytest.raises(ValueError, match=message):
        PostProcessing(**values)


def test_probability_stays_beside_the_mask_where_it_is_asked_for():
    pred = MetaTensor(torch.full((3, 1, 1, 2), 0.4), affine=torch.eye(4))

    assert "probability" not in FinishMaskd()({"pred": pred})
    kept = FinishMaskd(keep_probability=True)({"pred": pred})
    assert torch.equal(kept["probability"], torch.full((3, 1, 1, 2), 0.4))
    assert not kept["pred"].any()


def test_brain_is_where_any_modality_is_not_zero():
    image = torch.zeros(4, 1, 1, 3)
    image[3, 0, 0, 1] = -0.5

    assert BrainMaskd()({"image": MetaTensor(image)})["brain"].tolist() == [[[[0.0, 1.0, 0.0]]]]
