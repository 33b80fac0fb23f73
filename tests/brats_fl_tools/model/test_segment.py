"""``brats-fl segment``: what is written, what is skipped, what is told."""

from __future__ import annotations

import csv
import json
import shutil
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
import typer
from tests.tiny_sites import write_tiny_case
from tests.voxel_bundle import make_voxel_bundle, make_voxel_evaluator, voxel_weights
from typer.testing import CliRunner

from brats_fl.cases.datalists import DataList, write_datalist
from brats_fl.errors import BratsFLError, CaseError, FolderError, ModelError, RunError
from brats_fl.gate.acceptance import Acceptance, write_acceptances
from brats_fl_tools.model.segment import Progress, segment
from brats_fl_tools.model.volumes import COLUMNS
from brats_fl_tools.repository import BUNDLES
from brats_fl_tools.runs.processes import Interrupted

needs_onnx = pytest.mark.skipif(find_spec("onnxruntime") is None, reason="onnxruntime is not installed: extra onnx")

app = typer.Typer()
app.command()(segment)


def run(*arguments: str | Path) -> list[str]:
    """Lines of standard output; an error of ours is raised as it is."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0
    return result.stdout.splitlines()


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return make_voxel_bundle(tmp_path / "voxel")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two cases without labels."""
    for case in ("P_001", "P_002"):
        write_tiny_case(tmp_path / "data", case)
        (tmp_path / "data" / case / f"{case}_seg.nii.gz").rename(tmp_path / f"{case}_seg.nii.gz")
    return tmp_path / "data"


def table(out: Path) -> list[dict[str, str]]:
    with (out / "volumes.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_every_case_gets_a_mask_on_its_grid_and_a_row_of_its_volumes(bundle: Path, data: Path, tmp_path: Path):
    out = tmp_path / "masks"

    lines = run(bundle, data, "--out", out)

    assert lines[0].endswith("voxel, profile full; 2 cases")
    progress = [line for line in lines if "case=" in line]
    assert [line.split(" wt_ml=")[0] for line in progress] == ["1/2 case=P_001 written", "2/2 case=P_002 written"]
    assert progress[-1].endswith(" left=0 s")
    rows = table(out)
    assert tuple(rows[0]) == COLUMNS
    for row in rows:
        mask = nib.load(out / f"{row['case']}_seg.nii.gz")
        scan = nib.load(data / row["case"] / f"{row['case']}_t1ce.nii.gz")
        np.testing.assert_allclose(mask.affine, scan.affine)
        values = np.asanyarray(mask.dataobj)
        assert set(np.unique(values)) == {0, 2, 4}  # the network takes all of the core for enhancing tumour
        assert float(row["et_ml"]) == float(row["tc_ml"]) == pytest.approx(np.sum(values == 4) * 0.008)  # 8 mm³
        assert float(row["wt_ml"]) == pytest.approx(np.sum(values > 0) * 0.008)
        assert float(row["ed_ml"]) == pytest.approx(float(row["wt_ml"]) - float(row["tc_ml"]))
        assert float(row["ncr_ml"]) == 0
        assert "G32-brain-cut-off" in row["findings"]  # the tiny brains are smaller than a baby's
        truth = np.asanyarray(nib.load(tmp_path / f"{row['case']}_seg.nii.gz").dataobj) == 4
        assert 2 * np.sum((values == 4) & truth) / (np.sum(values == 4) + truth.sum()) > 0.9


def test_case_that_the_gate_refuses_is_listed_with_rule_file_and_mend_and_costs_no_other(
    bundle: Path, data: Path, tmp_path: Path
):
    bad = data / "P_001" / "P_001_flair.nii.gz"
    scan = nib.load(bad)
    nib.save(nib.Nifti1Image(np.asanyarray(scan.dataobj) + 12, scan.affine), bad)

    with pytest.raises(RunError) as caught:
        run(bundle, data, "--out", tmp_path / "masks")

    first, listed = str(caught.value).splitlines()
    assert first == "1 of 2 cases were not segmented"
    assert listed.startswith("P_001: data gate: t2f: G31-not-stripped: around the brain is 12, not 0")
    assert f"({bad}); strip the skull" in listed
    bad_row, good_row = table(tmp_path / "masks")
    assert (bad_row["status"], bad_row["failed_at"], bad_row["wt_ml"]) == ("failed", "data gate", "")
    assert good_row["status"] == "written"
    page = (tmp_path / "masks" / "segment.html").read_text(encoding="utf-8")
    assert "1 of 2 cases could not be segmented" in page
    assert "G31-not-stripped" in page


def test_second_run_leaves_what_is_done_and_shows_it_with_its_warnings(bundle: Path, data: Path, tmp_path: Path):
    out = tmp_path / "masks"
    run(bundle, data, "--out", out)
    first = table(out)

    lines = run(bundle, data, "--out", out)

    assert [line.split(" wt_ml=")[0] for line in lines if "case=" in line] == [
        "1/2 case=P_001 done",
        "2/2 case=P_002 done",
    ]
    assert [row | {"status": "written"} for row in table(out)] == first


def test_mask_that_the_bundles_own_command_made_is_done_and_its_scans_are_judged_all_the_same(
    bundle: Path, data: Path, tmp_path: Path
):
    make_voxel_evaluator(bundle, data, tmp_path / "masks").run()

    lines = run(bundle, data, "--out", tmp_path / "masks")

    assert [line.split(" wt_ml=")[0] for line in lines if line.startswith("1/2")] == ["1/2 case=P_001 done"]
    assert all("G32-brain-cut-off" in row["findings"] for row in table(tmp_path / "masks"))


def test_masks_of_another_model_are_made_anew_only_with_force(bundle: Path, data: Path, tmp_path: Path):
    run(bundle, data, "--out", tmp_path / "masks")
    torch.save(voxel_weights(bias=-8.0), bundle / "models" / "model.pt")

    with pytest.raises(FolderError, match="was made by another model, of other scans or with other settings"):
        run(bundle, data, "--out", tmp_path / "masks")

    assert any("P_001 written" in line for line in run(bundle, data, "--out", tmp_path / "masks", "--force"))


def test_label_and_table_of_somebody_else_are_not_replaced(bundle: Path, data: Path, tmp_path: Path):
    shutil.copy(tmp_path / "P_001_seg.nii.gz", data / "P_001")
    before = (data / "P_001" / "P_001_seg.nii.gz").read_bytes()
    with pytest.raises(FolderError, match=r"P_001_seg\.nii\.gz was not written by brats-fl"):
        run(bundle, data, "--out", data / "P_001", "--force")
    assert (data / "P_001" / "P_001_seg.nii.gz").read_bytes() == before

    (tmp_path / "masks").mkdir()
    (tmp_path / "masks" / "volumes.csv").write_text("mine")
    with pytest.raises(FolderError, match=r"volumes\.csv was not written by `brats-fl segment`"):
        run(bundle, data, "--out", tmp_path / "masks")
    assert (tmp_path / "masks" / "volumes.csv").read_text() == "mine"


def test_label_that_is_wrong_does_not_keep_the_scans_from_being_segmented(bundle: Path, data: Path, tmp_path: Path):
    (data / "P_001" / "P_001_seg.nii.gz").write_bytes(b"no label")

    run(bundle, data, "--out", tmp_path / "masks")

    assert [row["status"] for row in table(tmp_path / "masks")] == ["written", "written"]


def test_what_was_accepted_of_a_data_list_is_segmented_and_shown(bundle: Path, tmp_path: Path):
    case = write_tiny_case(tmp_path, "P_001")
    shifted = nib.load(case.image[3])
    nib.save(nib.Nifti1Image(np.roll(np.asanyarray(shifted.dataobj), 6, axis=0), shifted.affine), case.image[3])
    path = tmp_path / "datalist.json"
    write_datalist(path, DataList("hospital-1", testing=(case,)))
    with pytest.raises(RunError) as caught:
        run(bundle, path, "--out", tmp_path / "masks")
    said = str(caught.value)
    assert "t2f: G33-brains-differ: " in said
    found = said.partition("G33-brains-differ: ")[2].partition(" (/")[0]
    write_acceptances(path, [Acceptance("G33-brains-differ", "P_001", "t2f", found, "Dr A", "2026-02-01")])

    lines = run(bundle, path, "--out", tmp_path / "masks")

    assert any("G33-brains-differ" in line and "accepted by Dr A on 2026-02-01" in line for line in lines)


def test_setting_of_the_bundle_is_used_and_an_unknown_one_is_refused(bundle: Path, data: Path, tmp_path: Path):
    run(bundle, data, "--out", tmp_path / "masks", "--set", "smallest_et_ml=1000")
    assert [row["et_ml"] for row in table(tmp_path / "masks")] == ["0.000", "0.000"]

    with pytest.raises(ModelError, match=r"--set mirror: voxel has no such variable; there are .*mirror_axes"):
        run(bundle, data, "--out", tmp_path / "masks", "--set", "mirror=[0]")
    with pytest.raises(ModelError, match=r"its inference cannot be made: .*smallest_wt_share must be from 0 to"):
        run(bundle, data, "--out", tmp_path / "masks", "--set", "smallest_wt_share=2")


def test_scan_of_two_cases_is_a_warning_and_two_cases_of_one_name_are_refused(bundle: Path, tmp_path: Path):
    case = write_tiny_case(tmp_path, "P_001")
    path = tmp_path / "datalist.json"
    path.write_text(json.dumps({"testing": [{"case": name, "image": case.image} for name in ("a", "b")]}))

    lines = run(bundle, path, "--out", tmp_path / "masks")

    assert any("warning: b: t1c: G13-scan-twice: P_001_t1ce.nii.gz is also listed for a" in line for line in lines)
    assert (tmp_path / "masks" / "b_seg.nii.gz").is_file()

    path.write_text(json.dumps({"testing": [{"case": "a", "image": case.image} for _ in range(2)]}))
    with pytest.raises(CaseError, match="G11-case-twice: is also in testing"):
        run(bundle, path, "--out", tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_interrupted_run_says_what_is_done_and_goes_on(
    bundle: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Progress, "describe", interrupt)
        with pytest.raises(Interrupted) as caught:
            segment(bundle, data, tmp_path / "masks")

    assert caught.value.words == "1 of 2 cases have their masks; the same command goes on"
    lines = run(bundle, data, "--out", tmp_path / "masks")
    assert [line.split(" wt_ml=")[0] for line in lines if "case=" in line] == [
        "1/2 case=P_001 done",
        "2/2 case=P_002 written",
    ]


@needs_onnx
def test_engine_gives_the_same_masks_and_their_records_name_it(bundle: Path, data: Path, tmp_path: Path):
    run(bundle, data, "--out", tmp_path / "torch")
    run(bundle, data, "--out", tmp_path / "onnx", "--engine", "onnx")

    for case in ("P_001", "P_002"):
        by_torch, by_onnx = (tmp_path / name / f"{case}_seg.nii.gz" for name in ("torch", "onnx"))
        assert by_torch.read_bytes() == by_onnx.read_bytes()
    assert json.loads((tmp_path / "torch" / "P_001_seg.json").read_text())["maker"]["engine"] == "torch"
    assert json.loads((tmp_path / "onnx" / "P_001_seg.json").read_text())["maker"]["engine"] == "onnx"


def test_unknown_engine_is_wrong_usage(bundle: Path, data: Path, tmp_path: Path):
    result = CliRunner().invoke(app, [str(bundle), str(data), "--out", str(tmp_path / "out"), "--engine", "tensorrt"])

    assert result.exit_code == 2
    assert not (tmp_path / "out").exists()


def test_path_with_what_monai_takes_for_a_reference_is_a_path(bundle: Path, data: Path, tmp_path: Path):
    odd = tmp_path / "lead@consortium.example" / "50% #1 $HOME"
    odd.parent.mkdir()
    shutil.move(data, odd)

    run(bundle, odd, "--out", odd.parent / "masks $1@x")

    assert (odd.parent / "masks $1@x" / "P_002_seg.nii.gz").is_file()


class Page(HTMLParser):
    """Pictures, and whether the page is whole and needs nothing from elsewhere."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.pictures: list[dict[str, str | None]] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag == "img":
            self.pictures.append(dict(attributes))
        elif tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_page_shows_each_case_with_and_without_its_mask(bundle: Path, data: Path, tmp_path: Path):
    data.joinpath("P_002").rename(data / "P<2>")
    for file in (data / "P<2>").iterdir():
        file.rename(file.with_name(file.name.replace("P_002", "P<2>")))

    run(bundle, data, "--out", tmp_path / "masks")

    text = (tmp_path / "masks" / "segment.html").read_text(encoding="utf-8")
    page = Page(text)
    assert page.open == []
    alts = [str(picture["alt"]).split(", axial")[0] for picture in page.pictures]
    kinds = ["FLAIR", "FLAIR with the mask", "T1c", "T1c with the mask"]
    assert alts == [f"{case}: {kind}" for case in ("P<2>", "P_001") for kind in kinds]
    assert all(str(picture["src"]).startswith("data:image/png;base64,") for picture in page.pictures)
    assert "must not leave the hospital" in text


def test_nothing_but_errors_of_ours_comes_of_a_folder_without_cases(bundle: Path, tmp_path: Path):
    with pytest.raises(BratsFLError, match=r"holds no SITE/datalist\.json and no case"):
        run(bundle, tmp_path / "voxel", "--out", tmp_path / "masks")


def test_uncertainty_is_written_on_request_and_where_it_is_missing(bundle: Path, data: Path, tmp_path: Path):
    out = tmp_path / "masks"

    run(bundle, data, "--out", out, "--uncertainty")

    for case in ("P_001", "P_002"):
        mask, bits = (nib.load(out / f"{case}_{name}.nii.gz") for name in ("seg", "uncertainty"))
        np.testing.assert_allclose(bits.affine, mask.affine)
        assert bits.shape == mask.shape
        assert 0.5 < bits.get_fdata().max() <= 1  # at an edge the network is undecided
    record = json.loads((out / "P_001_seg.json").read_text())
    (out / "P_001_uncertainty.nii.gz").unlink()

    lines = run(bundle, data, "--out", out, "--uncertainty")

    assert [line.split(" wt_ml=")[0] for line in lines if "case=" in line] == [
        "1/2 case=P_001 written",
        "2/2 case=P_002 done",
    ]
    assert (out / "P_001_uncertainty.nii.gz").is_file()
    assert json.loads((out / "P_001_seg.json").read_text()) == record


def test_uncertainty_of_somebody_else_ends_the_run_before_it_begins(bundle: Path, data: Path, tmp_path: Path):
    (out := tmp_path / "masks").mkdir()
    (out / "P_001_uncertainty.nii.gz").write_bytes(b"theirs")

    with pytest.raises(FolderError, match=r"P_001_uncertainty\.nii\.gz was not written by brats-fl"):
        run(bundle, data, "--out", out, "--uncertainty")

    assert not list(out.glob("*_seg.nii.gz"))


def test_scans_of_no_case_are_told_at_the_end_and_maps_of_an_earlier_run_are_none(
    bundle: Path, data: Path, tmp_path: Path
):
    for file in list((data / "P_002").iterdir()):
        file.rename(file.with_name(file.name.replace("P_002_", "T1-weighted ")))
    (data / "P_001_uncertainty.nii.gz").write_bytes(b"of an earlier run")

    done = CliRunner().invoke(app, [str(bundle), str(data), "--out", str(tmp_path / "masks")])

    assert done.exit_code == 0
    assert done.output.splitlines()[-1].startswith("warning: 4 NIfTI files belong to no case: ")


def test_out_that_is_a_file_is_told_before_the_cases_are_read(bundle: Path, data: Path, tmp_path: Path):
    (tmp_path / "notes").write_text("mine")

    with pytest.raises(FolderError, match="notes: is a file; --out names a folder"):
        run(bundle, data, "--out", tmp_path / "notes")


@pytest.mark.parametrize(
    ("value", "rule"),
    [
        ("overlap=2", "0 or more and at most 0.9"),
        ("overlap=nan", "a number"),
        ("mirror_axes=[7]", "each at most once and 0 or more and at most 2"),
        ("mirror_axes=x", "a list of whole numbers"),
        ("patch_size=3", "a list of 3 whole numbers"),
        ("spacing_mm=[0,1,1]", "a list of 3 numbers, each 0.5 or more"),
        ("save_uncertainty=2", "true or false"),
    ],
)
def test_value_of_a_variable_is_held_to_the_bundles_rule_before_a_case_is_read(
    bundle: Path, data: Path, tmp_path: Path, value: str, rule: str
):
    shutil.copy(BUNDLES / "brats_unet" / "configs" / "settings.json", bundle / "configs")

    with pytest.raises(ModelError, match=rf"--set {value.partition('=')[0]}: must be .*{rule}.* \(got "):
        run(bundle, data, "--out", tmp_path / "masks", "--set", value)

    assert not (tmp_path / "masks").exists()
