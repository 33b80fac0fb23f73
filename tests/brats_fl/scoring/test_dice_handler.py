from __future__ import annotations

import pytest
import torch
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedEvaluator
from monai.handlers import from_engine

from brats_fl.scoring.metrics import RegionDiceHandler

TUMOUR, EMPTY = [1.0, 0.0], [0.0, 0.0]


def make_case(tc: list[float], wt: list[float], et: list[float]) -> torch.Tensor:
    return torch.tensor([tc, wt, et]).reshape(3, 2, 1, 1)


def evaluate(cases: list[dict[str, torch.Tensor]], batch_size: int = 1) -> SupervisedEvaluator:
    """Evaluator after one epoch, with a network that returns its input."""
    output_transform = from_engine(["pred", "label"])
    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(Dataset(cases), batch_size=batch_size),
        network=torch.nn.Identity(),
        key_val_metric={"val_mean_dice": RegionDiceHandler(output_transform=output_transform)},
        additional_metrics={
            f"val_dice_{region}": RegionDiceHandler(region, output_transform) for region in ("tc", "wt", "et")
        },
    )
    evaluator.run()
    return evaluator


@pytest.mark.parametrize("batch_size", [1, 2])
def test_evaluator_shows_mean_dice_over_cases_per_region_and_in_all(batch_size: int):
    perfect = {"image": make_case(TUMOUR, TUMOUR, EMPTY), "label": make_case(TUMOUR, TUMOUR, EMPTY)}
    # Core exact, whole half of two voxels (2 / 3), enhancing tumour seen where there is none (0).
    flawed = {"image": make_case(TUMOUR, TUMOUR, TUMOUR), "label": make_case(TUMOUR, [1.0, 1.0], EMPTY)}

    evaluator = evaluate([perfect, flawed], batch_size)

    assert evaluator.state.metrics == pytest.approx(
        {
            "val_dice_tc": 1.0,
            "val_dice_wt": (1 + 2 / 3) / 2,
            "val_dice_et": (1 + 0) / 2,
            "val_mean_dice": (1 + 5 / 6 + 1 / 2) / 3,
        }
    )
    assert evaluator.state.best_metric == pytest.approx((1 + 5 / 6 + 1 / 2) / 3)
    details = evaluator.state.metric_details
    assert details["val_mean_dice"].tolist() == [[1, 1, 1], pytest.approx([1, 2 / 3, 0])]
    assert details["val_dice_et"].tolist() == [[1], [0]]


def test_second_epoch_starts_afresh():
    case = {"image": make_case(TUMOUR, TUMOUR, TUMOUR), "label": make_case(TUMOUR, TUMOUR, TUMOUR)}
    evaluator = evaluate([case])

    evaluator.run()

    assert evaluator.state.metrics["val_mean_dice"] == 1.0
    assert evaluator.state.metric_details["val_mean_dice"].shape == (1, 3)


def test_unknown_region_is_refused():
    with pytest.raises(ValueError, match="region must be one of tc, wt, et, or None"):
        RegionDiceHandler("core")
