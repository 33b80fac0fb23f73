"""Layouts of published data sets: what a download of each looks like, and which case it is read as."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from tests.shared_data import SHARED, needs

from brats_fl.cases.folders import find_cases
from brats_fl.cases.namings import modality_of
from brats_fl.cases.nnunet import read_convention
from brats_fl.constants import MODALITIES
from brats_fl.errors import CaseError
from brats_fl_tools.data.case_table import CaseRow
from brats_fl_tools.data.import_cases import import_cases, show_mappings

FLAT_FOLDER = SHARED / "cases" / "flat-folder" / "data"


def put(file: Path, *values: int) -> Path:
    """A scan of zeros; a label where values are given, which are its first voxels."""
    voxels = np.zeros((4, 5, 6), np.int16)
    voxels.flat[: len(values)] = values
    content = nib.Nifti1Image(voxels, np.diag([-1.0, -1.0, 1.0, 1.0])).to_bytes()
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(gzip.compress(content, 1) if file.suffix == ".gz" else content)
    return file


def put_all(folder: Path, names: Mapping[str, str], values: tuple[int, ...] = (1, 2, 4)) -> None:
    """``names`` is what each is called -> its file, without ``.nii.gz``."""
    for kind, name in names.items():
        put(folder / f"{name}.nii.gz", *(values if kind == "seg" else ()))


def only(root: Path, labels: str | None = None) -> CaseRow:
    """The one case, found by inference, too, with the same scans."""
    survey = import_cases(root, labels=labels)
    assert survey.faults == ()
    (row,) = survey.rows
    (item,) = find_cases(root)
    assert (item["case"], item["image"]) == (row.case, [str(scan) for scan in row.image])
    return row


def names_of(row: CaseRow, root: Path) -> list[str]:
    return [str(file.relative_to(root)).removesuffix(".gz") for file in (*row.image, row.label) if file]


def refusal(root: Path, **options: Any) -> str:
    with pytest.raises(CaseError) as caught:
        import_cases(root, **options)
    return str(caught.value)


# --- Many cases in one folder ---

NAMINGS: dict[str, tuple[str, dict[str, str], tuple[int, ...]]] = {
    "BraTS 2020": ("BraTS20_Training_00{}", {"t1c": "_t1ce", "t1n": "_t1", "t2w": "_t2", "t2f": "_flair"}, (1, 2, 4)),
    "BraTS-GLI": ("BraTS-GLI-0000{}-000", {name: f"-{name}" for name in MODALITIES}, (1, 2, 3)),
    "BraTS-MET": ("BraTS-MET-0000{}-000", {name: f"-{name}" for name in MODALITIES}, (1, 2, 3)),
    "BraTS-SSA": ("BraTS-SSA-0000{}-000", {name: f"-{name}" for name in MODALITIES}, (1, 2, 3)),
    "UCSF-PDGM": ("UCSF-PDGM-000{}", {"t1c": "_T1c", "t1n": "_T1", "t2w": "_T2", "t2f": "_FLAIR"}, (1, 2, 4)),
    "UPENN-GBM": ("UPENN-GBM-0000{}_11", {"t1c": "_T1GD", "t1n": "_T1", "t2w": "_T2", "t2f": "_FLAIR"}, (1, 2, 4)),
}
LABEL_ENDINGS = {"BraTS 2020": "_seg", "UCSF-PDGM": "_tumor_segmentation", "UPENN-GBM": "_segm"}


@pytest.mark.parametrize("naming", NAMINGS)
def test_cases_beside_each_other_in_one_folder_are_told_apart_by_their_names(tmp_path: Path, naming: str):
    case, endings, values = NAMINGS[naming]
    for number in (1, 2):
        names = {**endings, "seg": LABEL_ENDINGS.get(naming, "-seg")}
        put_all(tmp_path, {kind: f"{case.format(number)}{ending}" for kind, ending in names.items()}, values)
    put(tmp_path / "atlas.nii.gz")

    survey = import_cases(tmp_path)

    assert survey.faults == ()
    assert [row.case for row in survey.rows] == [case.format(1), case.format(2)]
    assert [names_of(row, tmp_path)[0] for row in survey.rows] == [
        f"{case.format(n)}{endings['t1c']}.nii" for n in (1, 2)
    ]
    assert all(row.label for row in survey.rows)
    assert survey.strangers == (tmp_path / "atlas.nii.gz",)
    assert [item["case"] for item in find_cases(tmp_path)] == [row.case for row in survey.rows]


def test_case_in_a_flat_folder_lacks_its_own_scan_and_not_the_folders(tmp_path: Path):
    for number in (1, 2):
        put_all(tmp_path, {suffix: f"P_00{number}_{suffix}" for suffix in ("t1ce", "t1", "t2", "flair")})
    (tmp_path / "P_002_t2.nii.gz").unlink()

    survey = import_cases(tmp_path)

    assert [row.case for row in survey.rows] == ["P_001"]
    assert [str(fault) for fault in survey.faults] == [
        f"P_002: t2w is missing; P_002_t2.nii or .nii.gz must be in {tmp_path}"
    ]


def test_unknown_file_in_a_flat_folder_is_held_against_the_case_whose_name_it_begins_with(tmp_path: Path):
    for case in ("P_1", "P_1_2"):
        put_all(tmp_path, {suffix: f"{case}_{suffix}" for suffix in ("t1ce", "t1", "t2", "flair")})
    put(tmp_path / "P_1_2_mask.nii.gz")

    survey = import_cases(tmp_path)

    assert [row.case for row in survey.rows] == ["P_1"]
    assert "P_1_2: no label is named P_1_2_seg, but P_1_2_mask.nii.gz is there" in str(survey.faults[0])


@needs(FLAT_FOLDER)
def test_flat_folder_that_was_refused_is_two_cases():
    survey = import_cases(FLAT_FOLDER)

    assert [row.case for row in survey.rows] == ["P_001", "P_002"]
    assert [item["case"] for item in find_cases(FLAT_FOLDER)] == ["P_001", "P_002"]


# --- Published data sets ---


def test_ucsf_pdgm_is_read_without_its_bias_corrected_copies(tmp_path: Path):
    folder = tmp_path / "UCSF-PDGM-v3" / "UCSF-PDGM-0429_FU003d_nifti"
    kinds = ("T1", "T1c", "T2", "FLAIR", "T1_bias", "T1c_bias", "T2_bias", "FLAIR_bias", "ADC", "brain_segmentation")
    for kind in kinds:
        put(folder / f"{folder.name.removesuffix('_nifti')}_{kind}.nii.gz")
    put(folder / "UCSF-PDGM-0429_FU003d_tumor_segmentation.nii.gz", 1, 2, 4)

    row = only(tmp_path)

    assert (row.case, row.patient, row.time_point) == ("UCSF-PDGM-0429_FU003d", "UCSF-PDGM-0429", "FU003d")
    assert (row.labels, row.institution) == ("brats2018-2021", "UCSF")
    endings = ("T1c", "T1", "T2", "FLAIR", "tumor_segmentation")
    assert names_of(row, folder) == [f"UCSF-PDGM-0429_FU003d_{ending}.nii" for ending in endings]


def put_upenn(root: Path, case: str, *labels: str) -> None:
    for kind in ("T1", "T1GD", "T2", "FLAIR"):
        put(root / "images_structural" / case / f"{case}_{kind}.nii.gz")
        put(root / "images_structural_unstripped" / case / f"{case}_{kind}_unstripped.nii.gz")
    for label in labels:
        put(root / label.format(case), 1, 2, 4)


EXPERT, PROGRAM = "images_segm/{}_segm.nii.gz", "automated_segm/{}_automated_approx_segm.nii.gz"


@pytest.mark.parametrize("label", [EXPERT, PROGRAM])
def test_upenn_gbm_is_read_from_its_trees_of_scans_and_of_labels(tmp_path: Path, label: str):
    put_upenn(tmp_path, "UPENN-GBM-00001_11", label)

    row = only(tmp_path)

    assert (row.patient, row.time_point, row.institution) == ("UPENN-GBM-00001", "11", "UPENN")
    assert names_of(row, tmp_path)[:2] == [
        f"images_structural/UPENN-GBM-00001_11/UPENN-GBM-00001_11_{kind}.nii" for kind in ("T1GD", "T1")
    ]
    assert row.label == tmp_path / label.format("UPENN-GBM-00001_11")


def test_of_an_experts_and_a_programs_label_the_user_chooses_by_a_mapping_that_is_printed(tmp_path: Path):
    data = tmp_path / "data"
    put_upenn(data, "UPENN-GBM-00001_11", EXPERT, PROGRAM)

    survey = import_cases(data)

    assert "seg has 2 candidates, " in str(survey.faults[0])
    mappings = [json.loads(line) for line in survey.mappings]
    assert [one["seg"] for one in mappings] == [PROGRAM.format("{case}"), EXPERT.format("{case}")]
    for mapping in mappings:
        (tmp_path / "mapping.json").write_text(json.dumps(mapping))
        (row,) = import_cases(data, tmp_path / "mapping.json").rows
        assert row.label == data / mapping["seg"].replace("{case}", "UPENN-GBM-00001_11")
    assert "each of these mappings reads them in another way" in show_mappings(survey.mappings)
    assert len(find_cases(data)) == 1  # inference needs no label


def test_labels_of_upenn_gbm_without_scans_are_told_and_are_no_cases(tmp_path: Path):
    put_upenn(tmp_path, "UPENN-GBM-00001_11", EXPERT)
    alone = put(tmp_path / EXPERT.format("UPENN-GBM-00002_11"), 1)

    survey = import_cases(tmp_path)

    assert [row.case for row in survey.rows] == ["UPENN-GBM-00001_11"]
    assert alone in survey.strangers


def test_file_that_kaggle_unpacked_to_a_folder_of_its_name_is_the_folders_scan(tmp_path: Path):
    case = "BraTS-GLI-00000-000"
    inner = {"t1c": "brain_t1ce", "t1n": "brain_t1", "t2w": "brain_t2", "t2f": "brain_flair", "seg": "final_seg"}
    for kind, name in inner.items():
        folder = tmp_path / case / f"{case}-{kind}.nii"
        put(folder / f"00000057_{name}.nii", *((1, 2, 3) if kind == "seg" else ()))

    row = only(tmp_path)

    assert row.case == case
    assert names_of(row, tmp_path / case)[0] == f"{case}-t1c.nii/00000057_brain_t1ce.nii"


def test_label_of_children_is_asked_about_as_its_values_changed_their_meaning(tmp_path: Path):
    names = {kind: f"BraTS-PED-00001-000-{kind}" for kind in (*MODALITIES, "seg")}
    put_all(tmp_path / "BraTS-PED-00001-000", names, (1, 2, 3))

    message = refusal(tmp_path)

    assert message.startswith("the labels of BraTS-PED follow brats2023 in the challenge of 2023 only; ")
    assert (
        "The first label holds 1, 2, 3, which fits brats2023 and msd-task01; say which it is with --labels" in message
    )
    assert only(tmp_path, "brats2023").labels == "brats2023"


# --- BIDS ---


def put_bids(root: Path, stem: str = "sub-01_ses-2", contrast: str = "ce-gadolinium_T1w", extra: str = "") -> None:
    anat = "/".join((*stem.split("_"), "anat"))
    for suffix in ("T1w", contrast, "T2w", "FLAIR"):
        put(root / anat / f"{stem}_{extra}{suffix}.nii.gz")


@pytest.mark.parametrize("contrast", ["ce-gadolinium_T1w", "ce-GADOLINIUM_T1w", "ce-gd_T1w", "T1ce", "T1Gd"])
@pytest.mark.parametrize("label", ["label-tumor_mask", "dseg", "label-lesion_roi"])
def test_bids_is_read_with_the_label_from_its_derivatives(tmp_path: Path, contrast: str, label: str):
    put_bids(tmp_path, contrast=contrast)
    derived = tmp_path / "derivatives" / "manual" / "sub-01" / "ses-2" / "anat"
    put(derived / f"sub-01_ses-2_{label}.nii.gz", 1, 2, 4)
    put(derived / "sub-01_ses-2_desc-brain_mask.nii.gz", 1)

    row = only(tmp_path, "brats2018-2021")

    assert (row.case, row.patient, row.time_point) == ("sub-01_ses-2", "sub-01", "2")
    assert [file.name for file in row.image] == [
        f"sub-01_ses-2_{suffix}.nii.gz" for suffix in (contrast, "T1w", "T2w", "FLAIR")
    ]
    assert row.label == derived / f"sub-01_ses-2_{label}.nii.gz"


def test_bids_without_sessions_or_labels_asks_nothing(tmp_path: Path):
    put_bids(tmp_path, "sub-01")
    put_bids(tmp_path, "sub-02")

    assert [row.case for row in import_cases(tmp_path).rows] == ["sub-01", "sub-02"]


def test_what_a_label_means_that_bids_does_not_tell_is_asked(tmp_path: Path):
    put_bids(tmp_path, "sub-01")
    put(tmp_path / "derivatives" / "sub-01" / "anat" / "sub-01_dseg.nii.gz", 1, 2, 3)

    message = refusal(tmp_path)

    assert message.startswith(
        "BIDS does not say what a label's values mean: 1 cases (sub-01). The first label holds 1, 2, 3"
    )


def test_of_raw_and_derived_scans_the_user_chooses_by_a_mapping_that_is_printed(tmp_path: Path):
    data = tmp_path / "data"
    put_bids(data)
    put_bids(data / "derivatives" / "sri24", extra="space-SRI24_")

    survey = import_cases(data)

    assert "t1c has 2 candidates, " in str(survey.faults[0])
    assert len(survey.mappings) == 2
    read = []
    for line in survey.mappings:
        (tmp_path / "mapping.json").write_text(line.replace("brats2018-2021 or brats2023 or msd-task01", "brats2023"))
        read += [row.image for row in import_cases(data, tmp_path / "mapping.json").rows]
    assert {("derivatives" in str(image)) for image in read} == {True, False}


def test_label_of_a_subject_without_scans_is_a_fault(tmp_path: Path):
    put_bids(tmp_path, "sub-01")
    put(tmp_path / "derivatives" / "sub-02_dseg.nii.gz", 1)

    (fault,) = import_cases(tmp_path).faults

    assert "sub-02_dseg.nii.gz has no scan beside it; put sub-02_T1w.nii.gz and the others there" in str(fault)


# --- nnU-Net ---

PARTS = {"background": 0, "necrosis": 1, "edema": 2, "enhancing": 3}


def put_nnunet(root: Path, content: Mapping[str, Any] | None) -> None:
    for number in range(4):
        put(root / "imagesTr" / f"case_{number:04d}.nii.gz")
        put(root / "imagesTs" / f"test_{number:04d}.nii.gz")
    put(root / "labelsTr" / "case.nii.gz", 1, 2, 3)
    if content is not None:
        (root / "dataset.json").write_text(json.dumps({"numTraining": 1, "file_ending": ".nii.gz", **content}))


def channels(*names: str) -> dict[str, str]:
    return {str(number): name for number, name in enumerate(names)}


@pytest.mark.parametrize(
    ("names", "order"),
    [
        (("T1", "T1ce", "T2", "Flair"), (1, 0, 2, 3)),  # as nnU-Net's own conversion of BraTS 2021 writes them
        (("T1n", "T1c", "T2w", "T2f"), (1, 0, 2, 3)),
        (("FLAIR", "T1w", "t1gd", "T2w"), (2, 1, 3, 0)),
        (("t2_flair", "T1-Gd", "T1", "T2"), (1, 2, 3, 0)),
    ],
)
def test_channels_of_nnunet_are_those_that_its_dataset_names(
    tmp_path: Path, names: tuple[str, ...], order: tuple[int, ...]
):
    put_nnunet(tmp_path, {"channel_names": channels(*names), "labels": PARTS})

    training, test = import_cases(tmp_path).rows

    assert [file.name for file in training.image] == [f"case_{number:04d}.nii.gz" for number in order]
    assert (training.case, training.label, training.labels) == (
        "case",
        tmp_path / "labelsTr" / "case.nii.gz",
        "brats2023",
    )
    assert (test.case, test.label) == ("test", None)
    assert [item["case"] for item in find_cases(tmp_path)] == ["case", "test"]


def test_nnunets_first_version_calls_channels_modality_and_turns_labels_round(tmp_path: Path):
    labels = {"0": "background", "1": "edema", "2": "non-enhancing", "3": "enhancing"}
    put_nnunet(tmp_path, {"modality": channels("FLAIR", "T1", "T1gd", "T2"), "labels": labels})

    training, _ = import_cases(tmp_path).rows

    assert training.labels == "msd-task01"
    assert [file.name for file in training.image] == [f"case_{number:04d}.nii.gz" for number in (2, 1, 3, 0)]


def test_training_case_of_nnunet_without_its_label_is_a_fault(tmp_path: Path):
    put_nnunet(tmp_path, {"channel_names": channels("T1", "T1ce", "T2", "Flair"), "labels": PARTS})
    (tmp_path / "labelsTr" / "case.nii.gz").unlink()
    (tmp_path / "imagesTr" / "case_0002.nii.gz").unlink()

    (fault,) = import_cases(tmp_path).faults

    assert str(fault).splitlines() == [
        f"case: t2w is missing; case_0002.nii.gz must be in {tmp_path}/imagesTr",
        f"case: {tmp_path}/labelsTr/case.nii.gz is missing; restore it, or move the case to imagesTs",
    ]


@pytest.mark.parametrize(
    ("labels", "convention"),
    [
        (PARTS, "brats2023"),
        ({"background": 0, "NCR_or_NETC": 1, "SNFH": 2, "ET": 3}, "brats2023"),
        ({"background": 0, "NCR/NET": 1, "ED": 2, "ET": 4}, "brats2018-2021"),
        ({"0": "background", "1": "edema", "2": "non-enhancing tumor", "3": "enhancing tumour"}, "msd-task01"),
        ({"background": 0, "whole tumor": [1, 2, 3], "tumor core": [2, 3], "enhancing tumor": 3}, "msd-task01"),
        ({"background": 0, "whole_tumor": [1, 2, 3], "tumor_core": [1, 3], "enhancing_tumor": [3]}, "brats2023"),
        ({"background": 0, "necrotic core": 1, "peritumoral edema": 2, "enhancing core": 3}, "brats2023"),
        ({"background": 0, "NETC": 1, "SNFH": 2, "ET": 3, "RC": 4}, None),
        ({"background": 0, "a": 1, "b": 2, "c": 3}, None),
        ({"background": 0, "whole tumor": 1}, None),
        ({"background": 0, "enhancing": "three"}, None),
        (None, None),
    ],
)
def test_convention_of_nnunet_is_told_by_the_names_of_its_labels(labels: Any, convention: str | None):
    found, question = read_convention({"labels": labels})

    assert (found if not question else None) == convention


def test_labels_of_nnunet_with_names_that_tell_nothing_are_asked_about(tmp_path: Path):
    labels = {"background": 0, "a": 1, "b": 2, "c": 3}
    put_nnunet(tmp_path, {"channel_names": channels("T1", "T1ce", "T2", "Flair"), "labels": labels})

    assert refusal(tmp_path).startswith("the names of the labels in dataset.json are not those of a convention: ")
    assert {row.labels for row in import_cases(tmp_path, labels="msd-task01").rows} == {"msd-task01"}


@pytest.mark.parametrize(
    ("content", "got"),
    [
        ({"channel_names": channels("MRI", "T1c", "T2", "FLAIR")}, "got 0 MRI, 1 T1c, 2 T2, 3 FLAIR"),
        ({"channel_names": channels("T1", "T1", "T2", "FLAIR")}, "got 0 T1, 1 T1, 2 T2, 3 FLAIR"),
        ({"channel_names": ["T1", "T1c"]}, "got nothing"),
        ({}, "got nothing"),
        (None, "is missing, which says what the channels _0000 to _0003 are"),
    ],
)
def test_channels_that_are_not_named_are_not_guessed(tmp_path: Path, content: Mapping[str, Any] | None, got: str):
    put_nnunet(tmp_path, content)

    for find in (import_cases, find_cases):
        with pytest.raises(CaseError) as caught:
            find(tmp_path)
        assert got in str(caught.value)
        assert '"t1c": "imagesTr/{case}_000?.nii.gz"' in str(caught.value)


@pytest.mark.parametrize(
    ("word", "modality"),
    [
        ("T1-Gd", "t1c"),
        ("t1_post", "t1c"),
        ("T1", "t1n"),
        ("T2W", "t2w"),
        ("T2-FLAIR", "t2f"),
        ("T2star", None),
        ("", None),
    ],
)
def test_words_for_a_modality_are_known_in_any_spelling(word: str, modality: str | None):
    assert modality_of(word) == modality


# --- Layouts that nobody knows ---


def test_mapping_that_reads_an_unknown_layout_is_printed_and_reads_it(tmp_path: Path):
    data = tmp_path / "data"
    for patient in ("pat7", "pat8"):
        names = {"t1n": "T1", "t1c": "T1_post", "t2w": "T2_tse", "t2f": "ax_FLAIR", "seg": "tumor_mask"}
        put_all(data / patient / "2019", {kind: f"{patient}_{name}" for kind, name in names.items()})

    message = refusal(data)

    assert "no case found; 10 NIfTI files have other names" in message
    assert "this mapping reads them: look whether it is right" in message
    printed = message.splitlines()[-1]
    (tmp_path / "mapping.json").write_text(
        printed.replace("brats2018-2021 or brats2023 or msd-task01", "brats2018-2021")
    )
    rows = import_cases(data, tmp_path / "mapping.json").rows
    assert [(row.case, row.image[0].name) for row in rows] == [
        ("pat7_2019", "pat7_T1_post.nii.gz"),
        ("pat8_2019", "pat8_T1_post.nii.gz"),
    ]


def test_files_that_have_the_same_names_in_every_folder_are_told_apart_by_a_mapping(tmp_path: Path):
    for patient in ("pat7", "pat8"):
        put_all(tmp_path / patient, {kind: f"scan_{kind}" for kind in ("t1", "t1ce", "t2", "flair", "seg")})

    survey = import_cases(tmp_path)

    assert f"scan: is there 2 times ({tmp_path}/pat7, {tmp_path}/pat8)" in str(survey.faults[0])
    assert json.loads(survey.mappings[0])["t1c"] == "{case}/scan_t1ce.nii.gz"


def test_no_mapping_is_printed_where_none_reads_a_case(tmp_path: Path):
    put(tmp_path / "pat7" / "T1.nii.gz")

    assert "mapping reads" not in refusal(tmp_path)


HIDDEN: tuple[Callable[[Path], Path], ...] = (
    lambda root: root / ".snapshot" / "daily.1",
    lambda root: root / "__MACOSX",
    lambda root: root / "P_001" / ".ipynb_checkpoints",
    lambda root: root / "@eaDir",
)


@pytest.mark.parametrize("hide", HIDDEN)
def test_hidden_folders_are_passed_over_by_mappings_and_layouts_alike(tmp_path: Path, hide: Callable[[Path], Path]):
    data = tmp_path / "data"
    names = {kind: f"P_001_{kind}" for kind in ("t1", "t1ce", "t2", "flair")}
    put_all(data / "P_001", names)
    put_all(hide(data), names)
    mapping = {"t1c": "t1ce", "t1n": "t1", "t2w": "t2", "t2f": "flair"}
    patterns = {kind: f"P_001/{{case}}_{suffix}.nii.gz" for kind, suffix in mapping.items()}
    (tmp_path / "mapping.json").write_text(json.dumps({**patterns, "labels": "brats2023"}))

    for rows in (import_cases(data).rows, import_cases(data, tmp_path / "mapping.json").rows):
        assert [row.image[0].parent for row in rows] == [data / "P_001"]
