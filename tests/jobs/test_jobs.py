"""Jobs: what is assembled from a job folder, the shared apps, the library and a bundle."""

from __future__ import annotations

import importlib
import inspect
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import typer

from brats_fl.constants import SITES
from brats_fl.errors import FolderError, JobError, SiteNameError
from brats_fl.provenance import required_code
from brats_fl.sharing.case_features import FEATURES
from brats_fl_tools.jobs import source
from brats_fl_tools.jobs.assembly import JobOptions, build_job
from brats_fl_tools.jobs.built import BuiltJob, describe_job
from brats_fl_tools.jobs.options import parse_values
from brats_fl_tools.jobs.quorum import fewest_updates
from brats_fl_tools.jobs.settings import settings_of
from brats_fl_tools.jobs.source import CLIENT_CONFIG, SERVER_CONFIG, job_names, read_source, shared_config
from brats_fl_tools.kit.site_files import policy_names, read_policy
from brats_fl_tools.repository import BUNDLES, CUSTOM, JOBS, ROOT

SMALL = JobOptions(profile="small")
CHOSEN = {"noise_multiplier": 4.0, "clipping_norm": 1.0, "sampling_rate": 0.5, "delta": 0.001}
"""What a private job wants to be told."""


def small(name: str) -> JobOptions:
    """Options with which any job can be built."""
    return replace(SMALL, values=CHOSEN if read_source(name).differences.get("algorithm") == "dp" else {})


def read_config(built: BuiltJob, side: str) -> dict[str, Any]:
    """Configuration of the server's or the client's app of a built job."""
    path = built.folder / f"app_{side}" / "config" / f"config_fed_{side}.json"
    return json.loads(path.read_text(encoding="utf-8"))


def components(config: dict[str, Any]) -> list[dict[str, Any]]:
    """Every ``{"path", "args"}`` of an app's configuration."""
    executors = [entry["executor"] for entry in config.get("executors", [])]
    filters = [part for entry in config.get("task_result_filters", []) for part in entry["filters"]]
    return [*config.get("workflows", []), *config.get("components", []), *executors, *filters]


@pytest.mark.parametrize("name", job_names())
def test_two_builds_hold_the_same_bytes_and_the_same_hash(name: str, tmp_path: Path) -> None:
    first = build_job(name, tmp_path / "a", small(name))
    second = build_job(name, tmp_path / "b", small(name))

    assert first.content_hash == second.content_hash
    files = sorted(path.relative_to(first.folder) for path in first.folder.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(second.folder) for path in second.folder.rglob("*") if path.is_file())
    assert all((first.folder / file).read_bytes() == (second.folder / file).read_bytes() for file in files)


@pytest.mark.parametrize("name", job_names())
def test_every_number_that_a_job_may_be_told_is_bounded_from_both_sides(name: str) -> None:
    source = read_source(name)
    server, client = shared_config(SERVER_CONFIG), shared_config(CLIENT_CONFIG)
    algorithm = str(source.differences.get("algorithm", server["algorithm"]))

    told = settings_of(source, server, client, "small", algorithm).everything

    numbers = {name: setting for name, setting in told.items() if "number" in setting.rule}
    assert {"num_rounds", "train_timeout"} <= set(numbers)
    open_below = [name for name, one in numbers.items() if one.minimum is None and one.above is None]
    assert (open_below, [name for name, one in numbers.items() if one.maximum is None]) == ([], [])


def test_another_option_gives_another_hash(tmp_path: Path) -> None:
    first = build_job("brats_unet_fedavg", tmp_path / "a", SMALL)
    second = build_job("brats_unet_fedavg", tmp_path / "b", JobOptions("small", rounds=7))

    assert first.content_hash != second.content_hash


@pytest.mark.parametrize("name", job_names())
def test_job_goes_to_the_server_and_five_hospitals_and_needs_four_of_them_or_all(name: str, tmp_path: Path) -> None:
    built = build_job(name, tmp_path, small(name))
    meta = json.loads((built.folder / "meta.json").read_text(encoding="utf-8"))

    assert meta["deploy_map"] == {"app_server": ["server"], "app_client": list(SITES)}
    assert meta["min_clients"] == (5 if name == "brats_unet_multi_krum" else 4)  # 2 x 1 + 3 against one hostile site
    assert built.sites == SITES


@pytest.mark.parametrize("name", job_names())
def test_every_component_exists_and_takes_its_arguments(name: str, tmp_path: Path) -> None:
    built = build_job(name, tmp_path, small(name))

    for side in ("server", "client"):
        for component in components(read_config(built, side)):
            module, _, cls = component["path"].rpartition(".")
            target = getattr(importlib.import_module(module), cls)
            inspect.signature(target).bind(**component["args"])


def test_code_and_bundle_come_with_the_job_and_nothing_else(tmp_path: Path) -> None:
    built = build_job("brats_unet_fedavg", tmp_path, SMALL)

    for side in ("server", "client"):
        app = built.folder / f"app_{side}"
        assert (app / "custom" / "brats_fl" / "__init__.py").is_file()
        assert (app / "bundles" / "brats_unet" / "configs" / "train.json").is_file()
        # What `export` says of weights in them makes no other job of it.
        assert not (app / "bundles" / "brats_unet" / "docs").exists()
        assert not (app / "bundles" / "brats_unet" / "configs" / "metadata.json").exists()
        assert [path.name for path in (app / "custom").iterdir()] == ["brats_fl"]
        assert [path.name for path in (app / "bundles").iterdir()] == ["brats_unet"]
    suffixes = {path.suffix for path in built.folder.rglob("*") if path.is_file()}
    assert not suffixes & {".pt", ".pyc", ".gz", ".nii"}
    text = "".join(path.read_text(encoding="utf-8") for path in built.folder.rglob("*.json"))
    assert str(Path.home()) not in text, "no job holds a path"


def test_options_reach_server_client_and_bundle(tmp_path: Path) -> None:
    options = JobOptions("small", rounds=3, values={"min_clients": 5, "learning_rate": 0.5, "local_epochs": 2})

    built = build_job("brats_unet_fedavg", tmp_path, options)

    server, client = read_config(built, "server"), read_config(built, "client")
    assert (server["num_rounds"], server["min_clients"], server["profile"]) == (3, 5, "small")
    assert (client["local_epochs"], client["profile"]) == (2, "small")
    assert client["overrides"] == {"learning_rate": 0.5}
    assert json.loads((built.folder / "meta.json").read_text(encoding="utf-8"))["min_clients"] == 5


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"learning_rat": 0.1}, "unknown key 'learning_rat'; known are .*learning_rate"),
        ({"data_list_file_path": "/x"}, "unknown key 'data_list_file_path'"),
        ({"min_clients": "four"}, "min_clients must be a whole number 1 or more and at most 1000 \\(got 'four'\\)"),
        ({"amp": 1}, "amp must be true or false"),
        ({"steps_per_epoch": 2.5}, "steps_per_epoch must be a whole number 1 or more"),
    ],
)
def test_unknown_key_or_wrong_type_is_an_error_and_nothing_is_written(
    values: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(JobError, match=message):
        build_job("brats_unet_fedavg", tmp_path, JobOptions("small", values=values))

    assert list(tmp_path.iterdir()) == []


def test_unknown_key_in_the_job_file_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "jobs" / "mine"
    folder.mkdir(parents=True)
    (folder / "meta.json").write_text('{"name": "mine", "deploy_map": {}}', encoding="utf-8")
    (folder / "job.json").write_text('{"bundle": "brats_unet", "num_round": 3}', encoding="utf-8")
    monkeypatch.setattr(source, "JOBS", tmp_path / "jobs")

    with pytest.raises(JobError, match="mine: unknown key 'num_round'"):
        build_job("mine", tmp_path / "out", SMALL)


def test_unknown_job_names_those_that_exist(tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"no job 'nope'; there are brats_attention_unet_dp, .*, brats_unet_fedavg"):
        build_job("nope", tmp_path, SMALL)


def test_unknown_profile_names_those_that_exist(tmp_path: Path) -> None:
    with pytest.raises(Exception, match=r"brats_unet has no tiny\.json; profiles are full, small"):
        build_job("brats_unet_fedavg", tmp_path, JobOptions("tiny"))


@pytest.mark.parametrize(
    ("name", "value", "mend"),
    [("profile", "../x", "give --profile"), ("profile", "small", "give --profile"), ("bundle", "../x", "of the job")],
)
def test_files_that_a_job_is_made_of_are_not_chosen_by_set(name: str, value: str, mend: str, tmp_path: Path) -> None:
    with pytest.raises(JobError, match=f"{name} is not set by --set.*{mend}"):
        build_job("brats_unet_fedavg", tmp_path, JobOptions(values={name: value}))


def test_existing_folder_is_kept_without_force(tmp_path: Path) -> None:
    build_job("brats_unet_fedavg", tmp_path, SMALL)

    with pytest.raises(FolderError, match="it holds a job; choose another --out or add --force"):
        build_job("brats_unet_fedavg", tmp_path, SMALL)
    build_job("brats_unet_fedavg", tmp_path, SMALL, force=True)


def test_source_of_a_job_is_not_replaced_by_what_is_built_from_it(tmp_path: Path) -> None:
    source = tmp_path / "jobs" / "mine"
    shutil.copytree(JOBS / "brats_unet_fedavg", source)

    with pytest.raises(FolderError, match="no job of brats-fl's"):
        build_job(source, tmp_path / "jobs", SMALL, force=True)

    assert sorted(path.name for path in source.iterdir()) == ["job.json", "meta.json"]


def test_values_are_json_where_they_parse_and_text_where_not() -> None:
    assert parse_values(["a=1", "b=[1, 2]", "c=x", "d=true"]) == {"a": 1, "b": [1, 2], "c": "x", "d": True}
    with pytest.raises(typer.BadParameter, match="--set wants KEY=VALUE"):
        parse_values(["a"])


def test_preinstalled_job_holds_no_code_and_states_what_must_be_installed(tmp_path):
    built = build_job("brats_unet_fedavg", tmp_path, JobOptions("small", preinstalled=True))

    files = sorted(path.relative_to(built.folder).as_posix() for path in built.folder.rglob("*") if path.is_file())
    assert files == [
        ".brats-fl",
        "app_client/config/config_fed_client.json",
        "app_server/config/config_fed_server.json",
        "meta.json",
    ]
    for side in ("client", "server"):
        config = json.loads((built.folder / f"app_{side}/config/config_fed_{side}.json").read_text(encoding="utf-8"))
        assert config["required_code"] == required_code(BUNDLES / "brats_unet")


def test_other_sites_take_the_place_of_the_jobs_own_and_as_many_may_be_missing(tmp_path):
    others = ("hospital-1", "hospital-2", "hospital-4")

    built = build_job("brats_unet_fedavg", tmp_path, JobOptions("small", sites=others))

    meta = json.loads((built.folder / "meta.json").read_text(encoding="utf-8"))
    assert built.sites == describe_job(built.folder).sites == others
    assert meta["deploy_map"] == {"app_server": ["server"], "app_client": list(others)}
    assert meta["min_clients"] == read_config(built, "server")["min_clients"] == 2  # 3 - (5 - 4)


def test_site_with_a_name_that_flare_does_not_bear_is_refused(tmp_path):
    with pytest.raises(SiteNameError, match="FLARE does not bear the name 'hospital 1'"):
        build_job("brats_unet_fedavg", tmp_path, JobOptions("small", sites=("hospital 1",)))


def test_two_hospitals_of_a_job_of_ones_own_are_enough_where_it_does_not_say_how_many():
    assert fewest_updates(4, 2, 2) == 2


@pytest.mark.parametrize(("sites", "needed"), [(1, 1), (2, 1), (3, 2), (5, 4), (7, 6)])
def test_one_site_may_be_missing_whatever_their_number(sites: int, needed: int):
    assert fewest_updates(4, 5, sites) == needed


def test_more_updates_than_sites_cannot_be_asked_for(tmp_path):
    options = JobOptions("small", values={"min_clients": 4}, sites=("hospital-1", "hospital-2"))

    with pytest.raises(JobError, match=r"min_clients must be 1 to 2, the sites \(got 4\)"):
        build_job("brats_unet_fedavg", tmp_path, options)


def test_job_from_a_checkpoint_ships_it_to_the_server_only(tmp_path):
    (tmp_path / "model.pt").write_bytes(b"weights")

    built = build_job("brats_unet_fedavg", tmp_path / "out", JobOptions("small", checkpoint=tmp_path / "model.pt"))

    assert [path.relative_to(built.folder).as_posix() for path in built.folder.rglob("*.pt")] == [
        "app_server/start_from.pt"
    ]
    config = json.loads((built.folder / "app_server/config/config_fed_server.json").read_text(encoding="utf-8"))
    assert config["start_from"] == "start_from.pt"


@pytest.mark.parametrize("name", job_names())
def test_policies_name_every_class_of_every_job(name: str, tmp_path: Path) -> None:
    built = build_job(name, tmp_path, small(name))
    used = {part["path"] for side in ("server", "client") for part in components(read_config(built, side))}

    for policy in policy_names():
        assert used <= set(read_policy(policy)["resources"]["class_allow_list"])


def test_job_that_trains_nothing_brings_the_library_alone_and_takes_no_rounds(tmp_path: Path) -> None:
    built = build_job("brats_statistics", tmp_path, JobOptions())

    custom = built.folder / "app_client" / "custom"
    assert sorted(path.name for path in custom.iterdir()) == ["brats_fl"]
    assert (built.bundle, built.result) == (None, "statistics.json")
    with pytest.raises(JobError, match="brats_statistics: unknown key 'num_rounds'"):
        build_job("brats_statistics", tmp_path / "again", JobOptions(rounds=3))


def test_statistics_job_asks_for_the_bins_that_sites_count_in(tmp_path: Path) -> None:
    config = read_config(build_job("brats_statistics", tmp_path, JobOptions()), "server")

    asked = config["workflows"][0]["args"]["statistic_configs"]["histogram"]
    assert asked == {f.name: {"bins": f.bins, "range": [f.low, f.high]} for f in FEATURES}


def test_wheel_holds_every_package_and_every_folder_of_files_of_the_checkout():
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 has no parser for TOML")
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]

    found = [path.parent.relative_to(CUSTOM).as_posix().replace("/", ".") for path in CUSTOM.rglob("__init__.py")]
    files = [name for name in settings["package-dir"] if name]
    assert sorted(settings["packages"]) == sorted([*found, *files])
    for name in files:
        patterns = settings["package-data"][name]
        there = [pattern for pattern in patterns if any((ROOT / settings["package-dir"][name]).glob(pattern))]
        assert there == [pattern for pattern in patterns if "scripts" not in pattern]  # no bundle of ours has scripts


def test_algorithm_that_needs_more_hospitals_than_there_are_is_not_built(tmp_path):
    four = JobOptions("small", sites=("a", "b", "c", "d"))

    with pytest.raises(JobError, match=r"multi_krum needs 5 with its settings, and there are 4 hospitals; take more"):
        build_job("brats_unet_multi_krum", tmp_path, four)


def test_round_of_an_algorithm_is_no_smaller_than_it_needs(tmp_path):
    three = JobOptions("small", sites=("a", "b", "c"))

    built = build_job("brats_unet_trimmed_mean", tmp_path / "built", three)

    assert read_config(built, "server")["min_clients"] == 3  # and not 2, as many as an average of three may lack
    with pytest.raises(JobError, match=r"min_clients must be 3 to 3, the sites \(got 2\); trimmed_mean needs 3"):
        build_job("brats_unet_trimmed_mean", tmp_path / "other", replace(three, values={"min_clients": 2}))


def test_private_job_is_not_built_before_all_that_guards_privacy_is_chosen(tmp_path):
    for missing in CHOSEN:
        values = {name: value for name, value in CHOSEN.items() if name != missing}
        with pytest.raises(JobError, match=f"{missing} must be chosen: .* `brats-fl privacy plan`"):
            build_job("brats_unet_dp", tmp_path, replace(SMALL, values=values))

    assert list(tmp_path.iterdir()) == []
    built = build_job("brats_unet_dp", tmp_path, replace(SMALL, values=CHOSEN))
    assert read_config(built, "client")["algorithm_settings"] == {**CHOSEN, "scales_only": False}
