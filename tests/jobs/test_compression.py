"""``compression`` of a job: one word for all, and with what it cannot be combined."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.jobs.test_jobs import components
from tests.jobs.test_variants import FILTER, write_job

from brats_fl.compression import COMPRESSIONS
from brats_fl.errors import JobError
from brats_fl_tools.jobs.assembly import Configuration, JobOptions, configure
from brats_fl_tools.jobs.source import job_names, read_source

INT8 = JobOptions("small", values={"compression": "int8"})


def told(built: Configuration) -> dict[str, Any]:
    """Class -> what it is told of the compression."""
    parts = [*components(dict(built.server)), *components(dict(built.client))]
    found = {part["path"].rpartition(".")[2]: part.get("args", {}).get("compression") for part in parts}
    return {name: value for name, value in found.items() if value is not None}


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_server_and_sites_are_told_the_same_word(compression: str) -> None:
    built = configure(read_source("brats_unet_fedavg"), JobOptions("small", values={"compression": compression}))

    assert built.server["compression"] == built.client["compression"] == compression
    of_variable = dict.fromkeys(("PayloadGenerator", "AlgorithmAggregator", "BratsExecutor"), "{compression}")
    assert told(built) == of_variable


def test_job_json_may_say_it(tmp_path: Path) -> None:
    built = configure(read_source(write_job(tmp_path, compression="float16")), JobOptions("small"))

    assert built.server["compression"] == built.client["compression"] == "float16"


def test_what_is_learnt_differs_and_so_does_the_study() -> None:
    plain, compressed = (
        configure(read_source("brats_unet_fedavg"), options) for options in (JobOptions("small"), INT8)
    )

    assert plain.study != compressed.study


def test_word_that_is_none_is_refused_with_those_that_are() -> None:
    with pytest.raises(JobError, match="compression must be one of none, float16, int8"):
        configure(read_source("brats_unet_fedavg"), JobOptions("small", values={"compression": "int4"}))


def test_job_with_secure_aggregation_compresses_the_way_down_alone() -> None:
    built = configure(read_source("brats_unet_secagg"), INT8)

    assert told(built) == dict.fromkeys(("PayloadGenerator", "SecureExecutor"), "{compression}")


@pytest.mark.parametrize("name", [name for name in job_names() if not read_source(name).trains])
def test_job_that_trains_nothing_has_nothing_to_compress(name: str) -> None:
    with pytest.raises(JobError, match="unknown key 'compression'"):
        configure(read_source(name), JobOptions("small", values={"compression": "int8"}))


AGGREGATOR = {
    "path": "nvflare.app_common.aggregators.intime_accumulate_model_aggregator.InTimeAccumulateWeightedAggregator"
}
GENERATOR = {
    "path": "nvflare.app_common.shareablegenerators.full_model_shareable_generator.FullModelShareableGenerator"
}
EXECUTOR = {"path": "brats_fl.components.executor.BratsExecutor", "args": {"bundle": "b", "profile": "small"}}
EXECUTOR["args"] |= {"local_epochs": 1, "seed": 0}  # type: ignore[operator]


@pytest.mark.parametrize(
    ("differences", "part"),
    [
        ({"client_filters": [{"path": FILTER, "args": {"exclude_vars": "a"}}]}, "client_filters: a filter would see"),
        ({"server_filters": [{"path": FILTER, "args": {"exclude_vars": "a"}}]}, "server_filters: a filter would see"),
        ({"components": {"aggregator": AGGREGATOR}}, "the job's own aggregator, which does not take"),
        ({"components": {"shareable_generator": GENERATOR}}, "the job's own shareable_generator, which does not take"),
        # The server's app no longer knows the word then, and the sites would still go by it.
        ({"components": {"aggregator": AGGREGATOR, "shareable_generator": GENERATOR}}, "the job's own shareable_gen"),
        ({"executors": [{"tasks": ["train"], "executor": EXECUTOR}]}, "the job's own executor of train, which does"),
    ],
)
def test_part_that_would_take_packed_bytes_for_weights_is_refused_and_goes_without(
    tmp_path: Path, differences: dict[str, Any], part: str
) -> None:
    job = read_source(write_job(tmp_path, **differences))

    configure(job, JobOptions("small", values={"compression": "none"}))
    with pytest.raises(JobError, match=f"compression int8 cannot be combined with {part}"):
        configure(job, INT8)
