"""A job as a difference: what a job.json changes by id, and what it cannot say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.jobs.test_jobs import components, read_config

from brats_fl.errors import JobError
from brats_fl_tools.jobs.assembly import JobOptions, build_job, configure
from brats_fl_tools.jobs.command import mark_differences
from brats_fl_tools.jobs.source import SERVER_CONFIG, read_source, shared_config

SMALL = JobOptions("small")
AGGREGATOR = "nvflare.app_common.aggregators.intime_accumulate_model_aggregator.InTimeAccumulateWeightedAggregator"
FILTER = "nvflare.app_common.filters.exclude_vars.ExcludeVars"


def write_job(folder: Path, code: str = "", **differences: Any) -> Path:
    """A job of one's own in a folder of one's own; its path."""
    job = folder / "jobs" / "mine"
    job.mkdir(parents=True)
    meta = {"name": "mine", "min_clients": 4, "deploy_map": {"app_client": [f"hospital-{n}" for n in range(1, 6)]}}
    content = {"description": "mine", "bundle": "brats_unet", "min_clients": 4, **differences}
    (job / "meta.json").write_text(json.dumps(meta), encoding="utf-8")
    (job / "job.json").write_text(json.dumps(content), encoding="utf-8")
    if code:
        (job / "custom").mkdir()
        (job / "custom" / "mine.py").write_text(code, encoding="utf-8")
    return job


def part(config: dict[str, Any], name: str) -> dict[str, Any]:
    return next(part for part in components(config) if part.get("id") == name)


def test_component_with_a_path_takes_the_place_of_the_one_with_its_id(tmp_path):
    job = write_job(
        tmp_path, components={"aggregator": {"path": AGGREGATOR, "args": {"expected_data_kind": "WEIGHTS"}}}
    )

    built = build_job(job, tmp_path / "out", SMALL)

    server = read_config(built, "server")
    assert part(server, "aggregator") == {
        "id": "aggregator",
        "path": AGGREGATOR,
        "args": {"expected_data_kind": "WEIGHTS"},
    }
    assert [part["id"] for part in server["components"]] == [
        part["id"] for part in shared_config(SERVER_CONFIG)["components"]
    ]


def test_arguments_alone_are_laid_over_those_of_the_component(tmp_path):
    job = write_job(tmp_path, components={"scatter_and_gather": {"args": {"train_timeout": 60}}})

    server = read_config(build_job(job, tmp_path / "out", SMALL), "server")

    assert part(server, "scatter_and_gather")["args"]["train_timeout"] == 60
    assert part(server, "scatter_and_gather")["args"]["num_rounds"] == "{num_rounds}"
    assert "train_timeout" not in server, "a variable that nothing uses any more is gone"
    with pytest.raises(JobError, match="unknown key 'train_timeout'"):
        build_job(job, tmp_path / "again", JobOptions("small", values={"train_timeout": 5}))


def test_null_takes_a_component_out_and_add_brings_one_with_its_variable(tmp_path):
    job = write_job(
        tmp_path,
        components={"model_selector": None},
        add={
            "variables": {"precision": "float16"},
            "components": {"again": {"path": "brats_fl.components.records.RoundRecords"}},
            "client_components": {"quantizer": {"path": FILTER, "args": {"exclude_vars": "{precision}"}}},
        },
    )

    built = build_job(job, tmp_path / "out", JobOptions("small", values={"precision": "float32"}))

    server, client = read_config(built, "server"), read_config(built, "client")
    assert "model_selector" not in [part["id"] for part in server["components"]]
    assert part(server, "again")["path"] == "brats_fl.components.records.RoundRecords"
    assert (client["precision"], built.variables["precision"]) == ("float32", "float32")


def test_filter_of_a_job_sees_the_results_of_training(tmp_path):
    job = write_job(tmp_path, client_filters=[{"id": "head", "path": FILTER, "args": {"exclude_vars": "^model.0"}}])

    client = read_config(build_job(job, tmp_path / "out", SMALL), "client")

    assert client["task_result_filters"] == [
        {"tasks": ["train"], "filters": [{"id": "head", "path": FILTER, "args": {"exclude_vars": "^model.0"}}]}
    ]


@pytest.mark.parametrize(
    ("differences", "message"),
    [
        ({"components": {"agregator": {"path": AGGREGATOR}}}, "no component 'agregator'; there are aggregator, final"),
        ({"components": {"aggregator": {"class": AGGREGATOR}}}, "aggregator has unknown key 'class'; a component has"),
        (
            {"components": {"aggregator": {"args": {"trim": 1}}}},
            r"got an unexpected keyword argument 'trim'; it takes \(",
        ),
        ({"components": {"aggregator": {"path": f"{AGGREGATOR}s"}}}, "no class 'nvflare.*Aggregators'"),
        ({"components": {"aggregator": {"path": "no.such.Module"}}}, "no class 'no.such.Module'"),
        (
            {"components": {"aggregator": {"path": "../.Module"}}},
            "no class '../.Module': it must be package.module.Class",
        ),
        ({"components": {"aggregator": {"path": "Module"}}}, "no class 'Module': it must be package.module.Class"),
        ({"components": {"aggregator": {"path": "math.pi"}}}, r"no class 'math.pi' \(.*not a callable object"),
        ({"components": {"aggregator": 3}}, "components: aggregator must be an object"),
        ({"components": []}, r"components must be an object \(got \[\]\)"),
        ({"client_filters": [{"args": {}}]}, r"client_filters\[0\] has no path"),
        ({"add": {"components": {"aggregator": {"path": AGGREGATOR}}}}, "'aggregator' exists already; change it under"),
        ({"add": {"variables": {"seed": 3}}}, "variable 'seed' exists already; set it without add"),
        ({"add": {"workflows": {}}}, "add: unknown key 'workflows'; it has variables, components"),
        ({"components": {"aggregator": {"args": {"min_accepted": "{k}"}}}}, "{k} is no variable; state it under add"),
        ({"num_round": 3}, "mine: unknown key 'num_round'; known are "),
        ({"bundle": "brats_vnet"}, "no bundle 'brats_vnet' in .* or "),
        ({"algorithm": "fedmagic"}, "no algorithm 'fedmagic'; there are coordinate_median, dp, fedadam, fedavg"),
        ({"algorithm": "../mine"}, "algorithm must be a plain name"),
        ({"algorithm_settings": {"mu": 1}}, "algorithm fedavg: unknown key 'mu'; there are none"),
    ],
)
def test_difference_that_cannot_be_meant_is_an_error_that_names_the_file(
    differences: dict[str, Any], message: str, tmp_path: Path
):
    job = write_job(tmp_path, **differences)

    with pytest.raises(JobError, match=message) as error:
        build_job(job, tmp_path / "out", SMALL)

    assert "mine" in str(error.value) or "algorithm" in str(error.value)
    assert not (tmp_path / "out").exists()


def test_job_of_a_folder_of_ones_own_takes_the_bundle_beside_it(tmp_path):
    (tmp_path / "bundles").mkdir()
    (tmp_path / "bundles" / "brats_unet").symlink_to(read_source("brats_unet_fedavg").bundle)

    assert read_source(write_job(tmp_path)).bundle == tmp_path / "bundles" / "brats_unet"
    assert read_source("brats_unet_fedavg").bundle != tmp_path / "bundles" / "brats_unet"


def test_modules_of_a_job_come_with_it_and_it_cannot_be_preinstalled(tmp_path):
    code = (
        "def server_update(model, state, contributions, settings):\n    return model, state\nSETTINGS = {'trim': 1}\n"
    )
    job = write_job(tmp_path, code, algorithm="mine")

    built = build_job(job, tmp_path / "out", JobOptions("small", values={"trim": 2}))

    for side in ("server", "client"):
        assert (built.folder / f"app_{side}" / "custom" / "mine.py").read_text(encoding="utf-8") == code
        assert read_config(built, side)["algorithm_settings"] == {"trim": 2}
    with pytest.raises(JobError, match=r"mine brings code of its own \(.*custom\), which --preinstalled leaves out"):
        build_job(job, tmp_path / "again", JobOptions("small", preinstalled=True))


def test_study_is_the_same_for_a_job_that_goes_on_and_another_where_something_else_is_learnt(tmp_path):
    source = read_source("brats_unet_fedavg")
    values = {"learning_rate": 0.01}
    study = configure(source, JobOptions("small", 5, values)).study

    resumed = JobOptions("small", 2, {**values, "start_round": 3, "train_timeout": 60})
    assert configure(source, resumed).study == study
    others = [
        JobOptions("small", 6, values),
        JobOptions("small", 5, {"learning_rate": 0.02}),
        JobOptions("full", 5, values),
        JobOptions("small", 5, values, sites=("hospital-1", "hospital-2")),
    ]
    assert len({study, *(configure(source, options).study for options in others)}) == 5


def test_differences_are_marked_line_by_line():
    assert mark_differences({"a": 1, "b": 2}, {"a": 1, "b": 3}).splitlines() == [
        "  {",
        '    "a": 1,',
        '-   "b": 2',
        '+   "b": 3',
        "  }",
    ]


def test_folder_that_job_build_made_is_told_as_that_with_what_to_give_instead(tmp_path: Path) -> None:
    built = build_job("brats_unet_fedavg", tmp_path / "built", JobOptions("small"))

    with pytest.raises(JobError, match="is what `brats-fl job build` made of a job; give the name or folder"):
        read_source(built.folder)
