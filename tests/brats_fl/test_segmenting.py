"""The bundles' inference: a bad case costs no other, a rerun goes on, and no file of somebody else is replaced."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Collection
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from tests.shared_data import SHARED, needs
from tests.tiny_sites import write_tiny_case
from tests.voxel_bundle import make_voxel_bundle, make_voxel_evaluator, voxel_weights

from brats_fl.cases.folders import FAULT, find_cases
from brats_fl.errors import FolderError, RunError, StepError
from brats_fl.scoring.mask_records import hash_weights, is_ours, read_record, record_path
from brats_fl.segmenting import SegmentingEvaluator

CASES = SHARED / "cases"


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return make_voxel_bundle(tmp_path / "voxel")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for case in ("P_001", "P_002", "P_003"):
        write_tiny_case(tmp_path / "data", case)
    return tmp_path / "data"


def evaluator_for(bundle: Path, data: Path, **settings: object) -> SegmentingEvaluator:
    return make_voxel_evaluator(bundle, data, data.parent / "masks", **settings)


def statuses(evaluator: SegmentingEvaluator) -> dict[str, str]:
    return {outcome.case: outcome.status for outcome in evaluator.outcomes}


def cut_short(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:5000])


# --- One case after the other, or side by side ---


def test_masks_and_their_order_are_those_of_cases_that_are_segmented_one_by_one(bundle: Path, data: Path):
    together = evaluator_for(bundle, data)
    together.run()

    alone: dict[str, bytes] = {}
    for case in ("P_001", "P_002", "P_003"):
        shutil.copytree(data / case, data.parent / "alone" / case / case)
        make_voxel_evaluator(bundle, data.parent / "alone" / case, data.parent / "by_one").run()
        alone[case] = (data.parent / "by_one" / f"{case}_seg.nii.gz").read_bytes()

    assert [outcome.case for outcome in together.outcomes] == list(alone)
    assert {case: (data.parent / "masks" / f"{case}_seg.nii.gz").read_bytes() for case in alone} == alone


# --- A bad case ---


def test_bad_cases_cost_no_other_and_are_told_at_the_end_with_step_and_file(bundle: Path, data: Path):
    cut_short(data / "P_001" / "P_001_t2.nii.gz")
    (data / "P_003" / "P_003_t1.nii.gz").rename(data / "P_003" / "P_002_t1.nii.gz")  # another patient's
    evaluator = evaluator_for(bundle, data)

    with pytest.raises(RunError) as caught:
        evaluator.run()

    assert statuses(evaluator) == {"P_001": "failed", "P_002": "written", "P_003": "failed"}
    first, *listed = str(caught.value).splitlines()
    assert first == "2 of 3 cases were not segmented"
    assert listed[0].startswith(f"P_001: reading: t2w: {data}/P_001/P_001_t2.nii.gz is cut short")
    assert listed[1].startswith("P_003: finding the files: ")
    assert "P_002_t1.nii.gz" in listed[1]
    assert sorted(path.name for path in (data.parent / "masks").iterdir()) == ["P_002_seg.json", "P_002_seg.nii.gz"]


def fail_on(evaluator: SegmentingEvaluator, failing: Collection[int], error: Exception) -> None:
    """Let some calls of the network fail, counted from 1."""
    inferer, calls = evaluator.inferer, []

    def call(*args: object, **kwargs: object) -> torch.Tensor:
        calls.append(1)
        if len(calls) in failing:
            raise error
        return inferer(*args, **kwargs)

    evaluator.inferer = call


def test_case_for_which_memory_ran_out_beside_another_is_segmented_alone(bundle: Path, data: Path):
    evaluator = evaluator_for(bundle, data)
    fail_on(evaluator, {2}, MemoryError())

    evaluator.run()

    assert set(statuses(evaluator).values()) == {"written"}


def test_case_on_which_the_network_fails_costs_no_other(bundle: Path, data: Path):
    evaluator = evaluator_for(bundle, data)
    fail_on(evaluator, {2, 3}, MemoryError())  # beside P_001, and alone

    with pytest.raises(RunError, match=r"P_002: segmenting: memory ran out; .*P_002_t1ce\.nii\.gz"):
        evaluator.run()

    assert statuses(evaluator) == {"P_001": "written", "P_002": "failed", "P_003": "written"}


def test_full_disk_ends_the_run_with_the_case_as_no_other_would_get_its_mask(
    bundle: Path, data: Path, monkeypatch: pytest.MonkeyPatch
):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(nib, "save", full)
    evaluator = evaluator_for(bundle, data)

    with pytest.raises(StepError, match=r"P_001: writing the mask: the disk is full \(.*P_001_seg\.nii\.gz\); free"):
        evaluator.run()

    assert evaluator.outcomes == []


# --- What is there already ---


def test_rerun_leaves_what_is_done_and_segments_the_rest(bundle: Path, data: Path):
    late = data / "P_003"
    late.rename(data.parent / "P_003")
    evaluator_for(bundle, data).run()
    (data.parent / "P_003").rename(late)
    before = {path.name: path.stat().st_mtime_ns for path in (data.parent / "masks").iterdir()}
    evaluator = evaluator_for(bundle, data)

    evaluator.run()

    assert statuses(evaluator) == {"P_001": "done", "P_002": "done", "P_003": "written"}
    after = {path.name: path.stat().st_mtime_ns for path in (data.parent / "masks").iterdir()}
    assert before.items() <= after.items()


def test_experts_label_is_never_replaced_and_nothing_is_written_beside_it(bundle: Path, data: Path):
    label = data / "P_001" / "P_001_seg.nii.gz"
    before = label.read_bytes()
    evaluator = make_voxel_evaluator(bundle, data / "P_001", data / "P_001")
    evaluator.replace = True  # not even so

    with pytest.raises(FolderError, match=r"P_001_seg\.nii\.gz was not written by brats-fl, or was changed since"):
        evaluator.run()

    assert label.read_bytes() == before
    assert len(list(label.parent.iterdir())) == 5


def test_file_at_the_place_of_a_record_is_not_replaced_either(bundle: Path, data: Path):
    sidecar = data.parent / "masks" / "P_002_seg.json"
    sidecar.parent.mkdir()
    sidecar.write_text('{"Rater": "Dr A"}')

    with pytest.raises(FolderError, match=r"P_002_seg\.json was not written by brats-fl"):
        evaluator_for(bundle, data).run()

    assert [path.name for path in sidecar.parent.iterdir()] == ["P_002_seg.json"]


def change_weights(evaluator: SegmentingEvaluator, data: Path) -> None:
    evaluator.network.load_state_dict(voxel_weights(bias=-11.0))


def change_settings(evaluator: SegmentingEvaluator, data: Path) -> None:
    evaluator.inferer.overlap = 0.25


def change_a_scan(evaluator: SegmentingEvaluator, data: Path) -> None:
    shutil.copy(data / "P_002" / "P_002_t2.nii.gz", data / "P_001" / "P_001_t2.nii.gz")


@pytest.mark.parametrize("change", [change_weights, change_settings, change_a_scan])
def test_mask_made_of_something_else_is_in_the_way_unless_it_may_be_made_anew(
    bundle: Path, data: Path, change: Callable[[SegmentingEvaluator, Path], None]
):
    shutil.rmtree(data / "P_003")
    evaluator_for(bundle, data).run()
    evaluator = evaluator_for(bundle, data)
    change(evaluator, data)

    with pytest.raises(FolderError, match=r"P_001_seg\.nii\.gz was made by another model, of other scans or"):
        evaluator.run()
    evaluator.replace = True
    evaluator.run()

    assert statuses(evaluator)["P_001"] == "written"
    assert is_ours(data.parent / "masks" / "P_001_seg.nii.gz")


def test_mask_that_somebody_corrected_is_not_taken_for_ours(bundle: Path, data: Path):
    evaluator_for(bundle, data).run()
    mask = data.parent / "masks" / "P_002_seg.nii.gz"
    corrected = nib.load(mask)
    nib.save(nib.Nifti1Image(np.zeros(corrected.shape, np.uint8), corrected.affine), mask)

    with pytest.raises(FolderError, match=r"P_002_seg\.nii\.gz was not written by brats-fl, or was changed since"):
        evaluator_for(bundle, data).run()


def test_record_says_what_made_the_mask(bundle: Path, data: Path):
    evaluator = evaluator_for(bundle, data)
    evaluator.run()

    record = read_record(data.parent / "masks" / "P_001_seg.nii.gz")
    assert record is not None
    assert record.maker.weights_sha256 == hash_weights(evaluator.network)
    assert record_path(Path("x/P_001_seg.nii.gz")) == Path("x/P_001_seg.json")


def test_batches_of_several_cases_are_refused(bundle: Path, data: Path):
    with pytest.raises(RuntimeError) as caught:
        evaluator_for(bundle, data, **{"dataloader#batch_size": 2})

    assert "batch_size must be 1, so that a case fails alone (got 2)" in str(caught.value.__cause__)


# --- Inputs that were handled wrongly once ---


def run_shared(bundle: Path, tmp_path: Path, name: str) -> str:
    """What a run on a copy of a shared input says where it fails."""
    shutil.copytree(CASES / name / "data", tmp_path / "data")
    with pytest.raises(RunError) as caught:
        evaluator_for(bundle, tmp_path / "data").run()
    return str(caught.value)


@needs(CASES / "batch-one-bad")
def test_shared_batch_with_a_case_cut_short_gives_the_mask_of_the_other(bundle: Path, tmp_path: Path):
    said = run_shared(bundle, tmp_path, "batch-one-bad")

    assert said.startswith("1 of 2 cases were not segmented\nP_001: reading: t1c: ")
    assert (tmp_path / "masks" / "P_002_seg.nii.gz").is_file()


@needs(CASES / "inference-overwrites-label")
def test_shared_label_survives_masks_beside_it(bundle: Path, tmp_path: Path):
    shutil.copytree(CASES / "inference-overwrites-label" / "data", tmp_path / "data")
    case = tmp_path / "data" / "P_001"
    before = (case / "P_001_seg.nii.gz").read_bytes()

    with pytest.raises(FolderError, match="P_001_seg"):
        make_voxel_evaluator(bundle, case, case).run()

    assert (case / "P_001_seg.nii.gz").read_bytes() == before


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("mixed-patients-inference", "P_001: finding the files: .*P_002_t1.nii.gz is not named after its folder"),
        ("background-not-zero", "P_001: reading: t2f: G31-not-stripped: around the brain is 12, not 0"),
        ("rgb-scan", "P_001: reading: t1c: .*P_001_t1ce.nii.gz holds RGB values, not one real number a voxel"),
    ],
)
@needs(CASES / "rgb-scan")
def test_shared_case_that_must_not_be_segmented_is_not(bundle: Path, tmp_path: Path, name: str, said: str):
    assert re.search(said, run_shared(bundle, tmp_path, name))
    assert not (tmp_path / "masks").exists()


def test_hidden_folders_and_those_that_archives_add_hold_no_case(data: Path):
    for name in (".snapshot", "__MACOSX"):
        shutil.copytree(data / "P_001", data / name / "P_009")

    assert [item["case"] for item in find_cases(data)] == ["P_001", "P_002", "P_003"]


def test_case_that_lacks_a_scan_is_an_item_that_says_so(data: Path):
    (data / "P_002" / "P_002_t2.nii.gz").unlink()

    items = find_cases(data)

    assert [item["case"] for item in items] == ["P_001", "P_002", "P_003"]
    assert "t2w is missing" in items[1][FAULT]
