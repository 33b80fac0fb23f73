from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from monai.metrics import compute_hausdorff_distance
from numpy.typing import NDArray
from scipy import ndimage
from tests.second_metrics import (
    reference_dice,
    reference_hd95,
    reference_lesions,
    reference_share,
    reference_surface_dice,
)
from tests.shared_data import REAL_CASES, needs_real_cases

from brats_fl.cases.regions import labels_to_regions, to_library_labels
from brats_fl.files import CASE_TABLE_COLUMNS
from brats_fl.scoring.case_table import case_rows, summarise
from brats_fl.scoring.metrics import RegionDice, region_dice, region_hd95_mm, region_volumes_ml
from brats_fl.scoring.surfaces import hd95_mm

Mask = NDArray[np.bool_]
ONE_MM = (1.0, 1.0, 1.0)


# --- Random masks ---

shapes = st.tuples(*[st.integers(1, 6)] * 3)
spacings = st.tuples(*[st.floats(0.3, 6.0)] * 3)


@st.composite
def pairs_of_regions(draw) -> tuple[Mask, Mask]:
    shape = (1, 3, *draw(shapes))
    # Masks are drawn sparse or dense as a whole: both stray voxels and solid lumps occur, and empty regions.
    return tuple(
        draw(arrays(np.float64, shape, elements=st.floats(0, 1))) < draw(st.sampled_from([0.0, 0.05, 0.5, 0.95]))
        for _ in range(2)
    )


@settings(max_examples=80, deadline=None, derandomize=True)
@given(pair=pairs_of_regions(), spacing=spacings)
def test_random_masks_score_as_the_second_implementation_says(pair, spacing):
    a, b = pair

    dice = region_dice(torch.from_numpy(a), torch.from_numpy(b))
    distance = region_hd95_mm(torch.from_numpy(a), torch.from_numpy(b), spacing)

    for channel in range(3):
        assert dice[0, channel].item() == pytest.approx(reference_dice(a[0, channel], b[0, channel]))
        expected = reference_hd95(a[0, channel], b[0, channel], spacing)
        assert distance[0, channel].item() == pytest.approx(expected, rel=1e-9, abs=1e-9)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(pair=pairs_of_regions(), spacing=spacings)
def test_exchanging_prediction_and_reference_changes_nothing(pair, spacing):
    a, b = (torch.from_numpy(mask) for mask in pair)

    assert torch.equal(region_dice(a, b), region_dice(b, a))
    assert torch.equal(region_hd95_mm(a, b, spacing), region_hd95_mm(b, a, spacing))


@settings(max_examples=30, deadline=None, derandomize=True)
@given(pair=pairs_of_regions(), spacing=spacings)
def test_hd95_agrees_with_monai_where_both_masks_have_voxels(pair, spacing):
    filled = [channel for channel in range(3) if pair[0][0, channel].any() and pair[1][0, channel].any()]
    a, b = (torch.from_numpy(mask) for mask in pair)
    ours = region_hd95_mm(a, b, spacing)[:, filled]

    if filled:
        theirs = compute_hausdorff_distance(
            a[:, filled], b[:, filled], include_background=True, percentile=95, spacing=list(spacing)
        )
        torch.testing.assert_close(ours.float(), theirs, rtol=1e-5, atol=1e-5)


# --- Numbers to redo by hand ---


def line(*filled: int, length: int = 12) -> Mask:
    """Mask of single voxels on a line, (length, 1, 1)."""
    mask = np.zeros((length, 1, 1), dtype=bool)
    mask[list(filled)] = True
    return mask


def regions_of(tc: Mask, wt: Mask, et: Mask) -> torch.Tensor:
    return torch.from_numpy(np.stack([tc, wt, et])[None])


def test_dice_is_twice_the_shared_voxels_over_all_voxels():
    a = regions_of(line(0, 1, 2), line(0, 1), line(0))
    b = regions_of(line(2, 3), line(0, 1), line(5))

    dice = region_dice(a, b)

    np.testing.assert_allclose(dice, [[2 * 1 / (3 + 2), 1.0, 0.0]])


def test_hd95_is_the_larger_of_the_two_directions():
    # From a: voxel 0 lies on b. From b: 0 and 10 mm, whose 95th percentile is 0.95 x 10.
    assert hd95_mm(line(0), line(0, 10), np.ones(3)) == pytest.approx(9.5)
    # Both directions pooled, as medpy does, would give 0, 0, 10 and thus 9.0.


def test_hd95_leaves_out_a_twentieth_of_the_surface():
    # Of b's 41 voxels one is 30 mm off: the 95th percentile is the 38th of 40 steps, still a voxel on a.
    a = line(*range(40), length=80)
    b = line(*range(40), 69, length=80)

    assert hd95_mm(a, b, np.ones(3)) == 0.0


def test_hd95_measures_from_the_surface_and_not_from_inside():
    cube, hollow = np.zeros((5, 5, 5), dtype=bool), np.zeros((5, 5, 5), dtype=bool)
    cube[1:4, 1:4, 1:4] = True
    hollow[1:4, 1:4, 1:4] = True
    hollow[2, 2, 2] = False

    # The hole makes no new surface voxel: the six around it are surface already.
    assert hd95_mm(cube, hollow, np.ones(3)) == 0.0


def test_tumour_at_the_rim_of_the_volume_has_a_surface_there():
    everything, rim = np.ones((3, 3, 3), dtype=bool), np.ones((3, 3, 3), dtype=bool)
    rim[1, 1, 1] = False

    assert hd95_mm(everything, rim, np.ones(3)) == 0.0  # 26 surface voxels each, the same ones


@pytest.mark.parametrize(("axis", "expected_mm"), [(0, 2 * 0.5), (1, 2 * 1.0), (2, 2 * 7.0)])
def test_a_shift_of_two_voxels_is_two_voxel_sizes_along_its_axis(axis: int, expected_mm: float):
    a = np.zeros((5, 5, 5), dtype=bool)
    a[1, 1, 1] = True

    assert hd95_mm(a, np.roll(a, 2, axis), np.array([0.5, 1.0, 7.0])) == expected_mm


def test_volume_is_voxels_times_voxel_size_in_ml():
    mask = regions_of(line(0, 1), line(0, 1, 2, 3), line())

    volumes = region_volumes_ml(mask, (2.0, 5.0, 10.0))  # 100 mm3 = 0.1 ml a voxel

    np.testing.assert_allclose(volumes, [[0.2, 0.4, 0.0]])


# --- Empty regions ---

FULL, EMPTY = line(3), line()


@pytest.mark.parametrize(
    ("pred", "label", "dice", "hd95"),
    [
        (EMPTY, EMPTY, 1.0, 0.0),
        (EMPTY, FULL, 0.0, 373.13),
        (FULL, EMPTY, 0.0, 373.13),
        (FULL, FULL, 1.0, 0.0),
    ],
    ids=["both empty", "missed", "false positive", "both there"],
)
@pytest.mark.parametrize("channel", [0, 1, 2])
def test_empty_region_scores_by_the_brats_rules(channel: int, pred: Mask, label: Mask, dice: float, hd95: float):
    a, b = [FULL, FULL, FULL], [FULL, FULL, FULL]
    a[channel], b[channel] = pred, label
    expected_dice, expected_hd95 = [1.0, 1.0, 1.0], [0.0, 0.0, 0.0]
    expected_dice[channel], expected_hd95[channel] = dice, hd95

    assert region_dice(regions_of(*a), regions_of(*b)).tolist() == [expected_dice]
    assert region_hd95_mm(regions_of(*a), regions_of(*b), ONE_MM).tolist() == [expected_hd95]


def test_cases_of_a_batch_are_scored_one_by_one():
    first, second = regions_of(FULL, FULL, FULL), regions_of(EMPTY, FULL, EMPTY)

    assert region_dice(torch.cat([first, second]), torch.cat([first, first])).tolist() == [
        [1, 1, 1],
        [0, 1, 0],
    ]
    assert region_hd95_mm(torch.cat([first, second]), torch.cat([first, first]), ONE_MM).tolist() == [
        [0, 0, 0],
        [373.13, 0, 373.13],
    ]


# --- Bad input ---

SCORES = [region_dice, lambda a, b: region_hd95_mm(a, b, ONE_MM)]


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize(("value", "shown"), [(float("nan"), "nan"), (0.5, "0.5"), (float("inf"), "inf"), (2.0, "2")])
def test_value_that_is_not_0_or_1_is_refused(score, value: float, shown: str):
    bad = torch.zeros(1, 3, 2, 2, 2)
    bad[0, 1, 0, 0, 0] = value

    with pytest.raises(ValueError, match=rf"pred must be binary, 0 or 1 \(found {shown}\); threshold it"):
        score(bad, torch.zeros(1, 3, 2, 2, 2))
    with pytest.raises(ValueError, match="label must be binary"):
        score(torch.zeros(1, 3, 2, 2, 2), bad)


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("shape", [(1, 2, 2, 2, 2), (1, 1, 2, 2, 2), (3, 2, 2, 2), (1, 3, 2, 2)])
def test_masks_without_three_channels_or_three_axes_are_refused(score, shape: tuple[int, ...]):
    with pytest.raises(ValueError, match=r"masks must have shape \(B, 3, H, W, D\) with the channels tc, wt, et, got"):
        score(torch.zeros(shape), torch.zeros(shape))


@pytest.mark.parametrize("score", SCORES)
def test_masks_of_two_shapes_are_refused(score):
    with pytest.raises(ValueError, match=r"pred has shape \(1, 3, 2, 2, 2\), label \(1, 3, 2, 2, 3\)"):
        score(torch.zeros(1, 3, 2, 2, 2), torch.zeros(1, 3, 2, 2, 3))


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (1.0, 0.0, 1.0), (1.0, -1.0, 1.0), (1.0, float("nan"), 1.0)])
def test_spacing_that_is_not_three_positive_numbers_is_refused(spacing: tuple[float, ...]):
    mask = torch.zeros(1, 3, 2, 2, 2)

    with pytest.raises(ValueError, match="spacing_mm must be three positive numbers"):
        region_hd95_mm(mask, mask, spacing)
    with pytest.raises(ValueError, match="spacing_mm must be three positive numbers"):
        region_volumes_ml(mask, spacing)


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float16, torch.float32])
def test_masks_of_any_dtype_score_alike(dtype: torch.dtype):
    a, b = regions_of(line(0, 1), FULL, EMPTY).to(dtype), regions_of(line(1), FULL, EMPTY).to(dtype)

    np.testing.assert_allclose(region_dice(a, b), [[2 / 3, 1, 1]])
    assert region_hd95_mm(a, b, ONE_MM).tolist() == [[0.95, 0, 0]]


# --- Tables ---


def test_case_has_a_row_per_region():
    pred, label = regions_of(line(0), line(0, 1), EMPTY)[0], regions_of(line(0), line(0, 3), FULL)[0]

    rows = case_rows("BraTS20_Training_001", "hospital-1", "testing", pred, label, (10.0, 10.0, 10.0))
    rows = [{name: value for name, value in row.items() if name in CASE_TABLE_COLUMNS} for row in rows]

    place = {"case": "BraTS20_Training_001", "site": "hospital-1", "split": "testing"}
    assert rows == [
        {**place, "region": "tc", "dice": 1.0, "hd95_mm": 0.0, "volume_ml": 1.0, "reference_volume_ml": 1.0},
        # From voxel 1 to voxel 0 10 mm, from voxel 3 to voxel 1 20 mm; of (0, 20) the 95th percentile is 19.
        {**place, "region": "wt", "dice": 0.5, "hd95_mm": 19.0, "volume_ml": 2.0, "reference_volume_ml": 2.0},
        {
            **place,
            "region": "et",
            "dice": 0.0,
            "hd95_mm": 373.13,
            "volume_ml": 0.0,
            "reference_volume_ml": 1.0,
        },
    ]


def test_summary_has_mean_median_and_worst_per_region_also_of_rows_read_back_as_text():
    rows = [
        {"region": "tc", "dice": dice, "hd95_mm": distance}
        for dice, distance in [("0.9", "2"), ("0.0", "373.13"), ("0.6", "4")]
    ]

    summary = summarise(rows)

    assert list(summary) == ["tc"]
    assert summary["tc"]["dice"] == pytest.approx({"mean": 0.5, "median": 0.6, "worst": 0.0})
    assert summary["tc"]["hd95_mm"] == pytest.approx({"mean": 379.13 / 3, "median": 4.0, "worst": 373.13})


def test_no_rows_give_an_empty_summary():
    assert summarise([]) == {}


# --- MONAI metric ---


def test_mean_dice_counts_a_missed_region_and_takes_lists_as_engines_give_them():
    metric = RegionDice()

    metric([regions_of(FULL, FULL, EMPTY)[0]], [regions_of(FULL, FULL, FULL)[0]])  # 1, 1, 0
    metric(regions_of(FULL, EMPTY, EMPTY), regions_of(FULL, FULL, EMPTY))  # 1, 0, 1

    assert metric.aggregate().item() == pytest.approx(4 / 6)
    assert metric.get_buffer().tolist() == [[1, 1, 0], [1, 0, 1]]


def test_metric_without_a_case_says_so():
    with pytest.raises(ValueError, match="has seen no case"):
        RegionDice().aggregate()


def test_metric_needs_a_reference():
    with pytest.raises(ValueError, match="needs a reference"):
        RegionDice()(regions_of(FULL, FULL, FULL))


# --- Real masks ---

first_and_last = pytest.mark.parametrize("index", [0, -1])


def read_real_pair(index: int, step: int) -> tuple[Mask, Mask]:
    """Prediction and reference regions (3, H, W, D), every step-th voxel of a real label.

    The prediction is the label shifted and without a slab.
    """
    path = sorted(REAL_CASES.glob("*/*_seg.nii.gz"))[index]
    label = np.asarray(nib.load(path).dataobj)[::step, ::step, ::step]
    reference = labels_to_regions(to_library_labels(label, "brats2018-2021")).astype(bool)
    pred = np.roll(reference, (2, -1, 1), axis=(1, 2, 3))
    middle = pred.shape[3] // 2
    pred[:, :, :, middle : middle + 2] = False
    return pred, reference


@needs_real_cases
@first_and_last
def test_real_tumour_on_a_coarse_grid_scores_as_the_second_implementation_says(index: int):
    pred, label = read_real_pair(index, step=4)
    pred[:, 2:5, 2:5, 2:5] = True  # a false positive in the corner
    spacing = (4.0, 5.0, 6.0)

    rows = case_rows("case", "site", "testing", torch.from_numpy(pred), torch.from_numpy(label), spacing)

    for channel, row in enumerate(rows):
        a, b = pred[channel], label[channel]
        assert row["dice"] == pytest.approx(reference_dice(a, b))
        assert row["hd95_mm"] == pytest.approx(reference_hd95(a, b, spacing), rel=1e-9)
        assert row["reference_volume_ml"] == pytest.approx(len(np.argwhere(b)) * 0.12)
        assert row["nsd_1mm"] == pytest.approx(reference_surface_dice(a, b, spacing))
        assert (row["sensitivity"], row["precision"]) == (reference_share(a, b), reference_share(b, a))
        names = ("lesion_dice", "lesion_hd95_mm", "lesions_found", "lesions_missed", "lesions_false")
        assert [row[name] for name in names] == pytest.approx(reference_lesions(a, b, spacing))


@needs_real_cases
@first_and_last
def test_real_tumour_at_full_size_scores_as_the_distance_transform_says(index: int):
    pred, label = read_real_pair(index, step=1)
    spacing = (1.0, 1.5, 3.0)

    for whole_a, whole_b in zip(pred, label, strict=True):
        (box,) = ndimage.find_objects((whole_a | whole_b).astype(int))
        a, b = whole_a[box], whole_b[box]
        surface, other = a & ~ndimage.binary_erosion(a), b & ~ndimage.binary_erosion(b)
        there = ndimage.distance_transform_edt(~other, spacing)[surface]
        back = ndimage.distance_transform_edt(~surface, spacing)[other]
        expected = max(np.percentile(there, 95), np.percentile(back, 95))
        assert hd95_mm(whole_a, whole_b, np.array(spacing)) == pytest.approx(expected, rel=1e-9)
