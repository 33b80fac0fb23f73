"""What a job may set, and what nobody may."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from brats_fl.errors import JobError
from brats_fl.settings import SET_BY_SITE, Setting, bundle_settings, check_settings, read_settings

BUNDLES = sorted(path.parents[1] for path in (Path(__file__).parents[2] / "bundles").glob("*/configs/train.json"))
BUNDLE = BUNDLES[0]


@pytest.mark.parametrize("profile", ["full", "small"])
@pytest.mark.parametrize("bundle", BUNDLES, ids=lambda bundle: bundle.name)
def test_every_setting_of_a_bundle_has_a_meaning_and_allows_its_own_default(bundle: Path, profile: str):
    settings = bundle_settings(bundle, profile)

    assert {"learning_rate", "patch_size", "thresholds", "amp"} <= set(settings)
    assert [name for name, setting in settings.items() if not setting.meaning] == []
    assert [name for name, setting in settings.items() if not setting.allows(setting.default)] == []


def test_places_of_files_and_what_the_executor_sets_are_no_settings():
    assert SET_BY_SITE & set(bundle_settings(BUNDLE, "small")) == set()


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("learning_rate", -1, r"a job: learning_rate must be a number above 0 and at most 1 \(got -1\)"),
        ("learning_rate", float("nan"), "learning_rate must be a number"),
        ("learning_rate", 10**400, "learning_rate must be a number"),
        ("learning_rate", True, "learning_rate must be a number"),
        ("learning_rate", "$print('run at the site')", "learning_rate must be a number"),
        ("steps_per_epoch", 0, "steps_per_epoch must be a whole number 1 or more and at most 100000"),
        ("steps_per_epoch", 2.5, "steps_per_epoch must be a whole number"),
        ("amp", 1, "amp must be true or false"),
        (
            "patch_size",
            [64, 64, 60],
            "must be a list of 3 whole numbers, each 32 or more and at most 256 and a multiple of 16",
        ),
        ("patch_size", [64, 64], "patch_size must be a list of 3 whole numbers"),
        ("thresholds", [0.5, 0.5, "%x"], "thresholds must be a list of 3 numbers, each above 0 and at most 1"),
        ("mirror_axes", ['$__import__("os")'], "mirror_axes must be a list of whole numbers"),
        ("mirror_axes", [0, 1, 0], r"a list of whole numbers, each at most once and 0 or more and at most 2"),
        ("mirror_axes", [0] * 30, "mirror_axes must be a list of whole numbers"),
        ("mirror_axes", [[0]], "mirror_axes must be a list of whole numbers"),
        ("mirror_axes", {"_target_": "subprocess.run"}, "mirror_axes must be a list of whole numbers"),
        ("network_def", {"_target_": "subprocess.run"}, "unknown key 'network_def'"),
        ("network_def#channels", [4, 4], "unknown key 'network_def#channels'"),
        ("cache_dir", "/tmp/elsewhere", "unknown key 'cache_dir'"),
        ("data_list_file_path", "/etc/passwd", "unknown key 'data_list_file_path'"),
        ("device", "cuda:1", "unknown key 'device'"),
        ("bundle_root", "/", "unknown key 'bundle_root'"),
        ("imports", ["$import os"], "unknown key 'imports'"),
        ("run", ["$print()"], "unknown key 'run'"),
    ],
)
def test_what_is_no_setting_or_not_within_its_bounds_is_refused(name: str, value: Any, message: str):
    with pytest.raises(JobError, match=message):
        check_settings("a job", bundle_settings(BUNDLE, "small"), {name: value})


def test_values_within_the_bounds_pass():
    values = {
        "learning_rate": 1,
        "patch_size": [32, 48, 64],
        "mirror_axes": [0, 2],
        "amp": False,
        "thresholds": [0.4, 1, 1],
    }

    check_settings("a job", bundle_settings(BUNDLE, "small"), values)


def test_word_must_be_one_of_the_list():
    settings = {"compression": Setting("none", words=("none", "int8"))}

    check_settings("a job", settings, {"compression": "int8"})
    with pytest.raises(JobError, match=r"compression must be one of none, int8 \(got 'zip'\)"):
        check_settings("a job", settings, {"compression": "zip"})


def test_bundle_without_a_table_has_its_numbers_as_settings_and_no_text(tmp_path: Path):
    settings = read_settings(tmp_path / "settings.json", {"rate": 0.5, "sizes": [1, 2], "place": "/x", "code": "$x()"})

    assert set(settings) == {"rate", "sizes"}
    assert settings["rate"].allows(-3.5)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"rat": {"meaning": "x"}}, r"settings\.json: there is no setting 'rat'; there are rate"),
        ({"rate": {"minimun": 0}}, r"settings\.json: rate: unknown key 'minimun'"),
        ({"rate": 3}, r"settings\.json: rate must be an object with the fields of a setting"),
        ([], r"settings\.json: must hold a JSON object"),
    ],
)
def test_table_that_cannot_be_meant_is_an_error(table: Any, message: str, tmp_path: Path):
    (tmp_path / "settings.json").write_text(json.dumps(table), encoding="utf-8")

    with pytest.raises(JobError, match=message):
        read_settings(tmp_path / "settings.json", {"rate": 0.5})
