from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from brats_fl.cases.regions import (
    fitting_tables,
    labels_to_regions,
    regions_to_labels,
    to_file_labels,
    to_library_labels,
)
from brats_fl.constants import LABEL_TABLES
from brats_fl.errors import CaseError

# One voxel of each label of the library: background, necrotic core, oedema, enhancing tumour.
EACH_LABEL = torch.tensor([0, 1, 2, 3], dtype=torch.uint8).reshape(4, 1, 1)


def test_enhancing_tumour_is_4_in_brats_2020_and_3_in_the_library():
    label = np.array([0, 1, 2, 4], dtype=np.int16)

    changed = to_library_labels(label, "brats2018-2021")

    np.testing.assert_array_equal(changed, [0, 1, 2, 3])
    assert changed.dtype == np.uint8


def test_oedema_and_core_change_places_between_msd_and_the_library():
    changed = to_library_labels(torch.tensor([0.0, 1.0, 2.0, 3.0]), "msd-task01")

    assert changed.tolist() == [0, 2, 1, 3]
    assert changed.dtype == torch.uint8


@pytest.mark.parametrize("table", LABEL_TABLES)
def test_file_labels_come_back_unchanged_from_the_library(table: str):
    label = np.array(list(LABEL_TABLES[table]) * 2, dtype=np.uint8).reshape(2, 2, 2)

    np.testing.assert_array_equal(to_file_labels(to_library_labels(label, table), table), label)


def test_column_major_label_as_nibabel_reads_it_keeps_its_places():
    label = np.asfortranarray(np.arange(8).reshape(2, 2, 2) % 3)

    np.testing.assert_array_equal(to_library_labels(label, "brats2023"), label)


def test_unknown_value_is_named_with_the_convention_and_with_those_that_fit():
    with pytest.raises(CaseError) as raised:
        to_library_labels(np.array([0, 1, 2, 3]), "brats2018-2021")

    assert str(raised.value) == (
        "label holds 3 in 1 voxel; the convention brats2018-2021 has 0, 1, 2, 4 only; "
        "its values fit brats2023 and msd-task01: set `labels` of the case to the convention it was drawn in"
    )


@pytest.mark.parametrize(("value", "shown"), [(1.5, "1.5"), (-1.0, "-1"), (float("nan"), "nan"), (255.0, "255")])
def test_value_of_no_convention_is_refused(value: float, shown: str):
    with pytest.raises(CaseError, match=rf"label holds {shown} in 1 voxel; .* they fit no known convention"):
        to_library_labels(torch.tensor([0.0, value]), "brats2023")


@pytest.mark.parametrize("kind", [np.asarray, torch.tensor])
def test_value_that_is_whole_but_for_rounding_is_taken_for_it(kind: Callable[..., Any]):
    label = kind(np.array([0.0009, -0.0009, 0.9991, 2.0, 2.9995], np.float32))

    np.testing.assert_array_equal(to_library_labels(label, "brats2023"), [0, 0, 1, 2, 3])


def test_value_further_than_a_thousandth_from_a_whole_number_is_refused_with_its_voxels():
    with pytest.raises(CaseError, match=r"label holds 0\.5, 1\.002 in 3 voxels; "):
        to_library_labels(np.array([0, 0.5, 1.002, 1.002, 1.0002]), "brats2023")


def test_only_the_first_five_unknown_values_are_listed():
    with pytest.raises(CaseError, match=r"label holds 5, 6, 7, 8, 9 and 3 more values in 8 voxels;"):
        to_library_labels(np.arange(5, 13), "brats2023")


def test_unknown_convention_is_refused_with_the_known_ones():
    with pytest.raises(CaseError, match=r"labels must be one of brats2018-2021, .* \(got 'brats2017'\)"):
        to_library_labels(np.zeros(1), "brats2017")


def test_label_map_that_is_not_the_librarys_is_not_written_to_a_file():
    with pytest.raises(CaseError, match="label map holds 4; inside the library only 0, 1, 2 and 3"):
        to_file_labels(np.array([0, 4]), "brats2023")


def test_core_is_necrosis_and_enhancing_and_whole_is_all_three():
    regions = labels_to_regions(EACH_LABEL)

    assert regions.shape == (3, 4, 1, 1)
    assert regions.dtype == torch.float32
    assert regions[:, :, 0, 0].tolist() == [
        [0, 1, 0, 1],  # tc
        [0, 1, 1, 1],  # wt
        [0, 0, 0, 1],  # et
    ]


@pytest.mark.parametrize(("shape", "expected"), [((1, 4, 1, 1), (3, 4, 1, 1)), ((2, 1, 4, 1, 1), (2, 3, 4, 1, 1))])
def test_channel_axis_of_a_label_becomes_the_region_axis(shape: tuple[int, ...], expected: tuple[int, ...]):
    regions = labels_to_regions(EACH_LABEL.expand(shape))

    assert regions.shape == expected
    assert torch.equal(regions.reshape(-1, 3, 4, 1, 1)[0], labels_to_regions(EACH_LABEL))


@pytest.mark.parametrize("shape", [(4, 4), (2, 4, 4, 4)])
def test_label_of_another_shape_is_refused(shape: tuple[int, ...]):
    with pytest.raises(ValueError, match=r"label must have shape \(H, W, D\) or"):
        labels_to_regions(torch.zeros(shape))


def test_labels_come_back_unchanged_from_regions():
    label = np.random.default_rng(0).integers(0, 4, (2, 3, 4)).astype(np.uint8)

    back = regions_to_labels(labels_to_regions(label))

    assert back.dtype == np.uint8
    np.testing.assert_array_equal(back, label)


def test_innermost_region_wins_where_a_network_does_not_nest_them():
    only_et, only_tc, only_wt, none = [0, 0, 1], [1, 0, 0], [0, 1, 0], [0, 0, 0]
    regions = torch.tensor([only_et, only_tc, only_wt, none]).T.reshape(3, 4, 1, 1)

    assert regions_to_labels(regions).flatten().tolist() == [3, 1, 2, 0]


@pytest.mark.parametrize("shape", [(3, 4, 4), (2, 4, 4, 4), (3, 1, 4, 4, 4)])
def test_regions_of_another_shape_are_refused(shape: tuple[int, ...]):
    with pytest.raises(ValueError, match=r"regions must have shape \(\.\.\., 3, H, W, D\)"):
        regions_to_labels(torch.zeros(shape))


def test_scan_geometry_survives_every_change():
    affine = torch.diag(torch.tensor([2.0, 2.0, 2.0, 1.0], dtype=torch.float64))
    label = MetaTensor(EACH_LABEL[None].clone(), affine=affine)

    for changed in (to_library_labels(label, "brats2023"), labels_to_regions(label)):
        assert isinstance(changed, MetaTensor)
        assert torch.equal(changed.affine, affine)


def test_conventions_that_know_all_values_are_named():
    assert fitting_tables([0, 1, 2]) == ["brats2018-2021", "brats2023", "msd-task01"]
    assert fitting_tables(np.array([1, 2, 4])) == ["brats2018-2021"]
    assert fitting_tables([0.5]) == []
