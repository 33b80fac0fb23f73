"""Scans as another scanner would show them."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
import typer
from numpy.typing import NDArray
from tests.tiny_sites import AFFINE, BRAIN_RADII, SHAPE, ball, write_tiny_case
from typer.testing import CliRunner

from brats_fl.cases.datalists import read_datalist
from brats_fl_tools.data.case_table import write_case_table
from brats_fl_tools.data.import_cases import import_cases
from brats_fl_tools.partition.command import partition
from brats_fl_tools.partition.plan import Options, Strategy, partition_cases
from brats_fl_tools.partition.scanner_shift import alter

SPACING_MM = (2.0, 2.0, 2.0)


@pytest.fixture
def scan() -> NDArray[np.int16]:
    """A brain of two tissues, 500 and 1000, in front of 0."""
    brain = ball((20, 24, 20), BRAIN_RADII)
    halves = np.where(np.indices(SHAPE)[0] < 20, 500, 1000)
    return np.where(brain, halves, 0).astype(np.int16)


def test_background_stays_0_and_the_brain_stays_whole(scan: NDArray[np.int16]) -> None:
    altered = alter(scan, SPACING_MM, shift=1.0, seed=0)

    np.testing.assert_array_equal(altered != 0, scan != 0)
    assert altered.dtype == np.int16


def test_scan_of_zeros_stays_as_it_is() -> None:
    assert not alter(np.zeros(SHAPE, np.int16), SPACING_MM, shift=1.0, seed=0).any()


def test_gamma_darkens_the_darker_tissue_by_the_power(scan: NDArray[np.int16]) -> None:
    dark, bright = (scan == 500), (scan == 1000)

    altered = alter(scan, SPACING_MM, shift=0.1, seed=0)

    # 0.5 to the power of 1.05 is 0.483; shading and noise average out over a tissue, nearly.
    assert altered[dark].mean() / altered[bright].mean() == pytest.approx(0.483, rel=0.03)


def test_noise_and_blur_grow_with_the_shift(scan: NDArray[np.int16]) -> None:
    correlations = [
        np.corrcoef(scan[scan != 0], alter(scan, SPACING_MM, shift, seed=0)[scan != 0])[0, 1] for shift in (0.5, 1, 2)
    ]

    assert sorted(correlations, reverse=True) == correlations
    assert correlations[0] > 0.97 > 0.9 > correlations[2]


def test_same_seed_gives_the_same_scan_and_another_seed_another(scan: NDArray[np.int16]) -> None:
    first, same, other = (alter(scan, SPACING_MM, 1.0, seed) for seed in (3, 3, 4))

    np.testing.assert_array_equal(first, same)
    assert (first != other).any()


def test_floating_point_scan_keeps_its_dtype(scan: NDArray[np.int16]) -> None:
    altered = alter(scan.astype(np.float32), SPACING_MM, shift=1.0, seed=0)

    assert altered.dtype == np.float32
    np.testing.assert_array_equal(altered != 0, scan != 0)


def test_shift_rises_in_equal_steps_from_none_at_the_first_site(tmp_path: Path) -> None:
    for n in range(5):
        write_tiny_case(tmp_path / "data", f"case-{n}")

    result = partition_cases(import_cases(tmp_path).rows, Options(Strategy.SCANNER, shift=2.0))

    assert result.shifts == {"hospital-2": 0.5, "hospital-3": 1.0, "hospital-4": 1.5, "hospital-5": 2.0}


def test_altered_copies_lie_beside_the_list_and_labels_where_they_were(tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(partition)
    for n in range(2):
        write_tiny_case(tmp_path / "data", f"case-{n}")
    write_case_table(tmp_path / "cases.csv", import_cases(tmp_path / "data").rows)
    options = [str(tmp_path / "cases.csv"), "--strategy", "scanner", "--sites", "2", "--out", str(tmp_path / "sites")]

    assert CliRunner().invoke(app, options).exit_code == 0

    (first,) = read_datalist(tmp_path / "sites" / "hospital-1" / "datalist.json").training
    (second,) = read_datalist(tmp_path / "sites" / "hospital-2" / "datalist.json").training
    assert first.image[0].startswith(str(tmp_path / "data"))
    folder = tmp_path / "sites" / "hospital-2" / "altered-scans" / second.case
    assert second.image == tuple(str(folder / f"{name}.nii.gz") for name in ("t1c", "t1n", "t2w", "t2f"))
    assert str(second.label).startswith(str(tmp_path / "data"))
    copy = nibabel.load(second.image[0])
    np.testing.assert_array_equal(copy.affine, AFFINE)
    assert json.loads((tmp_path / "sites" / "partition.json").read_text())["sites"]["hospital-2"]["shift"] == 1.0
    assert "hospital-2" in (tmp_path / "sites" / "partition.html").read_text()

    # Made again as even, nothing of the copies stays.
    again = [*options[:2], "even", *options[3:], "--force", "--no-page"]
    assert CliRunner().invoke(app, again).exit_code == 0
    assert not list((tmp_path / "sites").rglob("altered-scans"))
