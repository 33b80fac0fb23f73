"""The wheel in an environment of its own, outside the checkout: what hospitals and researchers without one can do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from brats_fl_tools.jobs.source import job_names
from brats_fl_tools.repository import ROOT

pytestmark = pytest.mark.slow  # builds a wheel, for which pip fetches setuptools


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``brats-fl`` of a fresh environment that has the wheel, and from this one all but the checkout."""
    root = tmp_path_factory.mktemp("wheel")
    subprocess.run(["git", "clone", "-q", str(ROOT), str(root / "clone")], check=True)
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(root), str(root / "clone")]
    subprocess.run(build, check=True)
    venv.create(root / "env", with_pip=True)
    python = root / "env" / "bin" / "python"
    install = [str(python), "-m", "pip", "install", "-q", "--no-deps", str(next(root.glob("*.whl")))]
    subprocess.run(install, check=True)
    packages = next((root / "env").glob("lib/python*/site-packages"))
    # Paths of a .pth file are searched, but the .pth files in them, the checkout's among them, are not read.
    (packages / "others.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    return root / "env" / "bin" / "brats-fl"


def run(command: Path, *arguments: str, cwd: Path) -> str:
    environment = {"PATH": f"{command.parent}{os.pathsep}{os.environ['PATH']}", "HOME": str(cwd), "COLUMNS": "200"}
    done = subprocess.run([str(command), *arguments], cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_code_is_the_wheels_and_not_the_checkouts(command: Path, tmp_path: Path):
    python = command.with_name("python")
    code = (
        "import brats_fl, brats_fl_tools.repository as r; print(brats_fl.__file__, r.JOBS, r.BUNDLES, r.POC_WORKSPACE)"
    )

    places = subprocess.run([str(python), "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True).stdout

    assert str(ROOT) not in places
    assert places.count(str(command.parents[1])) == 4


def test_all_jobs_are_listed_and_built(command: Path, tmp_path: Path):
    listed = run(command, "job", "list", cwd=tmp_path)

    assert all(name in listed for name in job_names())
    for options in ([], ["--preinstalled"]):
        out = tmp_path / "-".join(["jobs", *options])
        run(command, "job", "build", "brats_unet_fedavg", "--out", str(out), *options, cwd=tmp_path)
        assert json.loads((out / "brats_unet_fedavg" / "meta.json").read_text())["name"] == "brats_unet_fedavg"


def test_federation_on_one_host_is_prepared_from_the_project_of_the_wheel(command: Path, tmp_path: Path):
    run(command, "poc", "prepare", "--workspace", str(tmp_path / "poc"), cwd=tmp_path)

    assert len(list((tmp_path / "poc").glob("*/prod_00/hospital-*"))) == 5


def test_bundle_is_found_by_its_name(command: Path, tmp_path: Path):
    sites = tmp_path / "sites"
    run(command, "sample", "--out", str(sites), "--cases-per-site", "3", cwd=tmp_path)
    python = command.with_name("python")
    weights = (
        "from pathlib import Path; import torch; from brats_fl.bundle import build_network; "
        "from brats_fl_tools.repository import BUNDLES; "
        "torch.save(build_network(BUNDLES / 'brats_unet', 'small', 0).state_dict(), 'model.pt')"
    )
    subprocess.run([str(python), "-c", weights], cwd=tmp_path, check=True)

    options = ["--model", "model.pt", "--sites", str(sites), "--out", "eval", "--profile", "small"]
    run(command, "evaluate", "brats_unet", *options, cwd=tmp_path)

    assert (tmp_path / "eval" / "evaluation.csv").is_file()
