"""What fails in a network, or in what comes after it, names the case."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from monai.data import DataLoader, Dataset

from brats_fl.errors import StepError
from brats_fl.network.engines import CaseEvaluator, CaseTrainer

ITEM = {"case": "P_001", "image": torch.zeros(4, 2, 2, 2), "label": torch.zeros(3, 2, 2, 2)}


def loader() -> DataLoader:
    dataset = Dataset([{**ITEM, "image": ["/data/P_001_t1ce.nii.gz"] * 4}])
    dataset.transform = lambda item: ITEM | {"case": item["case"]}
    return DataLoader(dataset, batch_size=1)


def refuse(*_: Any, **__: Any) -> Any:
    raise ValueError("expected more than 1 spatial element")


def evaluator(**settings: Any) -> CaseEvaluator:
    network = torch.nn.Conv3d(4, 3, 1)
    return CaseEvaluator(torch.device("cpu"), loader(), **{"network": network, **settings})


def test_failing_network_is_told_with_case_and_file():
    with pytest.raises(StepError) as caught:
        evaluator(inferer=refuse).run()

    said = "P_001: segmenting: ValueError: expected more than 1 spatial element (/data/P_001_t1ce.nii.gz)"
    assert str(caught.value) == said


def test_what_fails_after_the_network_is_told_as_such():
    with pytest.raises(StepError, match=r"^P_001: post-processing: ValueError: expected more"):
        evaluator(postprocessing=refuse).run()


def test_failing_training_step_is_told_with_the_cases_of_its_batch():
    network = torch.nn.Conv3d(4, 3, 1)
    trainer = CaseTrainer(
        torch.device("cpu"), 1, loader(), network, torch.optim.SGD(network.parameters(), 0.1), loss_function=refuse
    )

    with pytest.raises(StepError, match=r"^P_001: training on a patch: ValueError: expected more .*_t1ce\.nii\.gz\)"):
        trainer.run()
