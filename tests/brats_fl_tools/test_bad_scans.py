"""Every reader of scans and labels refuses a bad file in our words: which file, what is wrong with it, how to mend it.

And a scan or label that is written in another way, such as the one volume of a 4-D file, is to every reader the same.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.transforms import CastToTyped, Compose
from tests.tiny_sites import AFFINE, SHAPE, corrupt, save, write_tiny_case

from brats_fl.cases import transforms
from brats_fl.cases.cache import CaseCache
from brats_fl.cases.datalists import Case, DataList, as_monai_item, scans_of
from brats_fl.cases.layouts import SEG, FoundCase
from brats_fl.constants import LABEL, MODALITIES
from brats_fl.errors import CaseError, ScanFault
from brats_fl.gate import Finding, check_case, check_case_headers_only, errors_of
from brats_fl.gate.headers import RULE_OF
from brats_fl.sharing.case_features import measure_case
from brats_fl.sharing.fingerprints import fingerprint_case
from brats_fl_tools.check.thumbnails import draw_thumbnails
from brats_fl_tools.data.case_labels import read_label
from brats_fl_tools.data.import_cases import read_case as import_case
from brats_fl_tools.partition.intensities import measure_case as measure_intensities
from brats_fl_tools.partition.scanner_shift import write_altered
from brats_fl_tools.report.overlays import open_case

KEY = bytes(range(100, 132))
CHAIN = Compose(
    [
        transforms.LoadCased(),
        transforms.TumourVoxelsd(),
        CastToTyped(["image", "label"], dtype=[torch.float16, torch.uint8]),
        transforms.UncachedBoundaryd(),
    ]
)

Reader = Callable[[Case, Path], Any]
"""(case, empty folder) -> what it makes of the case."""


def by_training(case: Case, folder: Path) -> Any:
    item = transforms.LoadCased()(as_monai_item(case))
    return {key: np.asarray(item[key]) for key in ("image", "label")}


def by_cache(case: Case, folder: Path) -> Any:
    first, again = (CaseCache([as_monai_item(case)], CHAIN, folder)[0] for _ in range(2))
    assert torch.equal(first["image"], again["image"])
    return np.asarray(again["image"])


def by_gate(case: Case, folder: Path) -> list[Finding]:
    return check_case(case).findings


def by_gate_headers(case: Case, folder: Path) -> list[Finding]:
    return check_case_headers_only(case).findings


def by_import(case: Case, folder: Path) -> Any:
    files = {SEG if name == LABEL else name: Path(scan) for name, scan in scans_of(case).items()}
    row, facts = import_case(FoundCase(case.case, case.labels, files, folder), folder, {})
    return row.shape, row.spacing_mm, facts


def by_fingerprint(case: Case, folder: Path) -> Any:
    return fingerprint_case(case, KEY)


def by_statistics(case: Case, folder: Path) -> Any:
    return measure_case(case)


def by_intensities(case: Case, folder: Path) -> Any:
    return {name: (found.median, found.density) for name, found in measure_intensities(case).items()}


def by_scanner_shift(case: Case, folder: Path) -> Any:
    written = write_altered(folder, DataList("a", training=(case,)), 1.0, seed=0).training[0]
    return [np.asarray(nib.load(folder / scan).dataobj) for scan in written.image]


def by_report(case: Case, folder: Path) -> Any:
    opened = open_case(case, Path(str(case.label)))
    return opened.reference, opened.prediction, opened.grey


def by_thumbnails(case: Case, folder: Path) -> Any:
    return draw_thumbnails(case)


def by_label_facts(case: Case, folder: Path) -> Any:
    return read_label(Path(str(case.label)))


OF_SCANS: tuple[Reader, ...] = (by_fingerprint, by_intensities, by_scanner_shift)
OF_ALL: tuple[Reader, ...] = (*(by_training, by_cache, by_gate, by_gate_headers, by_import, by_statistics, by_report),)


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return write_tiny_case(tmp_path / "hospital-1", "case-1")


def with_scan(case: Case, name: str, scan: Path) -> Case:
    if name == LABEL:
        return replace(case, label=str(scan))
    image = list(case.image)
    image[MODALITIES.index(name)] = str(scan)
    return replace(case, image=tuple(image))


# --- What may be wrong with a file ---


def voxels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 3, SHAPE).astype(np.int16)


def missing(file: Path) -> Path:
    return file


def a_folder(file: Path) -> Path:
    file.mkdir()
    return file


def cut_short(file: Path) -> Path:
    save(voxels(), file)
    file.write_bytes(file.read_bytes()[: file.stat().st_size * 2 // 3])
    return file


def no_nifti(file: Path) -> Path:
    file.write_bytes(b"<html>please log in</html>" * 50)
    return file


def another_format(file: Path) -> Path:
    nib.save(nib.MGHImage(voxels(), AFFINE), file.with_name("scan.mgz"))
    return file.with_name("scan.mgz")


def of_four_axes(file: Path) -> Path:
    save(np.zeros((*SHAPE, 2), np.int16), file)
    return file


def of_two_axes(file: Path) -> Path:
    save(np.zeros(SHAPE[:2], np.int16), file)
    return file


def without_its_volume(file: Path) -> Path:
    save(np.zeros((*SHAPE, 2), np.int16), file)
    return Path(f"{file}#2")


def in_colour(file: Path) -> Path:
    rgb = np.zeros(SHAPE, dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    save(rgb, file)
    return file


def complex_numbers(file: Path) -> Path:
    save(voxels().astype(np.complex64), file)
    return file


def without_geometry(file: Path) -> Path:
    image = nib.Nifti1Image(voxels(), AFFINE)
    image.header["srow_x"] = image.header["srow_y"] = image.header["srow_z"] = 0
    file.write_bytes(image.to_bytes())
    header = bytearray(file.read_bytes())
    header[280:328] = bytes(48)  # srow_x, srow_y and srow_z
    header[252:256] = b"\0\0\1\0"  # qform_code 0, sform_code 1
    file.write_bytes(header)
    return file


def claiming_too_much(file: Path) -> Path:
    """A few hundred bytes of which the header says that they unpack to 1.2 GB."""
    header = nib.Nifti1Image(np.zeros((2, 2, 2), np.uint8), AFFINE).header
    header.set_data_shape((1000, 1000, 1200))
    file.write_bytes(gzip.compress(header.binaryblock + bytes(4)))
    return file


def unpacking_to_too_much(file: Path) -> Path:
    """A sound scan with 3 MB of zeros behind it, as far as this test takes it."""
    file.write_bytes(gzip.compress(nib.Nifti1Image(voxels(), AFFINE).to_bytes() + bytes(3 << 20)))
    return file


def packed_under_an_unpacked_name(file: Path) -> Path:
    file.write_bytes(gzip.compress(nib.Nifti1Image(voxels(), AFFINE).to_bytes()))
    return file


FAULTS = [
    (missing, ".nii.gz", ScanFault.MISSING),
    (missing, ".nii.gz#1", ScanFault.MISSING),
    (a_folder, ".nii.gz", ScanFault.MISSING),
    (cut_short, ".nii", ScanFault.TRUNCATED),
    (cut_short, ".nii.gz", ScanFault.TRUNCATED),
    (cut_short, ".NII.GZ", ScanFault.TRUNCATED),
    (no_nifti, ".nii", ScanFault.UNREADABLE),
    (no_nifti, ".nii.gz", ScanFault.UNREADABLE),
    (another_format, ".mgz", ScanFault.UNREADABLE),
    (packed_under_an_unpacked_name, ".nii", ScanFault.UNREADABLE),
    (in_colour, ".nii.gz", ScanFault.UNREADABLE),
    (complex_numbers, ".nii", ScanFault.UNREADABLE),
    (of_four_axes, ".nii.gz", ScanFault.NOT_3D),
    (of_two_axes, ".nii", ScanFault.NOT_3D),
    (without_its_volume, ".nii.gz", ScanFault.NOT_3D),
    (without_geometry, ".nii", ScanFault.BAD_GRID),
    (claiming_too_much, ".nii.gz", ScanFault.UNREADABLE),
    (unpacking_to_too_much, ".nii.gz", ScanFault.UNREADABLE),
]


def refusals(reader: Reader, case: Case, folder: Path) -> Iterable[tuple[str, str]]:
    """(rule, text) of each error that a reader finds; the rule only where it is the gate."""
    try:
        found = reader(case, folder)
    except CaseError as error:
        return [("", str(error))]
    return [(finding.rule, str(finding)) for finding in errors_of(found)]


@pytest.mark.parametrize("name", ["t2f", LABEL])
@pytest.mark.parametrize(("make", "ending", "fault"), FAULTS)
def test_bad_file_is_refused_by_every_reader_in_the_same_words(
    case: Case, tmp_path: Path, make: Callable[[Path], Path], ending: str, fault: ScanFault, name: str
):
    bad = make(tmp_path / f"bad{ending}")
    spoiled = with_scan(case, name, bad)

    for reader in readers_of(name):
        assert_refused(reader, spoiled, tmp_path, RULE_OF[fault], str(bad).partition("#")[0], fault.value)
    shown = draw_thumbnails(spoiled)  # what cannot be shown is said in place of a picture
    assert [thumbnail.modality for thumbnail in shown if not thumbnail.png] == [name] * (name != LABEL)
    assert all(str(bad).partition("#")[0] in thumbnail.text for thumbnail in shown if not thumbnail.png)


def readers_of(name: str) -> tuple[Reader, ...]:
    return OF_ALL if name == LABEL else (*OF_ALL, *OF_SCANS)


def assert_refused(reader: Reader, case: Case, folder: Path, rule: str, *words: str) -> None:
    """One error, with the case's name, these words, and the rule where it is the gate's."""
    own = folder / reader.__name__
    own.mkdir()
    ((broken, text),) = refusals(reader, case, own)
    assert broken in ("", rule), (reader, text)
    for word in ("case-1", *words):
        assert word in text, (reader, text)


# --- Files that are sound, but not together ---


TALLER = np.diag([1.0, 1.0, 1.5, 1.0])
HALF = np.diag([0.5, 0.5, 0.5, 1.0])
"""At 1 mm the gate looks at every second voxel, at the others' 2 mm at each."""


@pytest.mark.parametrize("name", ["t2f", LABEL])
@pytest.mark.parametrize(
    ("shape", "change", "rule", "found"),
    [
        (SHAPE, TALLER, "G06-affine-differs", "spacing 2 x 2 x 3 mm, "),
        (SHAPE, HALF, "G06-affine-differs", "spacing 1 x 1 x 1 mm, "),
        ((40, 48, 39), np.eye(4), "G05-shape-differs", "shape 40 x 48 x 39, "),
    ],
)
def test_scan_on_another_grid_is_refused_by_every_reader_that_has_the_others(
    case: Case, tmp_path: Path, shape: tuple[int, ...], change: np.ndarray, rule: str, found: str, name: str
):
    old = nib.load(dict(scans_of(case))[name])
    save(np.asarray(old.dataobj)[tuple(slice(0, size) for size in shape)], tmp_path / "odd.nii.gz", AFFINE @ change)
    odd = with_scan(case, name, tmp_path / "odd.nii.gz")

    for reader in readers_of(name):
        if reader is not by_report or name != LABEL:  # its mask is the label here, and the odd ones are two of four
            words = (found,) if reader in (by_gate, by_gate_headers) else (found, "odd.nii.gz", "must share one grid")
            assert_refused(reader, odd, tmp_path, rule, *words)
    assert all(thumbnail.png for thumbnail in draw_thumbnails(odd))


READ_NO_VOXEL_OF_A_SCAN = (by_gate_headers, by_import)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e39])  # float32 ends at 3.4e38
def test_voxel_that_is_not_finite_is_refused_by_every_reader_of_voxels(case: Case, tmp_path: Path, value: float):
    spoiled = np.asarray(nib.load(case.image[3]).dataobj).astype(np.float64)
    spoiled[20, 24, 20] = value
    save(spoiled, tmp_path / "odd.nii.gz")
    odd = with_scan(case, "t2f", tmp_path / "odd.nii.gz")

    for reader in {*OF_ALL, *OF_SCANS}.difference(READ_NO_VOXEL_OF_A_SCAN):
        words = ("1 voxels",) if reader is by_gate else ("1 of 76800 voxels", "odd.nii.gz", "write the file again")
        assert_refused(reader, odd, tmp_path, "G21-not-finite", *words)


@pytest.mark.parametrize("value", [0, 7])
def test_scan_of_one_value_is_refused_by_every_reader_of_voxels(case: Case, tmp_path: Path, value: int):
    save(np.full(SHAPE, value, np.int16), tmp_path / "odd.nii.gz")
    odd = with_scan(case, "t2f", tmp_path / "odd.nii.gz")

    for reader in {*OF_ALL, *OF_SCANS}.difference(READ_NO_VOXEL_OF_A_SCAN):
        words = (f"every voxel is {value}",) if reader is by_gate else (f"every voxel is {value} (", "odd.nii.gz")
        assert_refused(reader, odd, tmp_path, "G22-constant", *words)


def test_file_that_is_damaged_within_is_refused_by_every_reader_of_voxels(case: Case, tmp_path: Path):
    corrupt(Path(case.image[3]))

    for reader in {*OF_ALL, *OF_SCANS}.difference(READ_NO_VOXEL_OF_A_SCAN):
        words = ("case-1_flair.nii.gz cannot be read as NIfTI (", ScanFault.UNREADABLE.value)
        assert_refused(reader, case, tmp_path, "G02-file-unreadable", *words)


# --- Files that are written in another way, and are as good ---


def as_volumes(case: Case, folder: Path) -> Case:
    """The same case, its scans and its label each the only volume of a 4-D file."""
    folder.mkdir()
    volumes = {}
    for name, scan in scans_of(case).items():
        save(np.asarray(nib.load(scan).dataobj)[..., None], folder / f"{name}.nii.gz")
        volumes[name] = f"{folder / name}.nii.gz#0"
    return replace(case, image=tuple(volumes[name] for name in MODALITIES), label=volumes[LABEL])


def with_an_axis_of_one(case: Case, folder: Path) -> Case:
    """The same case, its scans and its label 4-D files of one volume that nobody names."""
    numbered = as_volumes(case, folder)
    image = tuple(scan.removesuffix("#0") for scan in numbered.image)
    return replace(case, image=image, label=str(numbered.label).removesuffix("#0"))


def unpacked_under_a_packed_name(case: Case, folder: Path) -> Case:
    """The same case, its files unpacked and still called ``.nii.gz``."""
    folder.mkdir()
    for name, scan in scans_of(case).items():
        (folder / f"{name}.nii.gz").write_bytes(gzip.decompress(Path(scan).read_bytes()))
    image = tuple(f"{folder / name}.nii.gz" for name in MODALITIES)
    return replace(case, image=image, label=f"{folder / LABEL}.nii.gz")


def with_a_label_of_floats(case: Case, folder: Path) -> Case:
    """The same case, its label's values off by up to a thousandth, background included."""
    folder.mkdir()
    label = np.asarray(nib.load(str(case.label)).dataobj).astype(np.float32)
    label += np.random.default_rng(0).uniform(-9e-4, 9e-4, label.shape).astype(np.float32)
    save(label, folder / "label.nii.gz")
    return replace(case, label=f"{folder}/label.nii.gz")


def assert_equal(first: Any, second: Any) -> None:
    if isinstance(first, dict):
        assert first.keys() == second.keys()
        first, second = list(first.values()), list(second.values())
    if isinstance(first, (list, tuple)):
        assert len(first) == len(second)
        for one, other in zip(first, second, strict=True):
            assert_equal(one, other)
    elif isinstance(first, np.ndarray):
        np.testing.assert_array_equal(first, second)
    else:
        assert first == second


@pytest.mark.parametrize("reader", [*OF_ALL, *OF_SCANS, by_label_facts, by_thumbnails])
@pytest.mark.parametrize(
    "rewrite",
    [
        *(as_volumes, with_an_axis_of_one, unpacked_under_a_packed_name, with_a_label_of_floats),
    ],
)
def test_case_that_is_written_in_another_way_is_read_as_it_was(
    case: Case, tmp_path: Path, rewrite: Callable[[Case, Path], Case], reader: Reader
):
    for folder in ("files", "rewritten"):
        (tmp_path / f"for-{folder}").mkdir()

    expected = reader(case, tmp_path / "for-files")
    found = reader(rewrite(case, tmp_path / "rewritten"), tmp_path / "for-rewritten")

    assert_equal(found, expected)
