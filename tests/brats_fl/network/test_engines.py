"""What fails in a network, or in what comes after it, names the case."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
import torch
from monai.data import DataLoader, Dataset
from monai.engines.utils import IterationEvents

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


class Steps:
    """What an evaluator does with cases, as it does it; ``written`` may wait for the network of the next case."""

    def __init__(self, cases: int) -> None:
        self.seen: list[str] = []
        self.network_of = [threading.Event() for _ in range(cases + 1)]
        data = Dataset([{"case": str(number), "image": torch.full((4, 2, 2, 2), number)} for number in range(cases)])
        self.evaluator = CaseEvaluator(
            torch.device("cpu"), DataLoader(data, batch_size=1), torch.nn.Identity(), inferer=self.infer
        )

    def infer(self, image: torch.Tensor, network: torch.nn.Module) -> torch.Tensor:
        number = int(image.flatten()[0])
        self.seen.append(f"network {number}")
        self.network_of[number].set()
        return network(image)

    def finish(self, number: int) -> None:
        self.seen.append(f"finish {number}")


def test_network_works_on_the_next_case_while_one_is_finished_and_on_no_other():
    steps = Steps(cases=3)

    @steps.evaluator.on(IterationEvents.MODEL_COMPLETED)
    def finish(engine: CaseEvaluator) -> None:
        number = int(engine.state.output[0]["pred"].flatten()[0])
        if number < 2:
            assert steps.network_of[number + 1].wait(timeout=10)  # would wait in vain for what comes after
        steps.finish(number)

    steps.evaluator.run()

    assert steps.seen == ["network 0", "network 1", "finish 0", "network 2", "finish 1", "finish 2"]


def test_network_stops_at_its_next_window_when_the_case_before_ends_the_run():
    steps, windows = Steps(cases=2), []

    def many_windows(image: torch.Tensor, network: torch.nn.Module) -> torch.Tensor:
        steps.infer(image, network)
        for _ in range(1000 if int(image.flatten()[0]) == 1 else 0):
            windows.append(network(image))
            time.sleep(0.01)
        return image

    def end(_: CaseEvaluator) -> None:
        assert steps.network_of[1].wait(timeout=10)
        raise KeyboardInterrupt

    steps.evaluator.inferer = many_windows
    steps.evaluator.add_event_handler(IterationEvents.MODEL_COMPLETED, end)
    with pytest.raises(KeyboardInterrupt):
        steps.evaluator.run()

    assert len(windows) < 1000
    assert not any(thread.name.startswith("ahead") for thread in threading.enumerate())


def test_network_that_is_being_trained_is_in_evaluation_mode_for_all_cases_and_then_trains_on():
    steps, modes = Steps(cases=3), []
    steps.evaluator.network.train().register_forward_hook(lambda network, *_: modes.append(network.training))

    steps.evaluator.run()

    assert modes == [False, False, False]
    assert steps.evaluator.network.training
    steps.evaluator.network(torch.zeros(1))  # and nothing stops it


def test_failing_training_step_is_told_with_the_cases_of_its_batch():
    network = torch.nn.Conv3d(4, 3, 1)
    trainer = CaseTrainer(
        torch.device("cpu"), 1, loader(), network, torch.optim.SGD(network.parameters(), 0.1), loss_function=refuse
    )

    with pytest.raises(StepError, match=r"^P_001: training on a patch: ValueError: expected more .*_t1ce\.nii\.gz\)"):
        trainer.run()
