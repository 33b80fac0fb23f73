"""Gradient inversion on networks of a line: what must be found is found, and what must be lost is lost."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from brats_fl_tools.audit.inversion import Rebuilt, Search, correlations, distance_of, invert, total_variation
from brats_fl_tools.audit.updates import Update, clipped_and_noised, compressed, mean_of, plain_step, trained_steps

SHAPE = (1, 2, 5, 5, 1)
SEARCH = Search(iterations=150, restarts=1, total_variation=0.0)
INSIDE = torch.ones(SHAPE[2:], dtype=torch.long)


class Linear(nn.Module):
    """Each of 3 outputs is a weighted sum of all voxels: the gradient of its weights is the image, many times over."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.layer = nn.Linear(50, 3)

    def forward(self, image: Tensor) -> Tensor:
        return self.layer(image.flatten(1)).reshape(1, 3, 1, 1, 1).expand(1, 3, *SHAPE[2:])


@pytest.fixture
def patch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    return torch.randn(SHAPE, generator=generator), (torch.rand((1, 3, 5, 5, 1), generator=generator) > 0.5).float()


def loss(logits: Tensor, regions: Tensor) -> Tensor:
    return nn.functional.binary_cross_entropy_with_logits(logits, regions)


def attack(update: Update, regions: Tensor, network: nn.Module | None = None) -> Rebuilt:
    return invert(network or Linear(), loss, update, regions, SHAPE[1], SEARCH)


def test_input_of_a_linear_network_is_rebuilt_from_the_gradient_of_a_step(patch: tuple[Tensor, Tensor]):
    found = attack(plain_step(Linear(), loss, patch), patch[1])

    assert found.distance < 0.01
    assert min(correlations(patch[0], found.image, INSIDE)) > 0.99


def test_noise_breaks_the_same_attack(patch: tuple[Tensor, Tensor]):
    update = clipped_and_noised(plain_step(Linear(), loss, patch), sigma=1.0, seed=0)

    found = attack(update, patch[1])

    assert max(map(abs, correlations(patch[0], found.image, INSIDE))) < 0.5


def test_update_as_int8_is_rebuilt_nearly_as_well(patch: tuple[Tensor, Tensor]):
    found = attack(compressed(plain_step(Linear(), loss, patch), "int8"), patch[1])

    assert min(correlations(patch[0], found.image, INSIDE)) > 0.98


def test_what_hospitals_sum_is_the_plain_mean():
    updates = [{"w": torch.tensor([1.0, 2.0])}, {"w": torch.tensor([3.0, -2.0])}]

    assert mean_of(updates)["w"].tolist() == [2.0, 0.0]


def test_same_seed_gives_the_same_image_and_the_better_start_is_taken(patch: tuple[Tensor, Tensor]):
    update, network = plain_step(Linear(), loss, patch), Linear()
    told: list[int] = []

    def search(restarts: int, seed: int) -> Rebuilt:
        given = Search(iterations=5, restarts=restarts, seed=seed)
        return invert(network, loss, update, patch[1], SHAPE[1], given, told.append)

    first, again, more, other = search(1, 7), search(1, 7), search(3, 7), search(1, 8)

    assert torch.equal(first.image, again.image)
    assert not torch.equal(first.image, other.image)
    assert more.distance <= first.distance
    assert told[10:25] == list(range(1, 16))  # over all starts of the third


def test_distance_is_0_for_the_update_itself_1_at_right_angles_2_for_its_opposite(patch: tuple[Tensor, Tensor]):
    network = Linear()
    update = plain_step(network, loss, patch)
    opposite = {name: -3 * value for name, value in update.items()}
    nothing = {name: torch.zeros_like(value) for name, value in update.items()}

    found = [float(distance_of(network, loss, one, *patch).detach()) for one in (update, nothing, opposite)]

    assert found == pytest.approx([0, 1, 2], abs=1e-5)


def test_total_variation_is_the_mean_step_between_neighbours():
    image = torch.tensor([0.0, 1.0, 3.0]).reshape(1, 1, 3, 1, 1)

    assert float(total_variation(image)) == 1.5


def test_correlation_leaves_out_brightness_contrast_and_what_is_outside():
    truth = torch.tensor([1.0, 2.0, 3.0, 99.0]).reshape(1, 1, 4, 1, 1)
    rebuilt = torch.tensor([10.0, 30.0, 50.0, -1.0]).reshape(1, 1, 4, 1, 1)
    brain = torch.tensor([1, 1, 1, 0]).reshape(4, 1, 1)

    assert correlations(truth, rebuilt, brain) == pytest.approx((1.0,))
    assert correlations(truth, torch.ones_like(truth), brain) == (0.0,)


def test_what_the_label_tells_is_no_correlation_beyond_it():
    truth = torch.tensor([1.0, 2.0, 11.0, 12.0]).reshape(1, 1, 4, 1, 1)
    from_label = torch.tensor([0.0, 0.0, 5.0, 5.0]).reshape(1, 1, 4, 1, 1)
    mirrored = torch.tensor([2.0, 1.0, 12.0, 11.0]).reshape(1, 1, 4, 1, 1)
    tissues = torch.tensor([1, 1, 2, 2]).reshape(4, 1, 1)

    assert correlations(truth, from_label, tissues) == (0.0,)
    assert correlations(truth, mirrored, tissues) == pytest.approx((-1.0,))


def test_round_of_plain_descent_with_one_step_is_the_clipped_gradient(patch: tuple[Tensor, Tensor]):
    network = Linear()
    step = plain_step(network, loss, patch)
    length = float(torch.linalg.vector_norm(torch.cat([value.flatten() for value in step.values()])))

    def optimiser(trained: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.SGD(trained.parameters(), lr=0.5)

    free = trained_steps(network, loss, [patch], optimiser, max_norm=1e6)
    bound = trained_steps(network, loss, [patch], optimiser, max_norm=length / 4)

    torch.testing.assert_close(free["layer.weight"], step["layer.weight"] * 0.5)
    torch.testing.assert_close(bound["layer.weight"], step["layer.weight"] * 0.5 / 4, rtol=1e-4, atol=1e-7)


def test_noise_is_counted_in_clipping_norms():
    update = {"a": torch.full((100,), 3.0), "b": torch.full((300,), 3.0)}  # global norm 60

    noised = clipped_and_noised(update, sigma=2.0, seed=0)
    without = clipped_and_noised(update, sigma=1e-9, seed=0)

    torch.testing.assert_close(without["a"], torch.full((100,), 0.05))
    noise = torch.cat([noised["a"], noised["b"]]) - 0.05
    assert float(noise.std()) == pytest.approx(2.0, rel=0.1)
