"""The runs of a study: names, order, whose recipe a baseline takes, and when a run is another one."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.study_files import ONE_JOB, TWO_JOBS, a_case, write_sites, write_study

from brats_fl.cases.datalists import DATALIST_FILE, read_datalist, write_datalist
from brats_fl.errors import DataListError, RunError
from brats_fl_tools.study.definition import read_study
from brats_fl_tools.study.expansion import StudyRun, expand


def runs_of(path: Path) -> list[StudyRun]:
    return expand(read_study(path), path, path.parent / "out")


def test_runs_that_are_compared_come_close_to_each_other_and_a_seed_before_the_next(tmp_path: Path):
    runs = runs_of(write_study(tmp_path))

    assert [run.name for run in runs[:5]] == [
        "sites-fedavg-seed0",
        "sites-brats_unet-local-seed0",
        "sites-brats_unet-central-seed0",
        "sites-scaffold-seed0",
        "sites-brats_unet-leave-one-out-seed0",
    ]
    assert [run.name.replace("seed7", "seed0") for run in runs[5:]] == [run.name for run in runs[:5]]
    assert {run.values["seed"] for run in runs[5:]} == {7}


def test_steps_are_those_of_all_hospitals_and_parts(tmp_path: Path):
    runs = runs_of(write_study(tmp_path))

    # 3 rounds of 10 steps at 2 hospitals; pooled once; without each of the two, the other one trains.
    assert {run.kind: run.steps for run in runs} == {"federated": 60, "local": 60, "central": 30, "leave-one-out": 60}
    local = next(run for run in runs if run.kind == "local")
    assert [str(part) for part in local.parts] == [f"runs/{local.name}/hospital-1", f"runs/{local.name}/hospital-2"]


def test_baselines_take_the_recipe_of_the_bundles_job_with_plain_averaging(tmp_path: Path):
    swapped = TWO_JOBS.replace("[jobs.fedavg]", "[jobs.z]").replace("brats_unet_fedavg", "tmp")
    swapped = swapped.replace("brats_unet_scaffold", "brats_unet_fedavg").replace("tmp", "brats_unet_scaffold")

    runs = runs_of(write_study(tmp_path, swapped))

    assert runs[0].label == "z"
    assert {run.label for run in runs if run.kind != "federated"} == {"scaffold"}  # which is brats_unet_fedavg here


def test_every_bundle_has_its_baselines(tmp_path: Path):
    runs = runs_of(write_study(tmp_path, ONE_JOB + "\n[jobs.brats_attention_unet_fedavg]\n"))

    assert [(run.bundle, run.kind) for run in runs] == [
        ("brats_unet", "federated"),
        ("brats_unet", "local"),
        ("brats_attention_unet", "federated"),
        ("brats_attention_unet", "local"),
    ]


def test_first_folds_of_all_partitions_come_before_the_second(tmp_path: Path):
    text = ONE_JOB.replace('sites = "sites"', "folds = 2").replace('baselines = ["local"]', "")
    write_sites(tmp_path / "other")

    runs = runs_of(write_study(tmp_path, text + '\n[partitions]\na = "sites"\nb = "other"\n'))

    assert [run.name.partition("-brats")[0] for run in runs] == ["a-fold1", "b-fold1", "a-fold2", "b-fold2"]
    assert runs[0].sites_dir == tmp_path / "out" / "folds" / "a" / "fold-1"


def test_run_is_another_one_when_its_settings_or_lists_change_and_no_other(tmp_path: Path):
    path = write_study(tmp_path)
    before = {run.name: run.recipe_sha256 for run in runs_of(path)}
    path.write_text("# a word\n" + TWO_JOBS.replace("0.05", "0.02"), encoding="utf-8")
    rate = {run.name: run.recipe_sha256 for run in runs_of(path)}
    datalist = tmp_path / "sites" / "hospital-1" / DATALIST_FILE
    found = read_datalist(datalist)
    write_datalist(datalist, type(found)(found.site, found.training, found.validation, (a_case("new"),)))
    lists = {run.name: run.recipe_sha256 for run in runs_of(path)}

    assert {name for name in before if before[name] != rate[name]} == {"sites-scaffold-seed0", "sites-scaffold-seed7"}
    assert all(rate[name] != lists[name] for name in rate)
    assert len(set(before.values())) == len(before)


def test_hospital_without_a_training_case_does_not_train(tmp_path: Path):
    path = write_study(tmp_path, ONE_JOB)
    write_sites(tmp_path / "sites", {"hospital-3": (0, 0, 2)})

    assert runs_of(path)[0].hospitals == ("hospital-1", "hospital-2")


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        (
            "learning_rate = 0.05",
            "nonsense = 1",
            "study.toml: jobs.scaffold: brats_unet_scaffold: unknown key 'nonsense'",
        ),
        ("brats_unet_scaffold", "brats_unet_nothing", "study.toml: jobs.scaffold: no job "),
        ("brats_unet_scaffold", "brats_statistics", "jobs.scaffold: brats_statistics trains nothing"),
        ("[jobs.scaffold]", '[jobs."brats_unet-local"]', "two runs would be called sites-brats_unet-local-seed0"),
        ('"small"', '"tiny"', "study.toml: jobs.fedavg: "),
    ],
)
def test_what_cannot_be_run_is_refused_before_anything_is(before: str, after: str, words: str, tmp_path: Path):
    path = write_study(tmp_path, TWO_JOBS.replace(before, after))

    with pytest.raises(RunError) as caught:
        runs_of(path)

    assert words in str(caught.value)


def test_folder_without_lists_is_refused(tmp_path: Path):
    path = write_study(tmp_path, TWO_JOBS.replace('"sites"', '"nowhere"'))

    with pytest.raises(DataListError, match=r"nowhere: no such folder; make data lists with `brats-fl partition`"):
        runs_of(path)
