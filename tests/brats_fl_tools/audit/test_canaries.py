"""Canaries: coins that are kept, guesses that are counted, and a bound that a reader can work out."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from tests.tiny_sites import make_tiny_sites
from tests.voxel_bundle import make_voxel_bundle
from typer.testing import CliRunner, Result

from brats_fl.cases.datalists import Case, read_datalist
from brats_fl.errors import DataListError, FolderError, PrivacyError
from brats_fl_tools.audit.canaries import Key, guess_coins, lower_bound, p_value, plant, score
from brats_fl_tools.cli import app

SOME = {name: Case(name, name, ("a", "b", "c", "d"), "l") for name in map("canary-{}".format, range(40))}


def call(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["canaries", *map(str, arguments)])


def test_bound_of_guesses_that_are_all_right_is_the_closed_form():
    # All of r guesses are right with probability q^r, q = e^eps / (1 + e^eps): at 5 % that is q = 0.05^(1/r).
    for guesses in (10, 50):
        chance = 0.05 ** (1 / guesses)
        expected = pytest.approx(math.log(chance / (1 - chance)), abs=1e-5)
        assert lower_bound(guesses, guesses, 2 * guesses, delta=0) == expected


def test_guesses_by_chance_bound_nothing():
    assert lower_bound(20, 10, 40, delta=0) == 0
    assert p_value(20, 10, 40, 0.0, 0) == pytest.approx(0.588, abs=1e-3)  # P[at least 10 of 20 heads]
    assert p_value(20, 0, 40, 0.0, 0) == 1


def test_more_right_guesses_bound_more_and_a_larger_delta_less():
    by_right = [lower_bound(20, right, 40, delta=0) for right in range(15, 21)]
    by_delta = [lower_bound(20, 19, 40, delta) for delta in (0, 1e-5, 1e-3, 1e-2)]

    assert by_right == sorted(by_right)
    assert by_right[0] > 0
    assert by_delta == sorted(by_delta, reverse=True)
    assert by_delta[-1] < by_delta[0]


@pytest.mark.parametrize("delta", [math.nan, -1e-9, 1.0])
def test_delta_that_is_no_probability_is_refused(delta: float):
    with pytest.raises(PrivacyError, match="delta must be at least 0 and below 1"):
        lower_bound(20, 20, 40, delta)


def test_answers_of_known_epsilon_are_bounded_above_it_in_one_of_twenty_runs_at_most():
    # Randomised response with epsilon 1 tells each coin rightly with e / (1 + e): its epsilon is 1, exactly.
    right = np.random.default_rng(0).binomial(60, math.e / (1 + math.e), size=300)

    bound_of = {count: lower_bound(60, count, 120, delta=0) for count in set(right.tolist())}
    bounds = [bound_of[count] for count in right.tolist()]

    assert np.mean([bound > 1 for bound in bounds]) <= 0.07
    assert np.mean(bounds) > 0.3  # and is no empty promise


def test_quarter_that_looks_most_and_quarter_that_looks_least_trained_on_are_guessed():
    guesses = guess_coins({name: float(place) for place, name in enumerate("abcdefgh")})

    assert guesses == {"a": False, "b": False, "g": True, "h": True}


def test_model_that_knows_its_canaries_has_every_guess_right():
    key = Key({f"c{number}": number >= 20 for number in range(40)})

    known = score({name: float(place) for place, name in enumerate(key.planted)}, key, delta=0)
    reverse = score({name: -float(place) for place, name in enumerate(key.planted)}, key, delta=0)

    assert (known.canaries, known.guesses, known.right) == (40, 20, 20)
    assert known.epsilon == known.largest == pytest.approx(1.822, abs=1e-3)
    assert (reverse.right, reverse.epsilon) == (0, 0)


def test_about_half_of_the_canaries_are_planted_anew_each_time(tmp_path: Path):
    path = make_tiny_sites(tmp_path, {"hospital-1": (1, 0, 1)}) / "hospital-1" / "datalist.json"

    (first, key), (second, other) = plant(path, SOME), plant(path, SOME)

    assert key != other
    for planted, coins in ((first, key), (second, other)):
        names = [case.case for case in planted.training]
        assert names == ["hospital-1-case-001", *(name for name, heads in coins.planted.items() if heads)]
        assert 5 < sum(coins.planted.values()) < 35
    assert first.testing == read_datalist(path).testing


def test_canary_with_the_name_of_a_case_is_refused_whatever_the_coin(tmp_path: Path):
    path = make_tiny_sites(tmp_path, {"hospital-1": (1, 0, 0)}) / "hospital-1" / "datalist.json"
    own = {**SOME, "hospital-1-case-001": Case("hospital-1-case-001", "x", ("a", "b", "c", "d"), "l")}

    for _ in range(8):
        with pytest.raises(DataListError, match="stands twice"):
            plant(path, own)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hospital and 12 canaries."""
    folder = tmp_path_factory.mktemp("made")
    make_tiny_sites(folder / "sites", {"hospital-1": (1, 0, 0)})
    make_tiny_sites(folder / "canaries", {"nobody": (12, 0, 0)})
    return folder


def test_canaries_are_planted_scored_and_the_bound_is_said_to_be_one(made: Path, tmp_path: Path):
    own, key = made / "sites" / "hospital-1" / "datalist.json", tmp_path / "secret" / "key.json"
    model = make_voxel_bundle(tmp_path / "voxel")
    given = ("--canaries", made / "canaries", "--key", key)

    planted = call("plant", own, *given, "--out", tmp_path / "new" / "datalist.json")
    scored = call("score", model, *given, "--delta", "1e-5")

    assert planted.exit_code == 0, planted.output
    assert "with 6 guesses no epsilon above 0.43 can be shown" in planted.output
    coins = json.loads(key.read_text())["planted"]
    assert len(read_datalist(tmp_path / "new" / "datalist.json").training) == 1 + sum(coins.values())
    assert scored.exit_code == 0, scored.output
    assert "of 6 guesses are right; 3 would be by chance" in scored.output
    assert "a lower bound, which says nothing of how much larger it is" in scored.output
    again = call("plant", own, *given, "--out", tmp_path / "other.json")
    assert isinstance(again.exception, FolderError)
    assert not (tmp_path / "other.json").exists()


def test_too_few_canaries_and_canaries_of_another_key_are_refused(made: Path, tmp_path: Path):
    own, key = made / "sites" / "hospital-1" / "datalist.json", tmp_path / "key.json"
    key.write_text(json.dumps({"planted": {"somebody": True}}), encoding="utf-8")
    model = make_voxel_bundle(tmp_path / "voxel")

    few = call("plant", own, "--canaries", made / "sites", "--key", tmp_path / "k.json", "--out", tmp_path / "l.json")
    other = call("score", model, "--canaries", made / "canaries", "--key", key, "--delta", "0")

    assert isinstance(few.exception, DataListError)
    assert "has 1 labelled cases, and fewer than 12 canaries show nothing" in str(few.exception)
    assert isinstance(other.exception, DataListError)
    assert "13 canaries are in the folder or in the key alone" in str(other.exception)
