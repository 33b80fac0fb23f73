"""``"secure_aggregation": true``: what the job then is, and with what it cannot be combined."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import pytest
from tests.jobs.test_jobs import components, read_config
from tests.jobs.test_variants import AGGREGATOR, FILTER, write_job

from brats_fl.algorithms import algorithm_names, load_algorithm
from brats_fl.components.secure_executor import SecureExecutor
from brats_fl.errors import JobError
from brats_fl.sharing.egress import KINDS, Contract, Kind
from brats_fl_tools.jobs.assembly import JobOptions, build_job, configure
from brats_fl_tools.jobs.description import describe_built
from brats_fl_tools.jobs.source import job_names, read_source

SMALL = JobOptions("small")


def configured(name: str | Path, options: JobOptions = SMALL) -> Any:
    return configure(read_source(name), options)


def test_secure_job_is_the_plain_one_with_three_classes_in_the_place_of_others() -> None:
    plain, secure = configured("brats_unet_fedavg"), configured("brats_unet_secagg")

    def paths(config: Any) -> list[str]:
        return [part["path"].rpartition(".")[2] for part in components(dict(config))]

    new = {
        "ScatterAndGather": "SecureScatterAndGather",
        "AlgorithmAggregator": "SecureAggregator",
        "BratsExecutor": "SecureExecutor",
    }
    for side in ("server", "client"):
        assert paths(getattr(secure, side)) == [new.get(path, path) for path in paths(getattr(plain, side))]


def test_sites_have_threshold_cap_and_bound_of_their_own_and_are_held_to_those_of_the_job() -> None:
    built = configured("brats_unet_secagg", JobOptions("small", values={"max_share": 0.4, "min_clients": 5}))

    assert {name: built.client[name] for name in ("min_clients", "max_share", "max_update_ratio")} == {
        "min_clients": 5,
        "max_share": 0.4,
        "max_update_ratio": 10.0,
    }
    (entry,) = built.client["executors"]
    assert set(entry["tasks"]) == {"train", "validate", *SecureExecutor.messages}
    assert entry["executor"]["args"]["threshold"] == "{min_clients}"


def test_one_fewer_hospital_lowers_the_threshold_at_server_and_sites_alike() -> None:
    sites = tuple(f"hospital-{number}" for number in range(1, 5))

    built = configured("brats_unet_secagg", JobOptions("small", sites=sites))

    assert built.server["min_clients"] == built.client["min_clients"] == 3


def test_state_of_the_plain_study_is_not_that_of_the_secure_one() -> None:
    assert configured("brats_unet_fedavg").study != configured("brats_unet_secagg").study


@pytest.mark.parametrize("name", algorithm_names())
def test_algorithm_that_needs_the_mean_only_can_be_had_and_each_other_is_refused(name: str, tmp_path: Path) -> None:
    job = write_job(tmp_path, secure_aggregation=True, algorithm=name, min_clients=5)

    if name in ("fedavg", "fedprox", "fedavgm", "fedadam", "fedyogi", "local_norm", "dp"):
        assert load_algorithm(name).needs_mean_only
        assert configured(job).client["executors"][0]["executor"]["path"].endswith("SecureExecutor")
    else:
        with pytest.raises(JobError, match=f"cannot be combined with algorithm {name}: it looks at each hospital's"):
            configured(job)


@pytest.mark.parametrize(
    ("differences", "message"),
    [
        ({"secure_aggregation": "yes"}, "secure_aggregation must be true or false"),
        ({"bundle": None}, "trains nothing, and there is no sum to hide in"),
        (
            {"client_filters": [{"path": FILTER, "args": {"exclude_vars": "a"}}]},
            "combined with client_filters: a filter",
        ),
        ({"server_filters": []}, "combined with server_filters"),
        ({"executors": []}, "combined with executors"),
        ({"components": {"aggregator": {"path": AGGREGATOR}}}, "combined with a job's own aggregator"),
        ({"keep_updates": True}, "combined with keep_updates"),
        ({"min_clients": 2}, r"3 hospitals in each sum, and more than half of all \(got 2 of 5\)"),
    ],
)
def test_what_would_break_the_sum_or_show_an_update_is_refused(
    differences: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(JobError, match=message):
        configured(write_job(tmp_path, **{"secure_aggregation": True, **differences}))


@pytest.mark.parametrize("count", [1, 2])
def test_sum_of_two_hospitals_hides_nothing_and_is_refused(count: int) -> None:
    sites = tuple(f"hospital-{number}" for number in range(1, count + 1))

    with pytest.raises(JobError, match="needs 3 hospitals in each sum"):
        configured("brats_unet_secagg", JobOptions("small", sites=sites))


def test_job_says_of_itself_what_leaves_the_hospital_and_how_many_open_a_sum(tmp_path: Path) -> None:
    built = build_job("brats_unet_secagg", tmp_path, JobOptions("small", preinstalled=True))

    text = "\n".join(describe_built(built, "hospital-1"))

    assert "sends its update masked: the server reads the sum of all hospitals' and no more" in " ".join(text.split())
    assert "min_clients = 4 sites" in text
    assert "max_update_ratio = 10.0 of the global model's norm" in text
    assert json.loads((built.folder / "meta.json").read_text(encoding="utf-8"))["study"] == built.study
    assert read_config(built, "client")["max_share"] == 0.5


@pytest.mark.parametrize("name", job_names())
def test_every_task_of_a_job_has_a_kind_that_a_hospital_s_contract_can_name(name: str) -> None:
    tasks = {task for entry in configured(name).client["executors"] for task in entry["tasks"]}

    assert tasks
    assert tasks <= set(KINDS)
    assert set(KINDS.values()) == set(get_args(Kind)) == set(Contract().kinds)
