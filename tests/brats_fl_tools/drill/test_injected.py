"""What a broken site does to what it sends; the federation that it does it to is in tests/integration/test_drill.py."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from brats_fl.tasks import TaskResult
from brats_fl_tools.drill.broken_sites import EDITED_BEFORE_SIGNING, remove_plan, write_harness, write_plan
from brats_fl_tools.drill.injected import CANARY, TRAININGS
from brats_fl_tools.drill.injected_messages import falsified, put_in, with_own_key


def honest() -> TaskResult:
    """Two parameters, trained on three cases."""
    weights = {"a": np.array([1.0, -2.0]), "b": np.array([[3.0]])}
    return TaskResult({"val_mean_dice": 0.5}, {"cases": 3, "steps": 4}, {"weights": weights})


def test_flipped_update_is_the_opposite_of_what_was_trained():
    update = TRAININGS["flipped"](honest).update

    assert {name: value.tolist() for name, value in update.items()} == {"a": [-1.0, 2.0], "b": [[-3.0]]}


@pytest.mark.parametrize(
    ("kind", "is_broken"),
    [
        ("nan", lambda result: np.isnan(result.update["a"]).all()),
        ("huge", lambda result: result.update["a"].tolist() == [1e6, -2e6]),
        ("shapes", lambda result: result.update["a"].shape == (2, 1)),
        ("keys", lambda result: set(result.update) == {CANARY, "b"}),
        ("cases", lambda result: result.statistics["cases"] == 1_000_000_000),
        ("overflow", lambda result: result.statistics["cases"] * 2 == float("inf")),
        ("vote", lambda result: result.metrics == {"val_mean_dice": 1e6}),
        ("nonsense", lambda result: len(json.dumps(dict(result.statistics))) > 1_000_000),
    ],
)
def test_kind_breaks_what_it_is_called_after(kind, is_broken):
    assert not is_broken(honest())
    assert is_broken(TRAININGS[kind](honest))


def test_site_that_raises_names_what_nobody_else_may_see():
    with pytest.raises(RuntimeError, match=CANARY):
        TRAININGS["raises"](honest)


def test_process_is_broken_while_there_is_a_plan_and_never_without(tmp_path):
    # A name that is no trainer's and no job's: the plan is read, and nothing is to be done.
    path = write_harness(tmp_path / "fault")
    program = "import sys; print('brats_fl_tools.drill.injected' in sys.modules)"

    def is_broken() -> str:
        command = [sys.executable, "-c", program]
        environment = {"PYTHONPATH": path, "PATH": ""}
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip()

    assert is_broken() == "False"
    write_plan(tmp_path / "fault", {"train": {"0": "nan"}})
    assert is_broken() == "True"
    remove_plan(tmp_path / "fault")
    assert is_broken() == "False"


def test_edit_of_a_lead_is_python_whatever_it_sets():
    edits = {"learning_rate": "$__import__('os').abort()"}

    code = EDITED_BEFORE_SIGNING.format(edits=edits)

    assert repr(edits) in code
    compile(code, "sitecustomize.py", "exec")


def test_release_keeps_its_form_and_loses_its_sense():
    told = {"cases": {"t1c": 1.0, "t2f": 2.0}}

    assert put_in(told, "x") == {"cases": {"t1c": "x", "t2f": "x"}}


def test_swapped_key_is_another_and_all_else_of_the_roster_is_as_it_was():
    roster = {site: {"site": site, "cases": 2, "masking_key": f"{site[-1]}0" * 32} for site in ("a", "b")}

    told = with_own_key(roster, "b")

    assert told["a"] == roster["a"]
    assert told["b"]["masking_key"] != roster["b"]["masking_key"]
    assert len(bytes.fromhex(told["b"]["masking_key"])) == 32
    assert {**told["b"], "masking_key": ""} == {**roster["b"], "masking_key": ""}


def test_false_shares_are_as_long_as_true_ones_and_others():
    assert falsified({"a": "00ff", "b": "0010"}) == {"a": "00fe", "b": "0011"}
