"""Each algorithm by hand, and on a small problem on which federated averaging is known to fail."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from monai.networks.nets import DynUNet, UNet

from brats_fl.algorithms import LOCAL, Algorithm, Contribution, LocalRun, load_algorithm
from brats_fl.exchange import WEIGHTS, Payloads, Weights
from brats_fl.network.networks import InstanceNormAttentionUnet

Gradient = Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]


@dataclass
class Hospital:
    """A site that goes down its own gradient by plain steps."""

    gradient: Gradient
    takes_part: Callable[[int], bool] = lambda index: True

    def __post_init__(self) -> None:
        self.own: Payloads = {}
        self.model: dict[str, np.ndarray] = {}

    def train(
        self, algorithm: Algorithm, name: str, model: Weights, received: Payloads, steps: int, rate: float
    ) -> Contribution:
        """What a round of ``LocalTraining`` does, with arithmetic that fits on a page."""
        kept = {key: value for key, value in self.own.get(LOCAL, {}).items() if algorithm.is_local(key)}
        start = {**model, **kept}
        weights = {key: torch.tensor(value) for key, value in start.items()}
        for _ in range(steps):
            gradient = self.gradient(weights)
            for key in weights:
                if algorithm.has_local_term:
                    sent, own = (
                        {part: torch.tensor(arrays[key]) for part, arrays in payloads.items()}
                        for payloads in (received, self.own)
                    )
                    gradient[key] = gradient[key] + algorithm.local_term(
                        weights[key], torch.tensor(start[key]), sent, own
                    )
            weights = {key: value - rate * gradient[key] for key, value in weights.items()}
        self.model = {key: value.numpy() for key, value in weights.items()}
        run = LocalRun(start, self.model, steps, steps * rate)
        remembered, sent = algorithm.client_update(run, received, self.own)
        self.own = {**remembered, LOCAL: self.model}
        update = {key: self.model[key] - start[key] for key in start}
        update |= {key: np.zeros_like(value) for key, value in update.items() if algorithm.is_local(key)}
        return Contribution(name, 1, 1.0, steps, {WEIGHTS: update, **sent})


def play(
    algorithm: Algorithm, model: Weights, hospitals: Sequence[Hospital], rounds: int, steps: int = 10, rate: float = 0.1
) -> dict[str, np.ndarray]:
    """The model after so many rounds."""
    state, model = algorithm.server_state(model), dict(model)
    for index in range(rounds):
        received = algorithm.broadcast(state)
        parts = [
            hospital.train(algorithm, f"hospital-{number}", model, received, steps, rate)
            for number, hospital in enumerate(hospitals, 1)
            if hospital.takes_part(index)
        ]
        update, state = algorithm.server_update(model, state, parts)
        assert {value.dtype for part in (update, *state.values()) for value in part.values()} == {np.dtype(np.float32)}
        model = {key: value + update[key] for key, value in model.items()}
    return model


def scalar(value: float) -> dict[str, np.ndarray]:
    return {"w": np.full(1, value, np.float32)}


def bowl(curvature: float, middle: float) -> Gradient:
    """Of ``curvature / 2 * (w - middle)^2``."""
    return lambda weights: {"w": curvature * (weights["w"] - middle)}


def sharp_and_flat() -> list[Hospital]:
    """Bowls of curvature 1 at 0 and 9 at 10: their sum is least at 9, the mean of the two middles is 5."""
    return [Hospital(bowl(1, 0)), Hospital(bowl(9, 10))]


LONG = {"rounds": 60, "steps": 100, "rate": 0.1}
"""Local training to the end: each site arrives at its own middle."""


def test_averaging_of_long_local_rounds_ends_between_the_sites_own_optima():
    (w,) = play(load_algorithm("fedavg"), scalar(0), sharp_and_flat(), **LONG)["w"]

    assert w == pytest.approx(5, abs=0.01)


def test_scaffold_ends_at_the_optimum_of_all_sites():
    (w,) = play(load_algorithm("scaffold"), scalar(0), sharp_and_flat(), 200, steps=50, rate=0.02)["w"]

    assert w == pytest.approx(9, abs=0.05)
    (plain,) = play(load_algorithm("fedavg"), scalar(0), sharp_and_flat(), 200, steps=50, rate=0.02)["w"]
    assert abs(plain - 9) > 1


def test_fedprox_ends_nearer_to_the_optimum_of_all_sites():
    # Each site arrives at (a m + mu w) / (a + mu); their mean is w where 1/11 (0 - w) + 9/19 (10 - w) = 0: w = 8.39.
    (w,) = play(load_algorithm("fedprox", {"mu": 10}), scalar(0), sharp_and_flat(), **LONG | {"rate": 0.05})["w"]

    assert w == pytest.approx(8.39, abs=0.01)


def test_fedprox_that_pulls_at_nothing_is_averaging():
    plain = play(load_algorithm("fedavg"), scalar(0), sharp_and_flat(), 3)

    assert play(load_algorithm("fedprox", {"mu": 0}), scalar(0), sharp_and_flat(), 3) == plain


def taking_turns() -> list[Hospital]:
    """Two sites that want -1 and 1 and are there every other round."""
    return [Hospital(bowl(1, -1), lambda index: index % 2 == 0), Hospital(bowl(1, 1), lambda index: index % 2 == 1)]


def test_fedavgm_stays_between_sites_that_take_turns():
    (plain,) = play(load_algorithm("fedavg"), scalar(0), taking_turns(), 100, steps=100)["w"]
    (steady,) = play(
        load_algorithm("fedavgm", {"momentum": 0.9, "server_rate": 0.1}), scalar(0), taking_turns(), 100, steps=100
    )["w"]

    assert plain == pytest.approx(1, abs=1e-3)  # where the last one wanted it
    assert abs(steady) < 0.3


def test_fedavgm_keeps_its_direction():
    algorithm = load_algorithm("fedavgm", {"momentum": 0.5, "server_rate": 2.0})
    state = algorithm.server_state(scalar(0))
    part = Contribution("hospital-1", 1, 1.0, 1, {WEIGHTS: scalar(1)})

    first, state = algorithm.server_update(scalar(0), state, [part])
    second, state = algorithm.server_update(scalar(0), state, [part])

    assert (first["w"].tolist(), second["w"].tolist()) == ([2.0], [3.0])  # 2 x 1; 2 x (0.5 x 1 + 1)
    assert state["velocity"]["w"].tolist() == [1.5]


@pytest.mark.parametrize("name", ["fedadam", "fedyogi"])
def test_adaptive_server_moves_parameters_of_small_gradients_as_well(name: str):
    # Of 0.5 w1^2 + 0.0005 w2^2, from (1, 1): averaging leaves the second where it was.
    def uneven(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {"w": weights["w"] * torch.tensor([1.0, 0.001])}

    start = {"w": np.ones(2, np.float32)}
    plain = play(load_algorithm("fedavg"), start, [Hospital(uneven)], 50)["w"]
    adaptive = play(load_algorithm(name, {"server_rate": 0.05}), start, [Hospital(uneven)], 50)["w"]

    assert plain[1] == pytest.approx(1, abs=0.06)
    assert abs(adaptive[1]) < 0.6
    assert abs(adaptive[0]) < 0.3


def test_fedadam_by_hand():
    settings = {"server_rate": 0.1, "beta1": 0.5, "beta2": 0.75, "tau": 1.0}
    algorithm = load_algorithm("fedadam", settings)
    part = Contribution("hospital-1", 1, 1.0, 1, {WEIGHTS: scalar(2)})

    update, state = algorithm.server_update(scalar(0), algorithm.server_state(scalar(0)), [part])

    # m = 0.5 x 2 = 1; v = 0.75 x 1 + 0.25 x 4 = 1.75; 0.1 x 1 / (1.3229 + 1).
    assert (state["mean_update"]["w"].tolist(), state["mean_square"]["w"].tolist()) == ([1.0], [1.75])
    assert update["w"] == pytest.approx(0.1 / (1.75**0.5 + 1))


def test_fedyogi_by_hand():
    settings = {"server_rate": 0.1, "beta1": 0.5, "beta2": 0.75, "tau": 1.0}
    algorithm = load_algorithm("fedyogi", settings)
    state = algorithm.server_state(scalar(0))

    squares = []
    for size in (2, 0.5):
        part = Contribution("hospital-1", 1, 1.0, 1, {WEIGHTS: scalar(size)})
        _, state = algorithm.server_update(scalar(0), state, [part])
        squares.append(state["mean_square"]["w"].tolist())

    assert squares == [[2.0], [1.9375]]  # 1 + 0.25 x 4; then 2 - 0.25 x 0.25, where Adam would have 1.5625


def test_fedyogi_heeds_a_site_that_is_seldom_there_and_fedadam_forgets_it():
    # Every third round a site wants 3 the one way, in the others one wants 1 the other way: the sum is 1 the first way.
    seldom = Hospital(lambda _: {"w": torch.tensor([-3.0])}, lambda index: index % 3 == 0)
    often = Hospital(lambda _: {"w": torch.tensor([1.0])}, lambda index: index % 3 != 0)
    settings = {"server_rate": 0.01, "beta1": 0.0, "beta2": 0.1, "tau": 0.001}

    (adam,), (yogi,) = (
        play(load_algorithm(name, settings), scalar(0), [seldom, often], 90, steps=1, rate=1.0)["w"]
        for name in ("fedadam", "fedyogi")
    )

    assert adam < 0 < yogi


def scanner(gain: float) -> Gradient:
    """A site whose scanner's values are a gain times the truth: fits ``layer * norm * gain * x`` to x, over x of 1."""

    def gradient(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        layer, norm = weights["layer.weight"], weights["block.adn.N.weight"]
        error = layer * norm * gain - 1
        return {"layer.weight": error * norm * gain, "block.adn.N.weight": error * layer * gain}

    return gradient


def test_local_norm_fits_each_scanner_where_one_model_fits_none():
    def errors(name: str) -> list[float]:
        start = {"layer.weight": np.ones(1, np.float32), "block.adn.N.weight": np.ones(1, np.float32)}
        sites, gains = [Hospital(scanner(gain)) for gain in (0.5, 2.0)], (0.5, 2.0)
        algorithm = load_algorithm(name)
        model = play(algorithm, start, sites, 100, steps=5, rate=0.05)
        assert not algorithm.is_local("layer.weight")
        used = [{key: site.model[key] if algorithm.is_local(key) else model[key] for key in model} for site in sites]
        return [
            abs(float((one["layer.weight"] * one["block.adn.N.weight"])[0]) * gain - 1)
            for one, gain in zip(used, gains, strict=True)
        ]

    assert max(errors("local_norm")) < 0.05
    assert min(errors("fedavg")) > 0.05
    assert max(errors("fedavg")) > 0.4


def is_norm(layer: torch.nn.Module) -> bool:
    return isinstance(layer, torch.nn.InstanceNorm3d)


@pytest.mark.parametrize(
    "network",
    [
        UNet(3, 4, 3, (4, 8, 8), (2, 2), num_res_units=2, norm=("INSTANCE", {"affine": True})),
        InstanceNormAttentionUnet(3, 4, 3, (4, 8, 8), (2, 2)),
        DynUNet(3, 4, 3, [3] * 3, [1, 2, 2], [2, 2], filters=(4, 8, 8), norm_name=("INSTANCE", {"affine": True})),
    ],
    ids=["unet", "attention_unet", "dynunet"],
)
def test_what_stays_at_the_site_is_scale_and_shift_of_every_normalisation(network: torch.nn.Module):
    local_norm = load_algorithm("local_norm")
    layers = network.named_modules(remove_duplicate=False)  # DynUNet has some by two names
    norms = {f"{name}.{part}" for name, layer in layers for part, _ in layer.named_parameters() if is_norm(layer)}

    assert {name for name in network.state_dict() if local_norm.is_local(name)} == norms
