"""MSD Task01 from the download to a cached training item: one 4-D file a case all the way."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
import typer
from monai.transforms import CastToTyped, Compose
from tests.tiny_sites import save, write_tiny_case
from typer.testing import CliRunner

from brats_fl.cases import transforms
from brats_fl.cases.cache import CaseCache
from brats_fl.cases.datalists import load_split
from brats_fl.errors import CaseError
from brats_fl_tools.data.case_table import read_case_table
from brats_fl_tools.data.import_cases import import_, import_cases
from brats_fl_tools.partition.command import partition

DATASET: dict[str, Any] = {
    "name": "BRATS",
    "modality": {"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w"},
    "labels": {"0": "background", "1": "edema", "2": "non-enhancing tumor", "3": "enhancing tumour"},
}
ORDER = (3, 1, 0, 2)  # flair, t1, t1ce, t2 among t1c, t1n, t2w, t2f
VALUES = {0: 0, 1: 2, 2: 1, 4: 3}
"""Label value of BraTS 2020 -> of MSD Task01."""


def make_task(folder: Path, cases: int, unlabelled: int = 0, **dataset: Any) -> Path:
    """A download of MSD Task01; the same cases lie beside it in BraTS 2020's layout."""
    for name in ("imagesTr", "labelsTr", "imagesTs"):
        (folder / name).mkdir(parents=True)
    for n in range(1, cases + unlabelled + 1):
        case = write_tiny_case(folder.parent / "brats", f"BRATS_{n:03}")
        scans = [np.asarray(nibabel.load(case.image[k]).dataobj) for k in ORDER]
        images = folder / ("imagesTr" if n <= cases else "imagesTs")
        save(np.stack(scans, axis=3), images / f"{case.case}.nii.gz")
        if n <= cases:
            label = np.asarray(nibabel.load(str(case.label)).dataobj)
            changed = np.select([label == value for value in VALUES], list(VALUES.values()))
            save(changed.astype(np.int16), folder / "labelsTr" / f"{case.case}.nii.gz")
    (folder / "imagesTr" / "._BRATS_001.nii.gz").write_bytes(b"a Mac's shadow, which the real download has")
    (folder / "dataset.json").write_text(json.dumps({**DATASET, **dataset}))
    return folder


def run(command: Any, *arguments: object) -> None:
    app = typer.Typer()
    app.command()(command)
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output


def chain() -> Compose:
    steps = [
        transforms.LoadCased(),
        transforms.TumourVoxelsd(),
        CastToTyped(["image", "label"], dtype=[torch.float16, torch.uint8]),
        transforms.UncachedBoundaryd(),
    ]
    return Compose(steps)


def test_cached_training_item_is_that_of_the_same_case_in_four_files(tmp_path: Path) -> None:
    task = make_task(tmp_path / "Task01_BrainTumour", cases=3, unlabelled=1)
    run(import_, task, "--out", tmp_path / "cases.csv")
    run(partition, tmp_path / "cases.csv", "--strategy", "even", "--sites", 1, "--out", tmp_path / "sites")

    items = load_split(tmp_path / "sites" / "hospital-1" / "datalist.json", "training")
    dataset = CaseCache(items, chain(), tmp_path / "cache")
    first, cached = dataset[0], dataset[0]

    names = [Path(scan).name for scan in items[0]["image"]]
    assert names == [f"{items[0]['case']}.nii.gz#{k}" for k in (2, 1, 3, 0)]
    case = tmp_path / "brats" / items[0]["case"]
    files = [str(case / f"{case.name}_{name}.nii.gz") for name in ("t1ce", "t1", "t2", "flair", "seg")]
    same = {"case": case.name, "image": files[:4], "label": files[4], "labels": "brats2018-2021"}
    expected = CaseCache([same], chain(), None)[0]
    for key in ("image", "label", "tumour_voxels"):
        assert torch.equal(torch.as_tensor(first[key]), torch.as_tensor(expected[key]))
        assert torch.equal(torch.as_tensor(cached[key]), torch.as_tensor(expected[key]))


def test_table_names_volumes_and_convention_and_survives_being_read(tmp_path: Path) -> None:
    task = make_task(tmp_path / "Task01_BrainTumour", cases=1, unlabelled=1)

    run(import_, task, "--out", tmp_path / "cases.csv")

    labelled, unlabelled = read_case_table(tmp_path / "cases.csv")
    images = task / "imagesTr" / "BRATS_001.nii.gz"
    assert labelled.image == tuple(Path(f"{images}#{k}") for k in (2, 1, 3, 0))
    assert (labelled.labels, unlabelled.labels) == ("msd-task01", "msd-task01")
    assert unlabelled.label is None
    assert labelled.shape == (40, 48, 40)
    assert labelled.spacing_mm == (2.0, 2.0, 2.0)


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        ({"modality": {"0": "FLAIR", "1": "T1w", "2": "t1gd"}}, "modality must name t1gd, t1w, t2w, flair, each once"),
        ({"modality": {"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "ADC"}}, r"\(got flair, t1w, t1gd, adc\)"),
        ({"labels": {"0": "background", "1": "tumour"}}, "labels must be 0 background, 1 edema, .*got 0 backgr"),
        ({"modality": None}, "modality must be an object"),
    ],
)
def test_dataset_json_of_another_order_or_task_is_refused(tmp_path: Path, dataset: Any, message: str) -> None:
    make_task(tmp_path / "Task", cases=0, **dataset)

    with pytest.raises(CaseError, match=message):
        import_cases(tmp_path / "Task")


def test_volumes_in_another_order_are_read_by_dataset_json(tmp_path: Path) -> None:
    modality = {"0": "T2w", "1": "t1gd", "2": "FLAIR", "3": "T1w"}
    make_task(tmp_path / "Task", cases=1, modality=modality)

    (row,) = import_cases(tmp_path / "Task").rows

    assert [scan.name[-2:] for scan in row.image] == ["#1", "#3", "#0", "#2"]


def test_training_case_without_its_label_is_a_fault(tmp_path: Path) -> None:
    task = make_task(tmp_path / "Task", cases=1)
    (task / "labelsTr" / "BRATS_001.nii.gz").unlink()

    (fault,) = import_cases(task).faults

    assert "labelsTr/BRATS_001.nii.gz is missing; restore it, or move the case to imagesTs" in str(fault)


def test_file_of_three_volumes_is_a_fault(tmp_path: Path) -> None:
    task = make_task(tmp_path / "Task", cases=1)
    file = task / "imagesTr" / "BRATS_001.nii.gz"
    save(np.asarray(nibabel.load(file).dataobj)[..., :3], file)

    (fault,) = import_cases(task).faults

    assert "BRATS_001.nii.gz has the volumes #0 to #2, and #3 is named" in str(fault)
