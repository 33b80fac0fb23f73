"""A job in words, as a hospital reads it before it approves it."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from tests.jobs.test_jobs import small
from typer.testing import CliRunner

from brats_fl.errors import JobError
from brats_fl.settings import Setting
from brats_fl_tools.cli import app
from brats_fl_tools.jobs import assembly, description, settings, source
from brats_fl_tools.jobs.assembly import JobOptions, build_job
from brats_fl_tools.jobs.built import BuiltJob, describe_job
from brats_fl_tools.jobs.description import describe_built, describe_settings, hash_at_site
from brats_fl_tools.jobs.source import CLIENT_CONFIG, job_names
from brats_fl_tools.repository import APP_CLIENT, APP_SERVER

SITE = "hospital-2"


def built(folder: Path, name: str = "brats_unet_fedavg", **options: Any) -> BuiltJob:
    return build_job(name, folder, JobOptions(**{"profile": "small", "preinstalled": True, **options}))


def change(job: BuiltJob, **values: Any) -> BuiltJob:
    """The job with other root values in the client's configuration."""
    path = job.folder / CLIENT_CONFIG
    config = json.loads(path.read_text(encoding="utf-8")) | values
    path.write_text(json.dumps(config), encoding="utf-8")
    return describe_job(job.folder)


@pytest.mark.parametrize("name", job_names())
def test_every_class_and_every_setting_of_the_site_is_in_words(name: str, tmp_path: Path) -> None:
    job = built(tmp_path, name, values=small(name).values)
    config = json.loads((job.folder / CLIENT_CONFIG).read_text(encoding="utf-8"))

    text = "\n".join(describe_built(job, SITE))

    here, _, at_server = text.partition("what the server does meanwhile")
    for path in re.findall(r'"path": "([\w.]+)"', json.dumps(config)):
        assert f": {path}\n      " in here
    assert "nothing is known" not in here
    plain = {key for key, value in config.items() if isinstance(value, (int, float, str))} - {"format_version", "study"}
    assert all(re.search(rf"^  {key} = .*\n      \S", here, re.MULTILINE) for key in plain)
    assert re.search(r"^  min_clients = [45] sites\n", at_server, re.MULTILINE)


def test_settings_of_the_bundle_have_their_value_unit_and_meaning(tmp_path: Path) -> None:
    job = built(tmp_path, values={"patch_size": [32, 32, 32]})

    text = "\n".join(describe_built(job, SITE))

    assert "  patch_size = [32, 32, 32] voxels\n      patch that the network is trained on" in text
    assert f"{job.name}: for hospital-1, hospital-2, hospital-3, hospital-4, hospital-5; study {job.study}\n" in text
    assert "  the installed brats-fl: version 0.1.0, library_sha256 " in text


def test_code_that_a_job_brings_and_what_it_is_given_is_said(tmp_path: Path) -> None:
    job = built(tmp_path, preinstalled=False, gpus=1, gpu_memory_gib=20)
    (job.folder / "app_client" / "config" / "more.json").write_text("{}", encoding="utf-8")

    text = "\n".join(describe_built(job, SITE))

    assert re.search(r"CODE THAT THE JOB BRINGS: \d+ files in \S+/app_client/custom\n", text)
    assert re.search(r"CODE THAT THE JOB BRINGS: \d+ files in \S+/app_client/bundles\n", text)
    assert "  a file beside its configuration: config/more.json\n" in text
    assert '  resource_spec = {"hospital-2": {"num_of_gpus": 1, "mem_per_gpu_in_GiB": 20}}\n' in text


def test_what_no_table_knows_is_shown_as_it_is_and_none_of_it_is_run(tmp_path: Path) -> None:
    (tmp_path / "ran").mkdir()
    custom = "import pathlib; pathlib.Path(__file__).with_name('ran').touch()\nclass Mine:\n    '''Friendly.'''\n"
    job = change(built(tmp_path), algorithm="mine", secret={"a": [1]}, components=[{"id": "x", "path": "mine.Mine"}])
    (job.folder / "app_client" / "custom").mkdir()
    (job.folder / "app_client" / "custom" / "mine.py").write_text(custom, encoding="utf-8")

    text = "\n".join(describe_built(job, SITE))

    assert '  secret = {"a": [1]}\n' in text
    assert "  x: mine.Mine\n      nothing is known here of this class\n" in text
    assert not (job.folder / "app_client" / "custom" / "ran").exists()


@pytest.mark.parametrize(
    ("deploy_map", "apps"),
    [
        ({"app_client": ["hospital-1"], "app_other": [SITE], "app_server": ["server"]}, "'app_other'"),
        ({"app_client": [SITE], "app_server": ["server", SITE]}, "'app_client', 'app_server'"),
        ({"app_other": ["@ALL"]}, "'app_other'"),
    ],
)
def test_job_that_gives_a_site_another_app_than_the_one_that_is_shown_is_refused(
    deploy_map: dict[str, list[str]], apps: str, tmp_path: Path
) -> None:
    job = built(tmp_path)
    meta = json.loads((job.folder / "meta.json").read_text(encoding="utf-8"))
    (job.folder / "meta.json").write_text(json.dumps({**meta, "deploy_map": deploy_map}), encoding="utf-8")

    with pytest.raises(JobError, match=f"deploys {apps} to {SITE}, which must get app_client alone"):
        hash_at_site(job, SITE)


def test_study_is_that_of_the_app_by_which_the_site_finds_its_own_state(tmp_path: Path) -> None:
    job = change(built(tmp_path), study="0f" * 32)

    assert f"; study {'0f' * 32}" in describe_built(job, SITE)[0]


def test_text_of_a_job_cannot_change_what_the_terminal_shows(tmp_path: Path) -> None:
    job = change(built(tmp_path), **{"reversed\u202e": 2}, profile="small")

    text = "\n".join(describe_built(job, SITE))

    assert "\u202e" not in text
    assert [line for line in text.splitlines() if "reversed" in line] == [r"  reversed\u202e = 2"]


def test_job_with_a_text_that_a_terminal_acts_on_is_not_shown_at_all(tmp_path: Path) -> None:
    job = built(tmp_path)

    with pytest.raises(JobError, match="a text holds the character") as refused:
        change(job, **{"hidden\x1b[2J": 1})

    assert "\x1b" not in str(refused.value)


@pytest.mark.parametrize("executors", [1, [1], [{}], [{"executor": 1, "tasks": []}]])
def test_job_that_is_not_laid_out_as_it_must_be_is_refused_in_words(executors: Any, tmp_path: Path) -> None:
    job = change(built(tmp_path), executors=executors)

    with pytest.raises(JobError, match="is not laid out as `brats-fl job build` does it"):
        describe_built(job, SITE)


def test_resumed_job_is_the_same_to_a_hospital_and_more_rounds_are_another(tmp_path: Path) -> None:
    model = tmp_path / "model.pt"
    model.write_bytes(b"weights")
    whole = built(tmp_path / "a", rounds=10)
    rest = built(tmp_path / "b", rounds=7, values={"start_round": 3}, checkpoint=model)
    longer = built(tmp_path / "c", rounds=11)

    assert hash_at_site(rest, SITE) == hash_at_site(whole, SITE)
    assert hash_at_site(longer, SITE) != hash_at_site(whole, SITE)
    assert whole.content_hash != rest.content_hash


def test_job_without_gpus_is_the_same_at_every_hospital_and_timeouts_do_not_count(tmp_path: Path) -> None:
    job, patient = built(tmp_path / "a"), built(tmp_path / "b", values={"train_timeout": 60})

    assert len({hash_at_site(job, site) for site in job.sites}) == 1
    assert hash_at_site(patient, SITE) == hash_at_site(job, SITE)


def test_build_prints_the_hash_that_every_site_computes(tmp_path: Path) -> None:
    options = ["--profile", "small", "--preinstalled", "--rounds", "2", "--set", "patch_size=[32, 32, 32]"]

    result = CliRunner().invoke(app, ["job", "build", "brats_unet_fedavg", "--out", str(tmp_path / "a"), *options])

    job = built(tmp_path / "b", rounds=2, values={"patch_size": [32, 32, 32]})
    assert f"approval_hash {hash_at_site(job, SITE)}, at every hospital\n" in result.output


@pytest.mark.parametrize("preinstalled", [True, False])
def test_job_is_the_same_where_the_shared_apps_have_the_names_that_the_wheel_gives_them(
    preinstalled: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = built(tmp_path / "checkout", preinstalled=preinstalled)
    approval = hash_at_site(here, SITE)
    words = describe_built(here, SITE)
    for shared in (APP_SERVER, APP_CLIENT):
        shutil.copytree(shared, tmp_path / f"brats_fl_{shared.name}")
    for module in (assembly, description, settings, source):
        monkeypatch.setattr(module, "APP_SERVER", tmp_path / "brats_fl_app_server")
        monkeypatch.setattr(module, "APP_CLIENT", tmp_path / "brats_fl_app_client")

    installed = built(tmp_path / "installed", preinstalled=preinstalled)

    assert installed.content_hash == here.content_hash
    assert hash_at_site(installed, SITE) == approval
    assert [line.replace("/installed/", "/checkout/") for line in describe_built(installed, SITE)] == words


def test_link_of_a_page_is_its_text_and_the_name_of_the_page_in_a_terminal() -> None:
    setting = Setting("none", "told alike ([compression](../docs/compression.md))")

    words = describe_settings({"compression": setting}, {})

    assert words[1].strip() == "told alike (compression, docs/compression.md)"


@pytest.mark.parametrize(("name", "found"), [("nowhere", "no such folder"), ("empty", "holds no built job")])
def test_folder_that_is_no_job_is_told_with_what_to_give(name: str, found: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()

    with pytest.raises(JobError, match=f"{name}: {found}.*; give the job's folder, as the lead sent or"):
        describe_job(tmp_path / name)
