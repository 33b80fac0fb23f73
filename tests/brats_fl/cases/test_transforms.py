from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from tests.tiny_sites import AFFINE, SHAPE, save, write_tiny_case

from brats_fl.cases.transforms import (
    LabelToRegionsd,
    LoadCased,
    RandModalityContrastd,
    RandModalityDropoutd,
    RandTumourPatchd,
    TumourVoxelsd,
    UncachedBoundaryd,
    adjust_contrast,
    adjust_gamma,
    cut_patch,
    is_not_zero,
)
from brats_fl.errors import CaseError

# --- Reading a case ---


@pytest.fixture
def item(tmp_path: Path) -> dict[str, Any]:
    case = write_tiny_case(tmp_path / "hospital-1", "case-1")
    return {"case": "case-1", "image": list(case.image), "label": case.label, "labels": "brats2018-2021"}


def error_of(item: dict[str, Any]) -> str:
    with pytest.raises(CaseError) as caught:
        LoadCased()(item)
    return str(caught.value)


def rewrite(path: str, change: Any, affine: Any = AFFINE) -> None:
    save(change(np.asarray(nib.load(path).dataobj)), Path(path), affine)


def test_case_is_read_as_four_channels_with_the_affine_of_its_files(item: dict[str, Any]):
    loaded = LoadCased()(item)

    assert loaded["image"].shape == (4, *SHAPE)
    assert loaded["image"].dtype == torch.float32
    np.testing.assert_array_equal(loaded["image"].affine, AFFINE)
    for channel, path in enumerate(item["image"]):
        np.testing.assert_array_equal(loaded["image"][channel], np.asarray(nib.load(path).dataobj))


def test_label_leaves_with_the_library_s_values(item: dict[str, Any]):
    in_file = np.asarray(nib.load(item["label"]).dataobj)

    label = LoadCased()(item)["label"]

    assert label.shape == (1, *SHAPE)
    assert label.dtype == torch.uint8
    assert sorted(np.unique(in_file)) == [0, 1, 2, 4]
    np.testing.assert_array_equal(label[0], np.where(in_file == 4, 3, in_file))


def test_case_without_a_label_is_read_too(item: dict[str, Any]):
    del item["label"]

    assert "label" not in LoadCased()(item)


@pytest.mark.parametrize(("index", "name"), [(0, "t1c"), (2, "t2w")])
def test_missing_file_is_named(item: dict[str, Any], index: int, name: str):
    Path(item["image"][index]).unlink()

    assert error_of(item) == (
        f"case-1: {name}: {item['image'][index]} is not there; restore the file, or take the case off the list"
    )


def test_truncated_file_is_named(item: dict[str, Any]):
    path = Path(item["image"][3])
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    message = error_of(item)

    assert message.startswith(f"case-1: t2f: {path} is cut short (")
    assert message.endswith("; download or copy the file again")


def test_file_that_is_no_image_is_named(item: dict[str, Any]):
    Path(item["label"]).write_bytes(gzip.compress(b"no image"))

    message = error_of(item)

    assert message.startswith(f"case-1: label: {item['label']} cannot be read as NIfTI (")
    assert message.endswith("; download, copy or convert the file again")


def test_four_dimensional_file_is_refused(item: dict[str, Any]):
    rewrite(item["image"][1], lambda voxels: np.stack([voxels, voxels], axis=3))

    assert error_of(item) == (
        f"case-1: t1n: {item['image'][1]} has shape (40, 48, 40, 2), and no volume of it is named; "
        "name a 3-D file as it is, a volume of a 4-D file by its number: file.nii.gz#0"
    )


def test_other_shape_is_refused(item: dict[str, Any]):
    rewrite(item["image"][2], lambda voxels: voxels[:, :47])

    assert error_of(item) == (
        f"case-1: t2w: shape 40 x 47 x 40, t1c has 40 x 48 x 40 ({item['image'][2]}); "
        "all files of a case must share one grid: register or resample onto that of the others"
    )


def test_other_affine_is_refused_for_scans_and_label(item: dict[str, Any]):
    moved = AFFINE.copy()
    moved[0, 3] += 3
    rewrite(item["label"], lambda voxels: voxels, moved)

    assert error_of(item) == (
        f"case-1: label: position is 3 mm away from that of t1c ({item['label']}); "
        "all files of a case must share one grid: register or resample onto that of the others"
    )


def test_scan_that_alone_is_off_is_blamed_although_it_comes_first(item: dict[str, Any]):
    moved = AFFINE.copy()
    moved[0, 3] += 0.005
    rewrite(item["image"][0], lambda voxels: voxels, moved)

    assert error_of(item).startswith(f"case-1: t1c: position is 0.005 mm away from that of t1n ({item['image'][0]}); ")


def test_affine_that_differs_by_rounding_is_accepted(item: dict[str, Any]):
    rewrite(item["image"][1], lambda voxels: voxels, AFFINE + 1e-5)

    assert LoadCased()(item)["image"].shape == (4, *SHAPE)


def test_unknown_label_value_is_refused_with_the_convention_that_would_fit(item: dict[str, Any]):
    marked = np.count_nonzero(np.asarray(nib.load(item["label"]).dataobj) == 4)
    rewrite(item["label"], lambda voxels: np.where(voxels == 4, 3, voxels))

    message = error_of(item)

    assert message.startswith(
        f"case-1: label holds 3 in {marked:,} voxels; the convention brats2018-2021 has 0, 1, 2, 4 only; its values fit"
    )
    assert message.endswith(f"({item['label']})")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_value_that_is_not_finite_is_refused_with_the_scan_that_holds_it(item: dict[str, Any], value: float):
    def spoil(voxels: Any) -> Any:
        spoiled = voxels.astype(np.float32)
        spoiled[0, 0, 0] = value
        return spoiled

    rewrite(item["image"][2], spoil)

    assert error_of(item) == (  # 40 x 48 x 40 voxels
        f"case-1: t2w: 1 of 76800 voxels are NaN or infinite ({item['image'][2]}); write the file again from its source"
    )


def with_background(voxels: np.ndarray) -> np.ndarray:
    return np.where(voxels == 0, 12, voxels)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (np.zeros_like, "G22-constant: every voxel is 0"),
        (np.ones_like, "G22-constant: every voxel is 1"),
        (with_background, "G31-not-stripped: around the brain is 12, not 0"),
        # What is not 0 would be standardised and cropped as brain.
        (lambda voxels: np.where(voxels == 0, -1, voxels), "G31-not-stripped: around the brain is -1, not 0"),
    ],
    ids=["zeros", "ones", "background 12", "background -1"],
)
def test_scan_that_the_gate_would_refuse_for_its_values_is_not_read_in_silence(
    item: dict[str, Any], change: Callable[[np.ndarray], np.ndarray], found: str
):
    rewrite(item["image"][2], change)

    assert error_of(item).startswith(f"case-1: t2w: {found} ({item['image'][2]}); ")


# --- What is stored, and where the cache ends ---


def test_foreground_is_what_is_not_zero():
    assert is_not_zero(torch.tensor([-1.0, 0.0, 0.5])).tolist() == [True, False, True]


def test_places_to_draw_at_lie_on_their_label_and_are_as_many_for_each():
    label = torch.zeros(1, 20, 20, 20, dtype=torch.uint8)
    label[0, 1, 2, 3] = 1  # 1 voxel of necrosis
    label[0, 5:15, 5:15, 5:15] = 2  # 1000 voxels of oedema, none of enhancing tumour

    places = TumourVoxelsd()({"label": label})["tumour_voxels"]

    assert places.shape == (4000, 3)
    assert places.dtype == torch.int16
    values = label[0][tuple(places.long().T)]
    assert int((values == 1).sum()) == int((values == 2).sum()) == 2000
    assert len(places.unique(dim=0)) == 1001


def test_case_without_tumour_has_no_place_to_draw_at_and_one_without_label_no_entry():
    assert TumourVoxelsd()({"label": torch.zeros(1, 4, 4, 4)})["tumour_voxels"].shape == (0, 3)
    assert TumourVoxelsd()({"image": 1}) == {"image": 1}


def test_after_the_cache_the_image_is_float32_and_the_label_three_regions():
    label = torch.tensor([0, 1, 2, 3], dtype=torch.uint8).reshape(1, 4, 1, 1)

    after = UncachedBoundaryd()({"image": torch.ones(4, 4, 1, 1, dtype=torch.float16), "label": label})

    assert after["image"].dtype == torch.float32
    assert after["label"].flatten(1).tolist() == [[0, 1, 0, 1], [0, 1, 1, 1], [0, 0, 0, 1]]  # tc, wt, et
    assert torch.equal(LabelToRegionsd()({"label": label})["label"], after["label"])
    assert set(UncachedBoundaryd()({"image": torch.ones(1)})) == {"image"}


# --- Drawing patches ---


def numbered(*shape: int) -> torch.Tensor:
    """A volume whose every voxel has its own number, from 1."""
    return torch.arange(1, 1 + int(np.prod(shape)), dtype=torch.float32).reshape(1, *shape)


def test_patch_inside_the_volume_is_cut_out():
    volume = numbered(4, 4, 4)

    assert torch.equal(cut_patch(volume, [1, 0, 2], [2, 3, 2]), volume[:, 1:3, 0:3, 2:4])


def test_patch_beyond_the_volume_is_padded_with_zeros():
    patch = cut_patch(numbered(2, 1, 1), [-1, 0, 0], [4, 1, 2])

    assert patch[0, :, 0, :].tolist() == [[0, 0], [1, 0], [2, 0], [0, 0]]


@pytest.mark.parametrize("voxel", [(0, 0, 0), (23, 29, 17), (9, 9, 9), (12, 28, 1)])
def test_patch_drawn_at_tumour_contains_a_tumour_voxel_and_nothing_beyond_the_case(voxel: tuple[int, int, int]):
    label = torch.zeros(1, 24, 30, 18, dtype=torch.uint8)
    label[(0, *voxel)] = 3
    draw = RandTumourPatchd([16, 16, 16], tumour_probability=1.0).set_random_state(0)

    for _ in range(50):
        case = {"image": torch.ones(4, 24, 30, 18), "label": label, "tumour_voxels": torch.tensor([voxel])}
        patch = draw(case)
        assert int((patch["label"] == 3).sum()) == 1
        assert patch["image"].all()  # 0 would be padding
        assert "tumour_voxels" not in patch


def test_drawn_voxel_keeps_an_eighth_of_the_patch_from_the_rim_where_the_case_allows():
    label = torch.zeros(1, 48, 48, 48, dtype=torch.uint8)
    label[0, 24, 24, 24] = 1
    draw = RandTumourPatchd([16, 16, 16], tumour_probability=1.0).set_random_state(0)

    places = []
    for _ in range(200):
        patch = draw({"image": torch.ones(4, 48, 48, 48), "label": label, "tumour_voxels": torch.tensor([[24] * 3])})
        places.append(torch.nonzero(patch["label"][0])[0])

    assert torch.stack(places).min() == 2  # 16 / 8
    assert torch.stack(places).max() == 13  # 16 - 1 - 2


def test_case_smaller_than_the_patch_lies_whole_inside_it_with_zeros_around():
    image = numbered(10, 8, 12).expand(4, -1, -1, -1)
    label = torch.ones(1, 10, 8, 12, dtype=torch.uint8)
    draw = RandTumourPatchd([16, 16, 16], tumour_probability=1.0).set_random_state(1)

    patch = draw({"image": image, "label": label, "tumour_voxels": torch.tensor([[9, 0, 11]])})

    assert patch["image"].shape == (4, 16, 16, 16)
    assert patch["label"].shape == (1, 16, 16, 16)
    assert patch["image"].sum() == image.sum()
    assert int((patch["image"][0] == 0).sum()) == 16**3 - 10 * 8 * 12
    assert int(patch["label"].sum()) == 10 * 8 * 12


def test_case_without_tumour_gives_a_patch_from_anywhere():
    case = {"image": torch.ones(4, 20, 20, 20), "label": torch.zeros(1, 20, 20, 20, dtype=torch.uint8)}

    patch = RandTumourPatchd([16, 16, 16], tumour_probability=1.0).set_random_state(0)(
        {**case, "tumour_voxels": torch.zeros(0, 3, dtype=torch.int16)}
    )

    assert patch["image"].all()
    assert patch["image"].shape == (4, 16, 16, 16)


def test_patch_is_a_plain_float32_tensor_and_the_case_is_not_changed():
    image = MetaTensor(torch.ones(4, 20, 20, 20, dtype=torch.float16))
    case = {"image": image, "label": MetaTensor(torch.zeros(1, 20, 20, 20, dtype=torch.uint8))}

    patch = RandTumourPatchd([8, 8, 8], tumour_probability=0.5).set_random_state(0)(case)

    assert type(patch["image"]) is torch.Tensor
    assert patch["image"].dtype == torch.float32
    assert patch["label"].dtype == torch.uint8
    assert case["image"] is image


def test_same_random_state_draws_the_same_patches_and_another_draws_others():
    case = {"image": numbered(30, 30, 30), "label": torch.ones(1, 30, 30, 30, dtype=torch.uint8)}

    def draw(seed: int) -> list[float]:
        transform = RandTumourPatchd([8, 8, 8], tumour_probability=0.5).set_random_state(seed)
        return [float(transform(case)["image"][0, 0, 0, 0]) for _ in range(5)]

    assert draw(7) == draw(7)
    assert draw(7) != draw(8)


# --- Brightness, contrast, gamma ---


def brain() -> tuple[torch.Tensor, torch.Tensor]:
    channel = torch.zeros(6, 6, 6)
    channel[1:5, 1:5, 1:5] = torch.randn(4, 4, 4, generator=torch.Generator().manual_seed(0))
    return channel, channel != 0


def test_contrast_stretches_about_the_mean_within_the_old_range():
    channel = torch.tensor([0.0, 1.0, 2.0, 3.0, 10.0])  # mean of the four inside: 4

    adjust_contrast(channel, channel != 0, 0.5)

    assert channel.tolist() == [0.0, 2.5, 3.0, 3.5, 7.0]  # half as far from 4
    adjust_contrast(channel, channel != 0, 2.0)  # mean 4 again, back to 1, 2, 3, 10: clamped to 2.5 and 7
    assert channel.tolist() == [0.0, 2.5, 2.5, 3.0, 7.0]


def test_gamma_keeps_mean_deviation_and_background():
    channel, inside = brain()
    before = channel[inside].clone()

    adjust_gamma(channel, inside, 1.5)

    assert (channel[~inside] == 0).all()
    torch.testing.assert_close(channel[inside].mean(), before.mean())
    torch.testing.assert_close(channel[inside].std(), before.std())
    assert not torch.allclose(channel[inside], before, atol=0.01)


def test_gamma_of_two_raises_the_voxels_scaled_to_one_to_the_second_power():
    channel = torch.tensor([0.0, 1.0, 2.0, 3.0])  # inside: 0, 1/2, 1 -> 0, 1/4, 1, then mean 2 and deviation 1 again

    adjust_gamma(channel, channel != 0, 2.0)

    squared = torch.tensor([0.0, 0.25, 1.0])
    torch.testing.assert_close(channel[1:], (squared - squared.mean()) / squared.std() + 2)


@pytest.mark.parametrize("change", [adjust_contrast, adjust_gamma])
def test_empty_channel_and_channel_of_one_value_stay_as_they_are(change: Any):
    for value in (0.0, 2.0):
        channel = torch.full((3, 3, 3), value)
        change(channel, channel != 0, 1.3)
        assert (channel == value).all()


def test_every_modality_changes_on_its_own_and_the_background_stays_zero():
    channel, inside = brain()
    image = channel.repeat(4, 1, 1, 1)
    transform = RandModalityContrastd(prob=1.0).set_random_state(0)

    changed = transform({"image": image})["image"]

    assert (changed[:, ~inside] == 0).all()
    assert all(not torch.equal(changed[i], changed[j]) for i in range(4) for j in range(i))
    assert torch.equal(image, channel.repeat(4, 1, 1, 1))  # the case itself is not touched
    assert torch.equal(RandModalityContrastd(prob=0.0)({"image": image})["image"], image)


def test_image_with_metadata_changes_as_a_plain_one_does():
    image = brain()[0].repeat(4, 1, 1, 1)

    plain = RandModalityContrastd(prob=1.0).set_random_state(3)({"image": image})["image"]
    meta = RandModalityContrastd(prob=1.0).set_random_state(3)({"image": MetaTensor(image)})["image"]

    assert torch.equal(plain, torch.as_tensor(meta))


def test_modality_dropout_takes_one_modality_and_each_as_often():
    image = brain()[0].repeat(4, 1, 1, 1)
    transform = RandModalityDropoutd(prob=1.0).set_random_state(0)

    lost = [(transform({"image": image})["image"].flatten(1) == 0).all(dim=1) for _ in range(400)]

    assert all(int(absent.sum()) == 1 for absent in lost)  # three of four are always left
    counts = torch.stack(lost).sum(dim=0)
    assert (counts - 100).abs().max() < 40  # 400 patches, a quarter each; 40 is more than four standard deviations
    assert torch.equal(image, brain()[0].repeat(4, 1, 1, 1))  # the case itself is not touched


def test_modality_dropout_happens_as_often_as_it_says_and_never_at_0():
    image = brain()[0].repeat(4, 1, 1, 1)
    seldom = RandModalityDropoutd(prob=0.25).set_random_state(0)
    never = RandModalityDropoutd(prob=0.0).set_random_state(0)

    happened = sum(not torch.equal(seldom({"image": image})["image"], image) for _ in range(400))

    assert 65 < happened < 135  # 100 expected, four standard deviations are 35
    assert all(torch.equal(never({"image": image})["image"], image) for _ in range(20))


@pytest.mark.parametrize("prob", [-0.1, 1.1, float("nan")])
def test_modality_dropout_that_is_no_probability_is_refused(prob: float):
    with pytest.raises(ValueError, match="modality_dropout must be a probability, 0 to 1"):
        RandModalityDropoutd(prob=prob)
