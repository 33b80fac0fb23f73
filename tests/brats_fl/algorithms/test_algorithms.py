"""How an algorithm is found and called."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from brats_fl.algorithms import Algorithm, Contribution, LocalRun, algorithm_names, load_algorithm
from brats_fl.errors import JobError

MODEL = {"w": np.zeros(2, np.float32)}
MOMENTUM = """
import numpy as np

SETTINGS = {"momentum": 0.5}
SENT = ("control",)

def server_state(model, settings):
    return {"velocity": {name: np.zeros_like(value) for name, value in model.items()}}

def broadcast(state, settings):
    return state

def server_update(model, state, contributions, settings):
    velocity = {
        name: settings["momentum"] * state["velocity"][name] + contributions[0].update[name] for name in model
    }
    return velocity, {"velocity": velocity}

def local_term(weight, start, received, own, settings):
    return settings["momentum"] * (weight - start)
"""


@pytest.fixture
def code(tmp_path: Path) -> Path:
    (tmp_path / "momentum.py").write_text(MOMENTUM, encoding="utf-8")
    return tmp_path


def contribution(site: str, value: float, cases: int) -> Contribution:
    return Contribution(site, cases, cases, 1, {"weights": {"w": np.full(2, value, np.float32)}})


def test_fedavg_is_the_mean_of_the_updates_weighted_by_cases():
    fedavg = load_algorithm("fedavg")

    update, state = fedavg.server_update(MODEL, {}, [contribution("a", 1.0, 3), contribution("b", 5.0, 1)])

    assert update["w"].tolist() == [2.0, 2.0]  # (3 x 1 + 1 x 5) / 4
    assert (update["w"].dtype, state) == (np.float32, {})


def test_fedavg_has_no_state_sends_nothing_else_and_adds_nothing_to_the_local_step():
    fedavg = load_algorithm("fedavg")

    assert fedavg.server_state(MODEL) == fedavg.broadcast({}) == {}
    assert fedavg.client_update(LocalRun(MODEL, MODEL, 1, 0.1), {}, {}) == ({}, {})
    assert (fedavg.sent, fedavg.has_local_term) == ((), False)


def test_module_in_the_code_of_a_job_is_an_algorithm_with_a_state(code):
    momentum = load_algorithm("momentum", code=code)
    state = momentum.server_state(MODEL)

    first, state = momentum.server_update(MODEL, state, [contribution("a", 1.0, 1)])
    second, state = momentum.server_update(MODEL, state, [contribution("a", 1.0, 1)])

    assert (first["w"].tolist(), second["w"].tolist()) == ([1.0, 1.0], [1.5, 1.5])  # 0.5 x 1 + 1
    assert momentum.broadcast(state)["velocity"]["w"].tolist() == [1.5, 1.5]
    assert (momentum.sent, momentum.has_local_term) == (("control",), True)


def test_setting_of_a_job_takes_the_place_of_the_default(code):
    assert load_algorithm("momentum", code=code).settings == {"momentum": 0.5}
    assert load_algorithm("momentum", {"momentum": 0.9}, code).settings == {"momentum": 0.9}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "0.5", True, None, [1]])
def test_setting_that_is_no_finite_number_is_refused(code, value):
    with pytest.raises(JobError, match="algorithm momentum: momentum must be a number"):
        load_algorithm("momentum", {"momentum": value}, code)


@pytest.mark.parametrize("name", ["os", "os.path", "../momentum", "", "Momentum", "brats_fl.algorithms.fedavg"])
def test_name_that_is_no_algorithm_loads_no_other_module(name, code):
    with pytest.raises(JobError, match=r"no algorithm|algorithm must be a plain name"):
        load_algorithm(name, code=code)


def test_module_of_a_job_does_not_take_the_place_of_one_of_the_library(tmp_path):
    (tmp_path / "fedavg.py").write_text("raise RuntimeError('not this one')", encoding="utf-8")

    assert load_algorithm("fedavg", code=tmp_path).server_state(MODEL) == {}


def test_module_without_a_server_update_is_refused(tmp_path):
    (tmp_path / "half.py").write_text("SETTINGS = {}\n", encoding="utf-8")

    with pytest.raises(JobError, match=r"algorithm half: .*half\.py has no server_update"):
        load_algorithm("half", code=tmp_path)


def test_names_are_those_of_the_modules():
    assert "fedavg" in algorithm_names()


def test_algorithm_of_the_page_is_fedprox(tmp_path):
    page = (Path(__file__).parents[3] / "docs" / "own-study.md").read_text(encoding="utf-8")
    (tmp_path / "pulled.py").write_text(page.split("```python\n")[1].split("```")[0], encoding="utf-8")

    pulled = load_algorithm("pulled", {"pull": 0.5}, tmp_path)

    update, _ = pulled.server_update(MODEL, {}, [contribution("a", 1.0, 3), contribution("b", 5.0, 1)])
    assert update["w"].tolist() == [2.0, 2.0]
    term = pulled.local_term(torch.tensor([3.0]), torch.tensor([1.0]), {}, {})
    assert term.tolist() == [1.0]  # 0.5 x (3 - 1)


def test_table_of_the_page_names_every_function_of_an_algorithm():
    page = (Path(__file__).parents[3] / "docs" / "own-study.md").read_text(encoding="utf-8")
    functions = set(re.findall(r"^\| `(\w+)\(", page, flags=re.MULTILINE))

    methods = {name for name, value in vars(Algorithm).items() if inspect.isfunction(value) and name[0] != "_"}
    assert functions == methods
