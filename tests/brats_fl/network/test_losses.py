from __future__ import annotations

import math

import pytest
import torch

from brats_fl.network.losses import DiceBCELoss


def voxels(*channels: list[float]) -> torch.Tensor:
    """(1, 3, N, 1, 1) from one list per channel."""
    return torch.tensor(channels).reshape(1, len(channels), -1, 1, 1)


def test_loss_is_one_minus_dice_plus_cross_entropy():
    logits = voxels([0.0], [0.0], [0.0])  # probability 0.5
    target = voxels([1.0], [1.0], [1.0])

    loss = DiceBCELoss(smooth=0.0)(logits, target)

    dice = 2 * 0.5 * 1 / (0.5 + 1)  # 2/3
    assert loss.item() == pytest.approx(1 - dice + math.log(2))


def test_weights_choose_how_much_each_part_counts():
    logits, target = voxels([0.0], [0.0], [0.0]), voxels([1.0], [1.0], [1.0])

    assert DiceBCELoss(3.0, 0.0, smooth=0.0)(logits, target).item() == pytest.approx(3 * (1 - 2 / 3))
    assert DiceBCELoss(0.0, 2.0, smooth=0.0)(logits, target).item() == pytest.approx(2 * math.log(2))


def test_certain_and_right_costs_nothing_though_the_regions_overlap():
    # The voxel lies in all three regions, which a softmax over them could not say.
    logits, target = (
        voxels([50.0, -50.0], [50.0, -50.0], [50.0, -50.0]),
        voxels([1.0, 0.0], [1.0, 0.0], [1.0, 0.0]),
    )

    assert DiceBCELoss()(logits, target).item() == pytest.approx(0.0, abs=1e-6)


def test_batch_dice_sums_patches_before_it_divides():
    # Probability 0.5 everywhere; the first patch is all tumour, the second has none.
    logits = torch.zeros(2, 3, 1, 1, 1)
    target = torch.tensor([1.0, 0.0]).reshape(2, 1, 1, 1, 1).expand(2, 3, 1, 1, 1)

    over_batch = DiceBCELoss(bce_weight=0.0, batch=True, smooth=0.0)(logits, target)
    per_patch = DiceBCELoss(bce_weight=0.0, batch=False, smooth=0.0)(logits, target)

    assert over_batch.item() == pytest.approx(1 - 2 * 0.5 / (1 + 1))
    assert per_patch.item() == pytest.approx(((1 - 2 * 0.5 / 1.5) + 1) / 2)


def test_loss_is_float32_under_autocast_and_does_not_overflow():
    logits = torch.zeros(1, 3, 48, 48, 48)  # 110,592 voxels: more than float16's largest number, 65,504
    target = torch.ones_like(logits)
    loss = DiceBCELoss()

    for dtype in (torch.float16, torch.bfloat16):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            half = loss(logits.to(dtype), target)

        assert half.dtype == torch.float32
        assert half.item() == pytest.approx(loss(logits, target).item())


def test_bool_target_is_accepted():
    logits, target = voxels([2.0], [-1.0], [0.0]), voxels([1.0], [0.0], [1.0])

    assert DiceBCELoss()(logits, target.bool()).item() == DiceBCELoss()(logits, target).item()


def test_patch_without_tumour_has_a_finite_gradient():
    logits = torch.full((1, 3, 4, 4, 4), -30.0, requires_grad=True)

    DiceBCELoss()(logits, torch.zeros(1, 3, 4, 4, 4)).backward()

    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


def test_target_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"logits have shape \(1, 3, 2, 1, 1\), target has \(1, 1, 2, 1, 1\)"):
        DiceBCELoss()(torch.zeros(1, 3, 2, 1, 1), torch.zeros(1, 1, 2, 1, 1))
