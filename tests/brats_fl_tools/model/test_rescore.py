"""``brats-fl evaluate --rescore``: masks of somebody else's making, scored, or refused before anything is written."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import typer
from numpy.typing import NDArray
from tests.tiny_sites import AFFINE, SHAPE, make_tiny_sites

from brats_fl.cases.datalists import read_datalist, write_datalist
from brats_fl.errors import CaseError, DataListError, FolderError, RunError
from brats_fl_tools.model.evaluate import evaluate
from brats_fl_tools.model.evaluation_folder import sites_with_cases
from brats_fl_tools.model.rescore import rescore_masks
from brats_fl_tools.report import write_report

FIRST, SECOND, THIRD = "hospital-1-case-001", "hospital-1-case-002", "hospital-2-case-001"


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two test cases in the one hospital, one in the other."""
    return make_tiny_sites(tmp_path_factory.mktemp("sites"), {"hospital-1": (0, 0, 2), "hospital-2": (0, 0, 1)})


@pytest.fixture
def masks(sites: Path, tmp_path: Path) -> Path:
    """The three labels as masks, named in three ways."""
    folder = tmp_path / "masks"
    save(label_of(sites, FIRST), folder / f"{FIRST}.nii.gz")
    save(label_of(sites, SECOND), folder / f"{SECOND}_seg.nii.gz")
    save(label_of(sites, THIRD), folder / "hospital-2" / f"{THIRD}_seg.nii")
    return folder


def label_of(sites: Path, case: str) -> NDArray[np.int16]:
    return np.asanyarray(nib.load(sites / case[:10] / case / f"{case}_seg.nii.gz").dataobj)


def save(voxels: NDArray[np.int16], path: Path, affine: NDArray[np.float64] = AFFINE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(voxels, affine), path)


def rows_of(folder: Path) -> dict[tuple[str, str], dict[str, str]]:
    with (folder / "evaluation.csv").open(newline="") as file:
        return {(row["case"], row["region"]): row for row in csv.DictReader(file)}


def test_masks_are_found_by_hospital_and_case_and_scored_as_a_models_are(sites: Path, masks: Path, tmp_path: Path):
    cut = label_of(sites, FIRST).copy()
    cut[cut == 4] = 1  # no enhancing tumour: all of it is core
    save(cut, masks / f"{FIRST}.nii.gz")

    rescore_masks(masks, sites, tmp_path / "out")

    rows = rows_of(tmp_path / "out")
    assert [case for case, region in rows if region == "tc"] == [FIRST, SECOND, THIRD]
    assert (rows[FIRST, "et"]["dice"], rows[FIRST, "et"]["hd95_mm"]) == ("0.00000", "373.130")
    assert (rows[FIRST, "et"]["sensitivity"], rows[FIRST, "et"]["lesions_missed"]) == ("0.00000", "1")
    others = [row for (case, region), row in rows.items() if (case, region) != (FIRST, "et")]
    assert {(row["dice"], row["hd95_mm"], row["nsd_1mm"], row["lesion_dice"]) for row in others} == {
        ("1.00000", "0.000", "1.00000", "1.00000")
    }
    assert (rows[FIRST, "wt"]["site"], rows[THIRD, "wt"]["site"]) == ("hospital-1", "hospital-2")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"evaluation.csv", "evaluation.json"}


def test_case_that_two_hospitals_list_counts_twice_which_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    sites = make_tiny_sites(tmp_path / "sites", {"hospital-1": (0, 0, 1), "hospital-2": (0, 0, 1)})
    first, second = (read_datalist(sites / f"hospital-{number}" / "datalist.json") for number in (1, 2))
    write_datalist(sites / "hospital-2" / "datalist.json", replace(second, testing=second.testing + first.testing))

    sites_with_cases(sites, "testing")

    assert capsys.readouterr().err == (
        f"note: hospital-2/{FIRST} has scans of hospital-1/{FIRST}, so that one case counts twice; keep one of them\n"
    )


def test_scan_that_has_moved_is_told_before_a_model_works_and_does_not_matter_where_masks_are_scored(tmp_path: Path):
    sites = make_tiny_sites(tmp_path / "sites", {"hospital-1": (0, 0, 2)})
    moved = Path(read_datalist(sites / "hospital-1" / "datalist.json").testing[1].image[0])
    moved.unlink()

    with pytest.raises(DataListError, match=rf"^1 of 10 files .* the first is {moved} of hospital-1/{SECOND}; put"):
        sites_with_cases(sites, "testing")
    assert sites_with_cases(sites, "testing", scans=False) == {"hospital-1": 2}


def test_sites_that_are_none_and_an_out_that_is_a_file_are_refused_before_anything_is_scored(
    sites: Path, masks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "notes").write_text("mine")

    with pytest.raises(FolderError, match="notes: is a file; --out names a folder"):
        rescore_masks(masks, sites, tmp_path / "notes")
    with pytest.raises(
        DataListError, match=r"hospital-1: holds no SITE/datalist\.json; --sites names a folder of sites"
    ):
        rescore_masks(masks, sites / "hospital-1", tmp_path / "out")
    with pytest.raises(DataListError, match="nowhere: is no folder; --sites names a folder of sites"):
        rescore_masks(masks, tmp_path / "nowhere", tmp_path / "out")
    assert capsys.readouterr().out == ""


def test_record_holds_one_digest_over_all_masks(sites: Path, masks: Path, tmp_path: Path):
    def digest(out: str) -> str:
        rescore_masks(masks, sites, tmp_path / out)
        facts = json.loads((tmp_path / out / "evaluation.json").read_text())
        assert (facts["masks_dir"], facts["cases"], facts["split"]) == (str(masks), 3, "testing")
        return str(facts["masks_sha256"])

    before = digest("before")
    (masks / f"{FIRST}.nii.gz").rename(masks / f"{FIRST}_seg.nii.gz")
    assert digest("renamed") == before
    save(label_of(sites, FIRST) * 0, masks / f"{FIRST}_seg.nii.gz")
    assert digest("changed") != before


def test_report_of_given_masks_names_no_model_and_shows_them(sites: Path, masks: Path, tmp_path: Path):
    rescore_masks(masks, sites, tmp_path / "out", keep=True)

    files = write_report(tmp_path / "out")

    page = files.page.read_text()
    assert "Masks that were given were scored: who or what made them" in page
    assert "the masks reach a mean Dice of 1.000" in page
    assert "none: masks of masks, SHA-256 " in page
    assert "data:image/jpeg" in page
    assert (files.notes, json.loads(files.metrics.read_text())["overall"]["dice"]["mean"]) == ((), 1.0)


def test_masks_of_another_convention_are_read_by_it_and_kept_in_the_cases_own(sites: Path, masks: Path, tmp_path: Path):
    for path in [*masks.glob("*.nii*"), *masks.glob("*/*.nii*")]:
        voxels = np.asanyarray(nib.load(path).dataobj).copy()
        voxels[voxels == 4] = 3
        save(voxels, path)

    with pytest.raises(CaseError, match=r"its values fit brats2023.*; the masks' own convention is told by --labels"):
        rescore_masks(masks, sites, tmp_path / "out")
    rescore_masks(masks, sites, tmp_path / "out", labels="brats2023", keep=True)

    assert {row["dice"] for row in rows_of(tmp_path / "out").values()} == {"1.00000"}
    kept = nib.load(tmp_path / "out" / "masks" / "hospital-2" / f"{THIRD}_seg.nii.gz")
    np.testing.assert_array_equal(np.asanyarray(kept.dataobj), label_of(sites, THIRD))


def drop(masks: Path) -> None:
    (masks / f"{FIRST}.nii.gz").unlink()


def double(masks: Path) -> None:
    (masks / f"{FIRST}_seg.nii").write_bytes(b"")


def shift(masks: Path) -> None:
    save(np.zeros(SHAPE, np.int16), masks / f"{FIRST}.nii.gz", AFFINE + np.eye(4)[:, [1, 2, 3, 0]])


def crop(masks: Path) -> None:
    save(np.zeros((40, 48, 38), np.int16), masks / f"{FIRST}.nii.gz")


def mislabel(masks: Path) -> None:
    save(np.full(SHAPE, 7, np.int16), masks / f"{FIRST}.nii.gz")


def truncate(masks: Path) -> None:
    path = masks / f"{FIRST}.nii.gz"
    path.write_bytes(path.read_bytes()[:500])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (drop, rf"{FIRST} of hospital-1 has no mask: neither {FIRST}_seg.nii.gz nor {FIRST}.nii.gz"),
        (double, rf"{FIRST} of hospital-1 has 2 masks: .*{FIRST}_seg.nii, .*{FIRST}.nii.gz; keep one"),
        (shift, rf"{FIRST} of hospital-1: mask: .*, label has .*{FIRST}.nii.gz.*must share one grid"),
        (crop, r"mask: shape 40 x 48 x 38, label has 40 x 48 x 40 .*resample"),
        (mislabel, rf"{FIRST} of hospital-1: mask: label holds 7 in 76,800 voxels; the convention brats2018-2021"),
        (truncate, rf"{FIRST} of hospital-1: .*{FIRST}.nii.gz is cut short"),
    ],
)
def test_mask_that_cannot_be_used_is_named_with_rule_and_mend_and_nothing_is_written(
    spoil: Callable[[Path], None], message: str, sites: Path, masks: Path, tmp_path: Path
):
    spoil(masks)

    with pytest.raises(CaseError, match=message):
        rescore_masks(masks, sites, tmp_path / "out", keep=True)

    assert not (tmp_path / "out").exists()


def test_all_masks_that_cannot_be_used_are_told_at_once(sites: Path, masks: Path, tmp_path: Path):
    mislabel(masks)
    save(np.full(SHAPE, 9, np.int16), masks / f"{SECOND}_seg.nii.gz")

    with pytest.raises(CaseError) as caught:
        rescore_masks(masks, sites, tmp_path / "out")

    assert f"{FIRST} of hospital-1: mask: label holds 7" in str(caught.value)
    assert f"{SECOND} of hospital-1: mask: label holds 9" in str(caught.value)


def test_earlier_evaluation_outlives_masks_that_cannot_be_used(sites: Path, masks: Path, tmp_path: Path):
    rescore_masks(masks, sites, tmp_path / "out", keep=True)
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    mislabel(masks)

    with pytest.raises(CaseError):
        rescore_masks(masks, sites, tmp_path / "out", keep=True, force=True)

    assert {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()} == before


def test_mask_that_two_hospitals_cases_of_one_name_would_share_is_refused(tmp_path: Path):
    sites = make_tiny_sites(tmp_path / "sites", {"hospital-1": (0, 0, 1), "hospital-2": (0, 0, 1)})
    other = sites / "hospital-2" / "datalist.json"
    other.write_text(other.read_text().replace(f'"case": "{THIRD}"', f'"case": "{FIRST}"'))
    save(label_of(sites, FIRST), tmp_path / "masks" / f"{FIRST}.nii.gz")

    with pytest.raises(CaseError, match=rf"{FIRST}.nii.gz is the mask of 2 cases; put it in SITE/"):
        rescore_masks(tmp_path / "masks", sites, tmp_path / "out")


def test_file_of_no_case_is_left_alone_and_told_of(
    sites: Path, masks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (masks / "somebody-else.nii.gz").write_bytes(b"")

    rescore_masks(masks, sites, tmp_path / "out")

    assert "note: 1 files of" in capsys.readouterr().err


def test_masks_are_not_scored_into_the_folder_of_a_run(sites: Path, masks: Path, tmp_path: Path):
    (tmp_path / "run.json").write_text("{}")

    with pytest.raises(RunError, match="is a run's folder, whose table is of its own model; choose another --out"):
        rescore_masks(masks, sites, tmp_path)


def test_folder_of_masks_that_is_not_there_is_named(sites: Path, tmp_path: Path):
    with pytest.raises(FolderError, match=r"masks: is no folder; --rescore names a folder with"):
        rescore_masks(tmp_path / "masks", sites, tmp_path / "out")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "give BUNDLE and --model, or --rescore MASKS"),
        ({"bundle": [Path("b")]}, "give BUNDLE and --model, or --rescore MASKS"),
        ({"rescore": Path("m"), "model": [Path("b")]}, "have no meaning"),
        ({"rescore": Path("m"), "labels": "brats1999"}, "--labels must be one of brats2018-2021, brats2023, "),
        ({"bundle": [Path("b")], "model": [Path("m")], "labels": "brats2023"}, "--labels is of the masks of"),
    ],
)
def test_model_and_masks_together_or_neither_are_wrong_usage(options: dict, message: str, tmp_path: Path):
    with pytest.raises(typer.BadParameter, match=message):
        evaluate(tmp_path, tmp_path, **options)
