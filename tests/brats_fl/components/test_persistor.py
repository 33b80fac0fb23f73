from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nvflare.apis.event_type import EventType
from nvflare.app_common.app_constant import AppConstants
from tests.flare import BUNDLES, Engine

from brats_fl.bundle import build_network
from brats_fl.components.bundle_location import app_root
from brats_fl.components.persistor import BundlePersistor, FinalModelLocator
from brats_fl.kept_updates import ALGORITHM_STATE


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    return Engine(tmp_path / "server", "server")


def start(
    engine: Engine, bundle: str = "brats_unet", seed: int = 3, checkpoint: Path | None = None, start_round: int = 0
) -> BundlePersistor:
    if checkpoint is not None and checkpoint.is_file():
        shutil.copyfile(checkpoint, app_root(engine.new_context()) / checkpoint.name)
    persistor = BundlePersistor(bundle, "small", seed, "" if checkpoint is None else checkpoint.name, start_round)
    persistor.handle_event(EventType.START_RUN, engine.new_context())
    return persistor


def weights(persistor: BundlePersistor, engine: Engine) -> dict[str, Any]:
    return persistor.load(engine.new_context())["weights"]


def panics(engine: Engine) -> list[str]:
    return [str(data) for event, data in engine.events if event == EventType.FATAL_SYSTEM_ERROR]


def test_first_global_model_is_the_bundle_s_network_with_the_seed(engine):
    loaded = weights(start(engine), engine)

    own = build_network(BUNDLES / "brats_unet", "small", seed=3).state_dict()
    assert set(loaded) == set(own)
    assert all(np.array_equal(loaded[name], own[name].numpy()) for name in own)


def test_same_seed_gives_the_same_model_and_another_seed_another(engine):
    first, again, other = (weights(start(engine, seed=seed), engine) for seed in (3, 3, 4))

    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert not all(np.array_equal(first[name], other[name]) for name in first)


def test_job_without_its_bundle_ends_with_one_message(engine):
    persistor = start(engine, bundle="brats_none")

    assert persistor.load_model(engine.new_context()) is None  # FLARE asks for it all the same
    assert len(panics(engine)) == 1
    assert panics(engine)[0].startswith("the job holds no bundle 'brats_none'; build it with `brats-fl job build`")


def test_job_starts_from_a_checkpoint(engine, tmp_path):
    state = build_network(BUNDLES / "brats_unet", "small", seed=8).state_dict()
    torch.save({"model": state}, tmp_path / "model.pt")

    loaded = weights(start(engine, checkpoint=tmp_path / "model.pt"), engine)

    assert all(np.array_equal(loaded[name], state[name].numpy()) for name in state)
    assert panics(engine) == []


def test_checkpoint_of_another_network_ends_the_job_with_one_message(engine, tmp_path):
    other = build_network(BUNDLES / "brats_unet", "full", seed=0).state_dict()
    torch.save({"model": {name: value[:1] for name, value in other.items()}}, tmp_path / "model.pt")

    assert start(engine, checkpoint=tmp_path / "model.pt").load(engine.new_context()) is None

    assert len(panics(engine)) == 1
    assert panics(engine)[0].startswith("model.pt does not fit brats_unet: ")
    assert "these are parameters of another network" in panics(engine)[0]
    assert "model.0.conv.unit0.conv.weight (1, " in panics(engine)[0]


def test_checkpoint_of_another_trainer_is_understood(engine, tmp_path):
    state = build_network(BUNDLES / "brats_unet", "small", seed=8).state_dict()
    wrapped = {f"module._orig_mod.{name}": value for name, value in state.items()}
    torch.save({"epoch": 3, "state_dict": wrapped}, tmp_path / "model.pt")

    loaded = weights(start(engine, checkpoint=tmp_path / "model.pt"), engine)

    assert set(loaded) == set(state)
    assert all(np.array_equal(loaded[name], state[name].numpy()) for name in state)
    assert panics(engine) == []


def test_job_that_starts_from_another_run_s_model_takes_neither_its_moments_nor_its_rounds(engine, tmp_path):
    state = build_network(BUNDLES / "brats_unet", "small", seed=8).state_dict()
    moments = {"velocity": {name: torch.full_like(value, 2.5) for name, value in state.items()}}
    torch.save({"model": state, "rounds_done": 7, ALGORITHM_STATE: moments}, tmp_path / "model.pt")

    persistor = start(engine, checkpoint=tmp_path / "model.pt")
    fl_ctx = engine.new_context()
    learnable = persistor.load(fl_ctx)

    assert fl_ctx.get_prop(ALGORITHM_STATE) is None
    fl_ctx.set_prop(AppConstants.CURRENT_ROUND, 0, private=True, sticky=True)
    persistor.save(learnable, fl_ctx)
    (saved,) = (tmp_path / "server").rglob("FL_global_model.pt")
    kept = torch.load(saved, weights_only=True)
    assert (kept["rounds_done"], ALGORITHM_STATE in kept) == (1, False)


@pytest.mark.parametrize("place", ["/etc/passwd", "../model.pt", "sub/model.pt"])
def test_checkpoint_comes_with_the_job_and_from_nowhere_else(engine, place):
    BundlePersistor("brats_unet", "small", 3, place).handle_event(EventType.START_RUN, engine.new_context())

    assert panics(engine) == [f"start_from must be the name of a file in the job (got '{place}')"]


def test_checkpoint_that_is_missing_ends_the_job_with_one_message(engine, tmp_path):
    assert start(engine, checkpoint=tmp_path / "none.pt").load(engine.new_context()) is None

    assert len(panics(engine)) == 1
    assert "none.pt" in panics(engine)[0]


def test_state_of_the_algorithm_is_saved_with_the_model_and_loaded_with_it(engine, tmp_path):
    persistor = start(engine)
    learnable = persistor.load(engine.new_context())
    state = {"velocity": {name: np.full_like(value, 2.5) for name, value in learnable["weights"].items()}}
    fl_ctx = engine.new_context()
    fl_ctx.set_prop(ALGORITHM_STATE, state, private=True, sticky=True)
    fl_ctx.set_prop(AppConstants.CURRENT_ROUND, 4, private=True, sticky=True)

    persistor.save(learnable, fl_ctx)
    (saved,) = tmp_path.rglob("FL_global_model.pt")
    other = Engine(tmp_path / "other", "server")
    resumed = start(other, checkpoint=saved, start_round=5)
    resumed.load(other.new_context())

    found = other.new_context().get_prop(ALGORITHM_STATE)
    assert torch.load(saved, weights_only=True)["rounds_done"] == 5
    assert {name: value.tobytes() for name, value in found["velocity"].items()} == {
        name: value.tobytes() for name, value in state["velocity"].items()
    }


def test_state_that_is_none_ends_the_job_with_one_message(engine, tmp_path):
    state = build_network(BUNDLES / "brats_unet", "small", seed=8).state_dict()
    torch.save({"model": state, ALGORITHM_STATE: 3}, tmp_path / "model.pt")

    assert start(engine, checkpoint=tmp_path / "model.pt", start_round=2).load(engine.new_context()) is None

    assert len(panics(engine)) == 1
    assert "the algorithm's state holds something else than named tensors" in panics(engine)[0]


def test_only_the_final_model_is_evaluated_at_the_end(engine, monkeypatch):
    names = ["FL_global_model.pt", "best_FL_global_model.pt"]
    monkeypatch.setattr("nvflare.app_opt.pt.file_model_locator.PTFileModelLocator.get_model_names", lambda *_: names)

    locator = FinalModelLocator(pt_persistor_id="persistor")

    assert locator.get_model_names(engine.new_context()) == ["FL_global_model.pt"]
