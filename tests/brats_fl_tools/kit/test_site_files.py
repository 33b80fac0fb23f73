"""``brats-fl kit setup``: a site's own files, shown before they are written, and left alone where nothing differs."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.tiny_kits import TinyKits
from typer.testing import CliRunner, Result

from brats_fl.cases.datalists import find_datalist
from brats_fl.errors import DataListError, KitError
from brats_fl_tools.cli import app
from brats_fl_tools.kit.kits import Kit
from brats_fl_tools.kit.site_files import differences, policy_names, read_policy, site_files, write_site_files


def run_setup(kit: Kit, *options: object) -> Result:
    return CliRunner().invoke(app, ["kit", "setup", str(kit.folder), *map(str, options)])


def read_local(kit: Kit, name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((kit.folder / "local" / name).read_text(encoding="utf-8"))
    return content


def tree(folder: Path) -> dict[str, bytes]:
    """Every file beneath a folder with its content."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def datalist(shared_sites: Path) -> Path:
    return shared_sites / "hospital-1" / "datalist.json"


def test_setup_shows_the_difference_and_then_writes_it(kits: TinyKits, datalist: Path) -> None:
    result = run_setup(kits.hospital, "--data-list", datalist, "--policy", "strict", "--yes")

    assert result.exit_code == 0, result.output
    assert '-  "allow_log_streaming": true,\n+  "allow_log_streaming": false,' in result.output
    assert f"datalist.json -> {datalist}" in result.output
    assert read_local(kits.hospital, "authorization.json") == read_policy("strict")["authorization"]
    assert find_datalist("hospital-1", kits.hospital.folder) == datalist


def test_kit_in_a_folder_that_flare_would_split_is_not_set_up(kits: TinyKits, datalist: Path, tmp_path: Path) -> None:
    kit = replace(kits.hospital, folder=tmp_path / "hospital-1 (1)")
    shutil.copytree(kits.hospital.folder, kit.folder)

    result = run_setup(kit, "--data-list", datalist, "--policy", "strict", "--yes")

    assert "the path of the kit holds a space" in str(result.exception)
    assert not (kit.folder / "local" / "resources.json").exists()


def test_second_setup_changes_nothing(kits: TinyKits, datalist: Path) -> None:
    options = ("--data-list", datalist, "--policy", "strict")
    run_setup(kits.hospital, *options, "--yes")
    before = tree(kits.hospital.folder)

    result = run_setup(kits.hospital, *options)

    assert (result.exit_code, result.output) == (0, "nothing to change\n")
    assert tree(kits.hospital.folder) == before


def test_other_policy_shows_only_what_it_changes(kits: TinyKits, datalist: Path) -> None:
    run_setup(kits.hospital, "--data-list", datalist, "--policy", "strict", "--yes")

    result = run_setup(kits.hospital, "--data-list", datalist, "--policy", "open", "--yes")

    changed = [line for line in result.output.splitlines() if line[:1] in "+-" and line[:3] not in ("+++", "---")]
    assert [line for line in changed if '"byoc"' in line] == ['-      "byoc": "none",', '+      "byoc": "any",']
    component = [line for line in changed if '"byoc"' not in line]
    assert [line.split('"')[1] for line in component if '"' in line] == ["id", "path", "args"]
    assert '-      "id": "app_deployer",' in component


def test_off_a_terminal_nothing_is_written_without_yes(kits: TinyKits, datalist: Path) -> None:
    before = tree(kits.hospital.folder)

    result = run_setup(kits.hospital, "--data-list", datalist, "--policy", "strict")

    assert isinstance(result.exception, KitError)
    assert "nothing was written; read the difference above, then repeat with --yes" in str(result.exception)
    assert tree(kits.hospital.folder) == before


@pytest.mark.parametrize("policy", ["strict", "open"])
def test_policies_name_what_may_load_and_switch_log_streaming_off(policy: str) -> None:
    rules = read_policy(policy)

    assert policy_names() == ["open", "strict"]
    assert rules["resources"]["class_list_enforcement_mode"] == "enforce"
    assert rules["resources"]["allow_log_streaming"] is False
    assert (rules["authorization"]["permissions"]["lead"]["byoc"] == "none") == (policy == "strict")
    assert rules["approve_jobs"] == (policy == "strict")


def test_gpus_reach_flares_resource_manager(kits: TinyKits) -> None:
    write_site_files(site_files(kits.hospital, "strict", gpus=2, gpu_memory_gib=40))

    parts = {part["id"]: part["args"] for part in read_local(kits.hospital, "resources.json")["components"]}
    assert parts["resource_manager"]["num_of_gpus"] == 2
    assert parts["resource_manager"]["mem_per_gpu_in_GiB"] == 40
    assert "site_log_streamer" not in parts


def test_server_keeps_its_jobs_in_its_own_kit(kits: TinyKits) -> None:
    server = kits.federation.server

    write_site_files(site_files(server, "strict"))

    parts = {part["id"]: part.get("args") for part in read_local(server, "resources.json")["components"]}
    assert parts["job_manager"]["uri_root"] == str(server.folder / "jobs-storage")
    assert differences(site_files(server, "strict")) == ""


def test_wrong_usage_exits_with_2(kits: TinyKits, datalist: Path) -> None:
    for options in (
        ("--data-list", datalist),  # a policy has to be chosen
        ("--data-list", datalist, "--policy", "lax"),
        ("--policy", "strict"),  # a hospital has a data list
        ("--data-list", datalist, "--policy", "strict", "--gpus", "-1"),
    ):
        assert run_setup(kits.hospital, *options).exit_code == 2


def test_kits_without_site_files_or_data_list_are_refused(kits: TinyKits, datalist: Path) -> None:
    with pytest.raises(KitError, match="this is an admin's kit; only the server and hospitals have site files"):
        site_files(kits.federation.admins[0], "strict")
    with pytest.raises(KitError, match="this is the server's kit; it has no data list"):
        site_files(kits.federation.server, "strict", datalist)
    with pytest.raises(KitError, match="no policy 'lax'; there are open, strict"):
        site_files(kits.hospital, "lax")


def test_wrong_data_list_is_refused_before_anything_is_written(kits: TinyKits, tmp_path: Path) -> None:
    before = tree(kits.hospital.folder)
    wrong = tmp_path / "list.json"

    for text in ("{", '{"training": [{"case": "a"}]}'):
        wrong.write_text(text, encoding="utf-8")
        result = run_setup(kits.hospital, "--data-list", wrong, "--policy", "strict", "--yes")
        assert isinstance(result.exception, DataListError)
        assert str(wrong) in str(result.exception)

    assert tree(kits.hospital.folder) == before


def test_data_list_that_lies_in_the_kit_itself_is_left_there(kits: TinyKits, datalist: Path) -> None:
    own = kits.hospital.folder / "local" / "datalist.json"
    own.write_text(datalist.read_text(encoding="utf-8"), encoding="utf-8")

    with pytest.raises(KitError, match="is a data list of its own, which a link would replace; move it away first"):
        site_files(kits.hospital, "strict", datalist)
    write_site_files(site_files(kits.hospital, "strict", own))

    assert not own.is_symlink()
    assert own.read_bytes() == datalist.read_bytes()


def test_damaged_default_of_flare_names_the_file(kits: TinyKits) -> None:
    (kits.hospital.folder / "local" / "resources.json.default").write_text("[]", encoding="utf-8")

    with pytest.raises(
        KitError, match=r"resources\.json\.default: must hold a JSON object \(got \[\]\); ask for the kit again"
    ):
        site_files(kits.hospital, "strict")


def test_running_kit_is_not_set_up(kits: TinyKits, datalist: Path) -> None:
    # A stand-in with the arguments that a kit's script gives to FLARE.
    arguments = ["-c", "import time; time.sleep(60)", "nvflare", "-m", str(kits.hospital.folder)]
    process = subprocess.Popen([sys.executable, *arguments])
    try:
        result = run_setup(kits.hospital, "--data-list", datalist, "--policy", "strict", "--yes")
    finally:
        process.kill()
        process.wait()

    assert isinstance(result.exception, KitError)
    assert f"hospital-1 is running (process {process.pid}); stop it, then set it up" in str(result.exception)
