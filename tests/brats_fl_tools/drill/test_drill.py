"""What can be said of the drill without a federation; tests/integration/test_drill.py runs it."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest
import typer

from brats_fl.cases.datalists import Case, DataList, read_datalist, write_datalist
from brats_fl.errors import FolderError, RunError
from brats_fl_tools.drill import command, drill
from brats_fl_tools.drill.faults import FAULTS, network
from brats_fl_tools.drill.hosts import Hosts
from brats_fl_tools.drill.houses import copy_cases

PAGE = Path(__file__).parents[3] / "docs" / "drill.md"


def test_page_lists_every_fault_and_what_should_happen():
    table = PAGE.read_text(encoding="utf-8").split("\n## ")[0]
    rows = re.findall(r"^\| `([\w-]+)` \| .* \| (.*) \|$", table, flags=re.MULTILINE)

    assert dict(rows) == {name: fault.expected for name, fault in FAULTS.items()}


def test_everything_that_can_be_done_to_a_link_is_done_by_a_fault():
    looked_up = {"namespace", "address", "files", "command"}
    done_to_a_link = {name for name in vars(Hosts) if not name.startswith("_")} - looked_up

    assert done_to_a_link == {"cut", "join", "throttled", "lossy"}
    assert [name for name in done_to_a_link if f".hosts.{name}(" not in inspect.getsource(network)] == []


def test_unknown_fault_is_wrong_usage_and_names_the_known_ones(tmp_path):
    with pytest.raises(
        typer.BadParameter,
        match="no fault 'meteorite'; there are nothing-attention-unet, nothing-dynunet, nothing-unet, ",
    ):
        drill(tmp_path / "out", only=["meteorite"])


def test_machine_that_cannot_make_hosts_is_told_why(tmp_path, monkeypatch):
    monkeypatch.setattr("brats_fl_tools.drill.hosts.why_no_hosts", lambda: "network namespaces need root")

    with pytest.raises(RunError, match="no drill on this machine: network namespaces need root"):
        drill(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_folder_that_is_no_drill_is_kept_even_with_force(tmp_path, monkeypatch):
    monkeypatch.setattr("brats_fl_tools.drill.hosts.why_no_hosts", lambda: None)
    (tmp_path / "thesis.txt").write_text("mine", encoding="utf-8")

    with pytest.raises(FolderError, match="no drill of brats-fl's"):
        drill(tmp_path, force=True)
    assert (tmp_path / "thesis.txt").is_file()


def test_hosts_whose_disks_are_filled_have_a_small_one():
    assert set(command.DISK_MB) == {"hospital-5", "server"}


def test_cases_are_copied_with_the_numbers_of_their_volumes(tmp_path):
    for name in ("all.nii.gz", "seg.nii"):
        (tmp_path / name).write_bytes(b"voxels")
    case = Case("a", "a", tuple(f"{tmp_path}/all.nii.gz#{k}" for k in (2, 1, 3, 0)), f"{tmp_path}/seg.nii")
    write_datalist(tmp_path / "datalist.json", DataList("hospital-1", training=(case,)))

    copy_cases(tmp_path / "datalist.json", tmp_path / "host")

    (copied,) = read_datalist(tmp_path / "host" / "datalist.json").training
    assert copied.image == tuple(f"{tmp_path}/host/a/all.nii.gz#{k}" for k in (2, 1, 3, 0))
    assert copied.label == f"{tmp_path}/host/a/seg.nii"
    assert sorted(path.name for path in (tmp_path / "host" / "a").iterdir()) == ["all.nii.gz", "seg.nii"]


@pytest.mark.parametrize(
    ("passed", "skipped", "word"), [(True, False, "passed"), (False, False, "FAILED"), (True, True, "skipped")]
)
def test_fault_that_this_machine_cannot_make_is_neither_passed_nor_failed(passed, skipped, word):
    assert command.Result("lossy-link", "", "", passed, 0.0, skipped).word == word
