from __future__ import annotations

import pytest
import torch
from ignite.engine import Engine, Events
from monai.engines.utils import IterationEvents

from brats_fl.network.schedule import GradientClipping, PolynomialDecay


def optimizer(*rates: float) -> torch.optim.Optimizer:
    return torch.optim.SGD([{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": rate} for rate in rates], lr=1.0)


def rates_of_a_run(decay: PolynomialDecay, steps: int, epochs: int, first_epoch: int = 0) -> list[float]:
    """Learning rate of the first group at every step of a run."""
    seen: list[float] = []
    engine = Engine(lambda *_: seen.append(decay.optimizer.param_groups[0]["lr"]))
    decay.attach(engine)
    engine.state.epoch_length = steps
    engine.state.epoch = first_epoch
    engine.state.iteration = first_epoch * steps
    engine.state.max_epochs = first_epoch + epochs
    engine.run(range(steps))
    return seen


def test_rate_falls_in_a_line_when_the_power_is_one():
    decay = PolynomialDecay(optimizer(0.8), total_epochs=2, power=1.0)

    assert rates_of_a_run(decay, steps=4, epochs=2) == pytest.approx([0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1])


def test_power_of_two_squares_what_is_left():
    decay = PolynomialDecay(optimizer(1.0), total_epochs=1, power=2.0)

    assert rates_of_a_run(decay, steps=4, epochs=1) == pytest.approx([1, 9 / 16, 4 / 16, 1 / 16])


def test_rate_depends_on_the_iteration_only_and_not_on_what_was_run_before():
    whole = rates_of_a_run(PolynomialDecay(optimizer(0.8), total_epochs=2, power=1.0), steps=4, epochs=2)

    rejoined = rates_of_a_run(PolynomialDecay(optimizer(0.8), 2, 1.0), steps=4, epochs=1, first_epoch=1)

    assert rejoined == whole[4:]


def test_every_group_keeps_its_own_start():
    decay = PolynomialDecay(optimizer(1.0, 0.1), total_epochs=1, power=1.0)
    engine = Engine(lambda *_: None)
    engine.state.epoch_length, engine.state.iteration = 4, 3  # third of four steps: half is left

    decay(engine)

    assert [group["lr"] for group in decay.optimizer.param_groups] == pytest.approx([0.5, 0.05])


def test_rate_is_zero_and_not_negative_beyond_the_last_step():
    decay = PolynomialDecay(optimizer(1.0), total_epochs=1)
    engine = Engine(lambda *_: None)
    engine.state.epoch_length, engine.state.iteration = 4, 9

    decay(engine)

    assert decay.optimizer.param_groups[0]["lr"] == 0.0


def engine_with_gradient(*gradient: float) -> Engine:
    engine = Engine(lambda *_: None)
    engine.network = torch.nn.Linear(len(gradient), 1, bias=False)
    engine.network.weight.grad = torch.tensor([gradient])
    return engine


def test_gradient_longer_than_the_limit_is_scaled_to_it():
    engine = engine_with_gradient(3.0, 4.0)  # norm 5

    GradientClipping(1.0)(engine)

    torch.testing.assert_close(engine.network.weight.grad, torch.tensor([[0.6, 0.8]]))


def test_gradient_within_the_limit_stays():
    engine = engine_with_gradient(3.0, 4.0)

    GradientClipping(6.0)(engine)

    assert engine.network.weight.grad.tolist() == [[3.0, 4.0]]


def test_scaled_gradients_are_unscaled_before_they_are_clipped():
    class Scaler:
        def unscale_(self, _: object) -> None:
            engine.network.weight.grad /= 100

    engine = engine_with_gradient(300.0, 400.0)
    engine.scaler, engine.optimizer = Scaler(), None

    GradientClipping(6.0)(engine)

    assert engine.network.weight.grad.tolist() == [[3.0, 4.0]]


def test_clipping_happens_between_backward_and_the_step():
    clipping = GradientClipping(1.0)
    engine = Engine(lambda *_: None)
    engine.register_events(*IterationEvents)

    clipping.attach(engine)

    assert engine.has_event_handler(clipping, IterationEvents.BACKWARD_COMPLETED)
    assert not engine.has_event_handler(clipping, Events.ITERATION_COMPLETED)


@pytest.mark.parametrize("max_norm", [0.0, -1.0, float("nan")])
def test_limit_that_is_not_positive_is_refused(max_norm: float):
    with pytest.raises(ValueError, match="max_norm must be > 0"):
        GradientClipping(max_norm)
