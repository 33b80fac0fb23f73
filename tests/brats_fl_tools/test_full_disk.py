"""A disk that is full: the message names it, nothing partial passes for whole, and the next try is not in the way."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
import typer
from tests.run_folders import write_run
from tests.small_disk import SIZE
from tests.tiny_kits import write_project
from tests.tiny_sites import make_tiny_sites, write_tiny_case
from tests.voxel_bundle import make_voxel_bundle

from brats_fl.bundle import build_network
from brats_fl.errors import BratsFLError, KitError
from brats_fl_tools.cli import app, explain
from brats_fl_tools.jobs.assembly import JobOptions, build_job
from brats_fl_tools.kit.kits import provision, read_federation
from brats_fl_tools.model.export import export_model
from brats_fl_tools.report import write_report
from brats_fl_tools.repository import BUNDLES
from brats_fl_tools.runs.poc import prepare_poc

JOB = "brats_unet_fedavg"


def write_kits(disk: Path) -> None:
    provision(write_project(disk.parent / "project.yml"), disk / "kits", "localhost", 18700)


def write_report_of_run(disk: Path) -> None:
    run = write_run(disk / "run")
    (disk / "ballast").write_bytes(bytes(SIZE // 3))
    write_report(run)


def write_weights(disk: Path) -> None:
    (disk / "bundle" / "configs").mkdir(parents=True)
    for name in ("train", "small"):
        config = (BUNDLES / "brats_unet" / "configs" / f"{name}.json").read_bytes()
        (disk / "bundle" / "configs" / f"{name}.json").write_bytes(config)
    model = disk.parent / "global_model.pt"
    torch.save(build_network(BUNDLES / "brats_unet", "full", 0).state_dict(), model)
    export_model(model, disk / "bundle")


def fill(disk: Path, left: int) -> None:
    (disk / "ballast").write_bytes(bytes(shutil.disk_usage(disk).free - left))


def run(*arguments: object) -> None:
    command = typer.main.get_command(app)
    command.main([str(argument) for argument in arguments], standalone_mode=False)


def tiny_cases(folder: Path, number: int) -> Path:
    for case in range(number):
        write_tiny_case(folder / "data", f"P_{case:03}")
    return folder / "data"


def import_table(disk: Path) -> None:
    data = tiny_cases(disk.parent, 12)
    fill(disk, 4096)
    run("import", data, "--out", disk / "cases.csv")


def partition_table(disk: Path) -> None:
    table = disk.parent / "cases.csv"
    run("import", tiny_cases(disk.parent, 12), "--out", table)
    fill(disk, 3 * 4096)
    run("partition", table, "--strategy", "even", "--sites", 5, "--out", disk / "sites", "--no-page")


def segment_case(disk: Path) -> None:
    data = tiny_cases(disk.parent, 1)
    fill(disk, 2 * 4096)
    bundle = make_voxel_bundle(disk.parent / "voxel")
    run("segment", bundle, data, "--out", disk / "masks")


def evaluate_model(disk: Path) -> None:
    sites = make_tiny_sites(disk.parent / "sites", {"hospital-1": (0, 0, 2)})
    bundle = make_voxel_bundle(disk.parent / "voxel")
    fill(disk, 4096)
    model = bundle / "models" / "model.pt"
    run("evaluate", bundle, "--model", model, "--sites", sites, "--out", disk / "scores", "--masks")


def rescore(disk: Path) -> None:
    sites = make_tiny_sites(disk.parent / "sites", {"hospital-1": (0, 0, 6)})
    masks = disk.parent / "masks"
    masks.mkdir()
    for label in sites.rglob("*_seg.nii.gz"):
        shutil.copyfile(label, masks / label.name)
    fill(disk, 4096)
    run("evaluate", "--rescore", masks, "--sites", sites, "--out", disk / "scores")


def check_with_page(disk: Path) -> None:
    sites = make_tiny_sites(disk.parent / "sites", {"hospital-1": (2, 0, 0)})
    fill(disk, 4096)
    with contextlib.suppress(typer.Exit):  # of the findings
        run("check", sites, "--html", disk / "findings.html")


WRITERS: Mapping[str, tuple[Callable[[Path], object], str]] = {
    "job build": (lambda disk: build_job(JOB, disk / "jobs", JobOptions()), f"jobs/{JOB}"),
    "kit provision": (write_kits, "kits/brats_federation"),
    "poc prepare": (lambda disk: prepare_poc(disk / "poc", None), "poc"),
    "report": (write_report_of_run, "run/report.html"),
    "import": (import_table, "cases.csv"),
    "partition": (partition_table, "sites/partition.json"),
    "segment": (segment_case, "masks/P_000_seg.nii.gz"),
    "evaluate": (evaluate_model, "scores/evaluation.csv"),
    "evaluate --rescore": (rescore, "scores/evaluation.csv"),
    "check --html": (check_with_page, "findings.html"),
    "export": (write_weights, "bundle/models/model.pt"),
}


@pytest.mark.parametrize("name", WRITERS)
def test_full_disk_is_told_and_nothing_partial_passes_for_whole(name: str, small_disk: Path):
    write, made = WRITERS[name]

    with pytest.raises((BratsFLError, OSError)) as caught:
        write(small_disk)

    words = explain(caught.value)  # type: ignore[arg-type]
    assert str(small_disk) in words
    assert "disk is full" in words or "No space left on device" in words
    assert len(words) < 400
    assert not (small_disk / made).exists()
    assert not [path for path in small_disk.rglob(".*") if ".brats-fl-" in path.name], "no half of it is left"


def test_provisioning_that_fails_leaves_the_authority_and_the_kits_as_they_were(tmp_path: Path, small_disk: Path):
    project = write_project(tmp_path / "project.yml")
    subprocess.run(["mount", "-o", f"remount,size={10 * SIZE}", str(small_disk)], check=True)
    first = provision(project, small_disk, "localhost", 18700)
    files = {path: path.read_bytes() for path in small_disk.rglob("*") if path.is_file()}
    (small_disk / "ballast").write_bytes(bytes(shutil.disk_usage(small_disk).free - SIZE // 3))

    more = write_project(tmp_path / "more.yml", ("server", "hospital-1", "hospital-2", "hospital-6"))
    with pytest.raises(OSError, match="No space left"):
        provision(more, small_disk, "localhost", 18700)

    (small_disk / "ballast").unlink()
    assert {path: path.read_bytes() for path in small_disk.rglob("*") if path.is_file()} == files
    assert read_federation(first).clients
    assert provision(more, small_disk, "localhost", 18700).name == "prod_01"


def test_project_that_flare_does_not_take_says_why(tmp_path: Path):
    project = write_project(tmp_path / "project.yml")
    project.write_text(project.read_text(encoding="utf-8").replace("role: lead", "role: 7"), encoding="utf-8")

    with pytest.raises(KitError, match=r"project\.yml: cannot be provisioned: .*role.*; mend"):
        provision(project, tmp_path / "out", "localhost", 18700)
    assert not list((tmp_path / "out").rglob("*.key"))
