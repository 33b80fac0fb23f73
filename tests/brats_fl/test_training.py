from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ignite.engine import Events
from monai.fl.utils.exchange_object import ExchangeObject
from tests.tiny_network import TINY, tiny_model
from tests.tiny_sites import corrupt

from brats_fl.cases.datalists import read_datalist
from brats_fl.constants import KEY_METRIC
from brats_fl.errors import CaseError, DataListError, ModelError, NoLocalModelError, NotSharedError, cause_of
from brats_fl.network.checkpoints import read_state, save_whole
from brats_fl.site_state import LOCAL_MODEL_FILE, read_own
from brats_fl.tasks import Task
from brats_fl.trainer_process import describe_failure
from brats_fl.training import LocalSettings, LocalTraining, TrainingAborted, local_model, train_round, validate

BUNDLE = Path(__file__).parents[2] / "bundles" / "brats_unet"
Weights = dict[str, Any]


@pytest.fixture
def settings(shared_sites: Path, tmp_path: Path) -> LocalSettings:
    """Of ``hospital-1``: 3 cases for training, 2 for validation."""
    return LocalSettings(
        bundle=BUNDLE,
        datalist=shared_sites / "hospital-1" / "datalist.json",
        state_dir=tmp_path / "state",
        site="hospital-1",
        rounds=2,
        profile="small",
        overrides=TINY,
    )


@pytest.fixture
def start() -> Iterator[Callable[[LocalSettings], LocalTraining]]:
    """Function that makes a training ready; all are let go of at the end."""
    started = []

    def make(settings: LocalSettings) -> LocalTraining:
        training = LocalTraining(settings)
        training.initialize()
        started.append(training)
        return training

    yield make
    for training in started:
        training.finalize()


def weights_of(training: LocalTraining) -> Weights:
    return {name: value.numpy(force=True).copy() for name, value in training.trainer.network.state_dict().items()}


def update_of(training: LocalTraining, model: Weights, round_index: int) -> Weights:
    training.train(ExchangeObject(weights=model), {"round": round_index})
    return training.get_weights().weights


def saved(settings: LocalSettings) -> Weights:
    """The model that the site kept last."""
    return {name: value.numpy() for name, value in read_state(settings.state_dir / LOCAL_MODEL_FILE).items()}


def same(first: Weights, second: Weights) -> bool:
    return set(first) == set(second) and all(np.array_equal(first[name], second[name]) for name in first)


# --- One round ---


def test_update_is_local_minus_global_model(settings, start):
    training = start(settings)
    model = tiny_model()

    update = update_of(training, model, 0)

    local = weights_of(training)
    assert same(update, {name: local[name] - model[name] for name in model})
    assert all(value.dtype == np.float32 for value in update.values())
    assert any(value.any() for value in update.values())


def test_statistics_say_cases_steps_loss_and_seconds(settings, start):
    training = start(settings)
    training.train(ExchangeObject(weights=tiny_model()), {"round": 0})

    statistics = training.get_weights().statistics

    assert training.cases == statistics["cases"] == 3  # the weight in the mean
    assert statistics["steps"] == 2
    assert 0 < statistics["loss"] < 5
    assert statistics["train_seconds"] > 0


def test_site_keeps_its_last_model_on_disk(settings, start):
    training = start(settings)
    update_of(training, tiny_model(), 0)

    stored = torch.load(settings.state_dir / "local_model.pt", weights_only=True)["model"]

    assert same({name: value.numpy() for name, value in stored.items()}, weights_of(training))
    assert [path.name for path in settings.state_dir.iterdir()] == ["local_model.pt"]


def test_round_is_the_same_bit_for_bit_in_two_fresh_objects_and_another_round_is_not(settings, start):
    model = tiny_model()
    first, second = start(settings), start(replace(settings, state_dir=settings.state_dir / "second"))

    round_0 = update_of(first, model, 0)
    round_1 = update_of(first, model, 1)

    # The second object never saw round 0, and evaluated in between: nothing in memory matters.
    second.evaluate(ExchangeObject(weights=model))
    assert same(update_of(second, model, 1), round_1)
    assert same(update_of(second, model, 0), round_0)
    assert not same(round_0, round_1)


@pytest.mark.parametrize("change", [{"seed": 1}, {"site": "hospital-9"}])
def test_another_seed_or_site_trains_otherwise(settings, start, change):
    model = tiny_model()

    assert not same(update_of(start(settings), model, 0), update_of(start(replace(settings, **change)), model, 0))


def test_two_local_epochs_repeat_bit_for_bit_at_a_site_that_never_evaluates(settings, start, shared_sites):
    settings = replace(settings, datalist=shared_sites / "hospital-2" / "datalist.json", local_epochs=2)
    model = tiny_model()
    training = start(settings)

    first = update_of(training, model, 0)

    assert training.steps == 4
    assert same(update_of(training, model, 0), first)


def test_learning_rate_goes_on_across_rounds(settings, start):
    training = start(replace(settings, rounds=2, overrides={**TINY, "learning_rate": 0.8}))
    seen = []
    training.trainer.add_event_handler(
        Events.ITERATION_COMPLETED, lambda engine: seen.append(engine.optimizer.param_groups[0]["lr"])
    )
    model = tiny_model()

    for round_index in (0, 1, 0):
        training.train(ExchangeObject(weights=model), {"round": round_index})

    whole = [0.8 * (left / 4) ** 0.9 for left in (4, 3, 2, 1)]  # two rounds of two steps
    assert seen == pytest.approx(whole + whole[:2])


def test_optimiser_moments_do_not_outlive_a_round(settings, start):
    training = start(settings)
    model = tiny_model()
    update_of(training, model, 0)

    steps = []
    training.trainer.add_event_handler(
        Events.ITERATION_COMPLETED,
        lambda engine: steps.append(int(next(iter(engine.optimizer.state.values()))["step"])),
    )
    update_of(training, model, 1)

    assert steps == [1, 2]


# --- The algorithm's part ---

PULL = """
import torch

SETTINGS = {"strength": 0.0}
SENT = ("seen",)


def local_term(weight, start, received, own, settings):
    return settings["strength"] * (weight - received["centre"])


def client_update(run, received, own, settings):
    moved = {name: run.trained[name] - value for name, value in run.start.items()}
    return {"moved": moved}, {"seen": own.get("moved", moved)}


def server_update(model, state, contributions, settings):
    return model, state
"""


def pulled(settings: LocalSettings, folder: Path, strength: float) -> LocalSettings:
    (folder / "pull.py").write_text(PULL, encoding="utf-8")
    return replace(settings, algorithm="pull", algorithm_settings={"strength": strength}, code=folder)


def centre_of(model: Weights, value: float) -> dict[str, Weights]:
    return {"weights": model, "centre": {name: np.full_like(array, value) for name, array in model.items()}}


def test_term_of_the_algorithm_is_added_to_every_gradient_before_it_is_clipped(settings, start, tmp_path):
    model = tiny_model()
    training = start(pulled(settings, tmp_path, 1e6))
    norms, signs = [], []

    def look(engine: Any) -> None:
        gradients = {name: parameter.grad for name, parameter in engine.network.named_parameters()}
        norms.append(float(sum(gradient.square().sum() for gradient in gradients.values()).sqrt()))
        signs.append({name: gradient.sign() for name, gradient in gradients.items()})

    training.trainer.add_event_handler(Events.ITERATION_COMPLETED, look)
    train_round(training, Task("train", centre_of(model, -1e3), 0))

    # 1e6 x (w + 1000) outweighs every loss: all gradients point one way, and the clipping sees their sum.
    assert norms == pytest.approx([12.0] * 2, rel=1e-3)
    assert all(bool((sign == 1).all()) for sign in signs[0].values())


def test_term_of_nothing_leaves_the_update_as_it_is_bit_for_bit(settings, start, tmp_path):
    model = tiny_model()
    plain = train_round(start(settings), Task("train", {"weights": model}, 0))
    other = replace(pulled(settings, tmp_path, 0.0), state_dir=tmp_path / "other")

    result = train_round(start(other), Task("train", centre_of(model, 0.5), 0))

    assert same(result.update, plain.update)
    assert sorted(result.payloads) == ["seen", "weights"]


def test_site_remembers_what_the_algorithm_tells_it_and_a_fresh_object_finds_it(settings, start, tmp_path):
    model = tiny_model()
    own = pulled(settings, tmp_path, 0.0)

    first = train_round(start(own), Task("train", centre_of(model, 0.0), 0))
    second = train_round(start(own), Task("train", centre_of(model, 0.0), 1))

    assert same(second.payloads["seen"], first.update), "what the first round moved came back in the second"
    assert sorted(path.name for path in own.state_dir.iterdir()) == ["local_model.pt", "round-0000.pt", "round-0001.pt"]


def test_what_stays_at_the_site_is_not_sent_and_the_site_goes_on_from_its_own(settings, start):
    model = tiny_model()
    own = replace(settings, algorithm="local_norm")
    local = {name for name in model if name.endswith(("adn.N.weight", "adn.N.bias"))}

    first = train_round(start(own), Task("train", {"weights": model}, 0))
    kept = saved(own)
    second = start(own)
    second.train(ExchangeObject(weights=model), {"round": 1, "own": read_own(own.state_dir, 1)})

    assert all(not first.update[name].any() for name in local)
    assert all(first.update[name].any() for name in model if name.endswith("conv.weight"))
    assert same({name: second.start[name] for name in local}, {name: kept[name] for name in local})
    assert same({name: second.start[name] for name in set(model) - local}, {n: model[n] for n in set(model) - local})


def test_metrics_are_of_the_shared_weights_with_what_is_the_sites_own(settings, start):
    model = tiny_model()
    own = replace(settings, algorithm="local_norm")
    training = start(own)
    train_round(training, Task("train", {"weights": model}, 0))

    validate(training, Task("validate", {"weights": model}))

    kept = saved(own)
    used = weights_of(training)
    name = next(name for name in model if name.endswith("adn.N.weight"))
    assert np.array_equal(used[name], kept[name])
    assert not np.array_equal(used[name], model[name])


def test_payload_of_another_network_is_refused_before_anything_is_trained(settings, start, tmp_path):
    payloads = {**centre_of(tiny_model(), 0.0), "centre": {"w": np.zeros(2, np.float32)}}

    with pytest.raises(ModelError, match="keys differ from the network's"):
        train_round(start(pulled(settings, tmp_path, 0.0)), Task("train", payloads, 0))


# --- Evaluation ---


def test_evaluation_gives_the_key_metric_and_dice_per_region(settings, start):
    training = start(settings)

    metrics = training.evaluate(ExchangeObject(weights=tiny_model())).metrics

    assert set(metrics) == {KEY_METRIC, "val_dice_tc", "val_dice_wt", "val_dice_et"}
    assert metrics[KEY_METRIC] == pytest.approx(np.mean([metrics[f"val_dice_{r}"] for r in ("tc", "wt", "et")]))
    assert training.evaluate(ExchangeObject(weights=tiny_model())).metrics == metrics


def test_trainer_and_evaluator_share_one_network(settings, start):
    training = start(settings)

    assert training.evaluator.network is training.trainer.network


def test_site_without_validation_cases_has_no_metrics_but_trains(settings, start, shared_sites):
    training = start(replace(settings, datalist=shared_sites / "hospital-2" / "datalist.json", site="hospital-2"))

    assert training.evaluate(ExchangeObject(weights=tiny_model())).metrics == {}
    assert training.cases == 1
    assert any(value.any() for value in update_of(training, tiny_model(), 0).values())


# --- What does not fit ---


def spoil(model: Weights, kind: str) -> tuple[Weights, str]:
    """A model with one fault, and what the error has to name."""
    spoiled = {name: value.copy() for name, value in model.items()}
    name = list(model)[3]
    if kind == "missing":
        del spoiled[name]
        return spoiled, f"1 missing (first: {name}), 0 unknown"
    if kind == "unknown":
        return {**spoiled, "other.weight": np.zeros(1, np.float32)}, "0 missing, 1 unknown;"
    if kind == "shape":
        spoiled[name] = np.zeros((9, 9), np.float32)
        return spoiled, f"{name} has shape (9, 9)"
    spoiled[name].flat[0] = np.nan
    return spoiled, f"{name} holds NaN or infinite values"


@pytest.mark.parametrize("kind", ["missing", "unknown", "shape", "not finite"])
def test_model_that_does_not_fit_is_refused_with_the_key_and_leaves_the_network_alone(settings, start, kind):
    training = start(settings)
    before = weights_of(training)
    spoiled, named = spoil(before, kind)

    for task in (lambda data: training.train(data, {"round": 0}), training.evaluate):
        with pytest.raises(ModelError) as caught:
            task(ExchangeObject(weights=spoiled))
        assert named in str(caught.value)

    assert same(weights_of(training), before)


def test_training_that_diverges_sends_no_update(settings, start):
    training = start(settings)
    training.train(ExchangeObject(weights=tiny_model()), {"round": 0})
    with torch.no_grad():
        next(training.trainer.network.parameters()).fill_(float("nan"))

    with pytest.raises(ModelError, match="holds NaN or infinite values; the training diverged"):
        training.get_weights()

    assert not settings.state_dir.exists()  # nor does it overwrite the site's last good model


def test_weights_that_cannot_be_written_to_are_taken_as_they_are(settings, start):
    model = tiny_model()
    for value in model.values():
        value.flags.writeable = False  # as arrays that came over the network

    assert any(value.any() for value in update_of(start(settings), model, 0).values())


def test_data_list_without_training_cases_is_refused(settings, tiny_sites):
    root = tiny_sites({"hospital-3": (0, 1, 0)})
    training = LocalTraining(replace(settings, datalist=root / "hospital-3" / "datalist.json"))

    with pytest.raises(Exception, match="load_split") as caught:  # MONAI wraps what a configuration raises
        training.initialize()

    cause = cause_of(caught.value)
    assert isinstance(cause, DataListError)
    assert str(cause).endswith("training is empty; at least one case is needed")


# --- Called off, or failed, and on again ---


def slow_down(training: LocalTraining, seconds: float) -> threading.Event:
    """Make every forward pass take longer; the event is set when the first has begun."""
    begun = threading.Event()

    def wait(*_: Any) -> None:
        begun.set()
        time.sleep(seconds)

    training.trainer.network.register_forward_hook(wait)
    return begun


def abort_while_running(training: LocalTraining, task: Callable[[], Any], begun: threading.Event) -> float:
    """Seconds from the abort until the task has stopped; fails unless it stopped by it."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            task()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    assert begun.wait(timeout=60)
    begin = time.perf_counter()
    training.abort()
    thread.join(timeout=30)
    assert not thread.is_alive()
    assert [type(error) for error in raised] == [TrainingAborted]
    return time.perf_counter() - begin


def test_abort_stops_training_and_the_next_round_is_as_if_nothing_had_been(settings, start):
    model = tiny_model()
    expected = update_of(start(replace(settings, state_dir=settings.state_dir / "other")), model, 1)
    training = start(settings)
    begun = slow_down(training, 1.0)

    seconds = abort_while_running(training, lambda: training.train(ExchangeObject(weights=model), {"round": 0}), begun)

    assert seconds < 5
    assert not [thread for thread in threading.enumerate() if thread.name == "prefetch"]
    assert same(update_of(training, model, 1), expected)


def test_abort_stops_a_sliding_window_evaluation_and_the_next_one_is_whole(settings, start):
    # Windows of 32 over a brain of 38 x 44 x 38: eight windows a case, two at once, two cases.
    training = start(settings)
    model = ExchangeObject(weights=tiny_model())
    expected = training.evaluate(model).metrics
    begun = slow_down(training, 0.5)

    seconds = abort_while_running(training, lambda: training.evaluate(model), begun)

    assert seconds < 5
    training.trainer.network._forward_hooks.clear()
    assert training.evaluate(model).metrics == expected


def test_corrupt_case_stops_the_round_with_its_name_and_the_next_task_works(settings, start, tiny_sites):
    root = tiny_sites({"hospital-1": (1, 1, 0)})
    scan = root / "hospital-1" / "hospital-1-case-001" / "hospital-1-case-001_t2.nii.gz"
    whole = corrupt(scan)
    training = start(replace(settings, datalist=root / "hospital-1" / "datalist.json"))
    model = tiny_model()

    with pytest.raises(CaseError, match=r"hospital-1-case-001: t2w: .*_t2\.nii\.gz cannot be read"):
        training.train(ExchangeObject(weights=model), {"round": 0})
    assert KEY_METRIC in training.evaluate(ExchangeObject(weights=model)).metrics

    scan.write_bytes(whole)
    assert any(value.any() for value in update_of(training, model, 1).values())


# --- What the site keeps ---


def test_state_that_cannot_be_written_leaves_the_old_file_whole(tmp_path, monkeypatch):
    path = tmp_path / "local_model.pt"
    save_whole(path, {"model": {"w": torch.ones(2)}})
    monkeypatch.setattr(torch, "save", lambda *_: (_ for _ in ()).throw(OSError("No space left on device")))

    with pytest.raises(OSError, match="No space left"):
        save_whole(path, {"model": {"w": torch.zeros(2)}})

    assert torch.load(path)["model"]["w"].tolist() == [1, 1]
    assert [file.name for file in tmp_path.iterdir()] == ["local_model.pt"]


def test_full_disk_is_called_so_and_leaves_no_half_model(small_disk: Path) -> None:
    with pytest.raises(OSError, match="No space left") as full:
        save_whole(small_disk / "local_model.pt", {"model": {"w": torch.zeros(100_000)}})

    assert describe_failure(full.value).code == "DISK_FULL"
    assert list(small_disk.iterdir()) == []


# --- What other hospitals may have ---


def test_local_model_is_the_one_that_was_sent_as_an_update(settings, start):
    training = start(settings)
    model = tiny_model()
    with pytest.raises(NoLocalModelError):
        local_model(training, Task("local_model", {}))
    update = update_of(training, model, 0)
    training.evaluate(ExchangeObject(weights=model))  # another one is in the network now

    given = local_model(training, Task("local_model", {})).payloads["weights"]

    assert set(given) == set(model)
    assert all(np.allclose(given[name] - model[name], update[name], atol=1e-6) for name in model)


def test_local_model_stays_where_the_algorithm_keeps_parameters_at_the_site(settings, start):
    training = start(replace(settings, algorithm="local_norm"))
    update_of(training, tiny_model(), 0)

    with pytest.raises(NotSharedError, match="local_norm"):
        local_model(training, Task("local_model", {}))


def test_models_are_evaluated_on_the_split_that_is_asked_for(settings, start):
    model = {"weights": tiny_model()}
    lists = read_datalist(settings.datalist)

    validated = start(settings)
    tested = start(replace(settings, split="testing"))

    assert [item["case"] for item in validated.evaluator.data_loader.dataset.data] == [c.case for c in lists.validation]
    assert [item["case"] for item in tested.evaluator.data_loader.dataset.data] == [c.case for c in lists.testing]
    assert validate(tested, Task("validate", model)).metrics != validate(validated, Task("validate", model)).metrics
