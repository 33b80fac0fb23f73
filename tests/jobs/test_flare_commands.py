"""What FLARE's own `nvflare job submit` makes of a built job before it sends it: the same job."""

from __future__ import annotations

import importlib
import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.jobs.test_jobs import SMALL, small

from brats_fl_tools.jobs.assembly import build_job
from brats_fl_tools.jobs.source import job_names


def contents(folder: Path) -> dict[str, Any]:
    """Path -> bytes of each file; of a JSON file what it says, and in which order."""
    return {
        path.relative_to(folder).as_posix(): json.loads(path.read_text("utf-8"), object_pairs_hook=list)
        if path.suffix == ".json"
        else path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def rewrite_as_flare_does(job: Path, out: Path) -> Path:
    """FLARE reads every JSON, YAML and conf file of ``config`` and ``custom``, and writes what it has read."""
    command = importlib.import_module("nvflare.tool.job.job_cli")
    shutil.copytree(job, out)
    apps = [Path(app).name for app in command.get_app_dirs_from_job_folder(str(job))]
    arguments = SimpleNamespace(job_folder=str(job), config_file=None, app_config=None, debug=False)
    command.prepare_job_config(arguments, apps, str(out))
    return out


@pytest.mark.parametrize("name", job_names())
def test_job_is_sent_as_it_was_built(name: str, tmp_path: Path) -> None:
    built = build_job(name, tmp_path / "built", small(name))

    sent = rewrite_as_flare_does(built.folder, tmp_path / "sent")

    assert contents(sent) == contents(built.folder)


def test_flare_rewrites_keys_of_files_beneath_custom_so_that_no_bundle_may_lie_there(tmp_path: Path) -> None:
    """When this fails, FLARE leaves them alone, and the bundle could go back."""
    built = build_job("brats_unet_fedavg", tmp_path / "built", SMALL)
    overlay = built.folder / "app_client" / "custom" / "overlay.json"
    overlay.write_text('{"network_def#channels": [16, 32]}', encoding="utf-8")

    sent = rewrite_as_flare_does(built.folder, tmp_path / "sent")

    rewritten = (sent / "app_client" / "custom" / "overlay.json").read_text(encoding="utf-8")
    assert "network_def#channels" not in json.loads(rewritten)
