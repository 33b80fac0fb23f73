"""Which slice of a case is shown, and how much of it."""

from __future__ import annotations

import numpy as np

from brats_fl_tools.report.cuts import Cut, find_cut, frame_in, fullest_slice, zoom_box


def test_fullest_slice_is_the_one_with_most_voxels_the_lowest_among_equals() -> None:
    voxels = np.zeros((4, 5, 6), bool)
    voxels[0, 1, 2:5] = True  # three voxels along the third axis
    voxels[2, 1, 4] = True

    assert fullest_slice(voxels, axis=2) == 4  # two voxels there
    assert fullest_slice(voxels, axis=1) == 1
    assert fullest_slice(voxels, axis=0) == 0
    assert fullest_slice(np.zeros((4, 5, 6), bool), axis=2) == 3  # the middle, where there is nothing


def test_window_is_the_tumour_and_a_margin_in_mm_whatever_the_voxel_size() -> None:
    voxels = np.zeros((100, 50), bool)
    voxels[40:60, 20:30] = True  # 20 mm by 20 mm of voxels of 1 mm by 2 mm

    box = zoom_box(voxels, (1.0, 2.0), margin_mm=10.0, smallest_mm=0.0)

    assert box == (slice(30, 70), slice(15, 35))


def test_window_around_a_few_voxels_is_not_smaller_than_the_smallest() -> None:
    voxels = np.zeros((100, 100), bool)
    voxels[50, 50] = True

    rows, columns = zoom_box(voxels, (1.0, 1.0), margin_mm=2.0, smallest_mm=20.0)

    assert rows.stop - rows.start == columns.stop - columns.start == 20
    assert rows.start <= 50 < rows.stop


def test_window_stays_in_the_slice() -> None:
    voxels = np.zeros((30, 100), bool)
    voxels[0, 99] = True

    assert zoom_box(voxels, (1.0, 1.0), margin_mm=5.0, smallest_mm=50.0) == (slice(0, 30), slice(50, 100))


def test_slice_without_tumour_is_shown_whole() -> None:
    assert zoom_box(np.zeros((7, 9), bool), (1.0, 1.0)) == (slice(0, 7), slice(0, 9))


def test_coronal_cut_goes_through_the_most_error_and_frames_all_tumour_there() -> None:
    wrong, tumour = np.zeros((80, 80, 80), bool), np.zeros((80, 80, 80), bool)
    tumour[40, 10:30, 40] = True
    wrong[40, 20, 40] = True

    cut = find_cut(wrong, tumour, "coronal", (1.0, 3.0, 2.0))

    assert cut == Cut("coronal", 20, (slice(15, 65), slice(28, 53)))  # 50 mm by 50 mm around the voxel at (40, 40)
    assert cut.spacing_mm((1.0, 3.0, 2.0)) == (1.0, 2.0)
    assert cut.through(tumour)[40, 40]


def test_whole_slice_is_shown_without_what_is_empty_around_the_head_and_the_frame() -> None:
    scan = np.zeros((100, 100))
    scan[30:70, 40:80] = 1.0  # with a margin of 4 mm: 26 to 74, 36 to 84
    cut = Cut("axial", 0, (slice(60, 90), slice(50, 60)))

    head, frame = frame_in(cut, scan, (1.0, 1.0))

    assert head == (slice(26, 90), slice(36, 84))
    assert frame == (slice(34, 64), slice(14, 24))


def test_case_without_an_error_is_cut_through_its_tumour() -> None:
    tumour = np.zeros((60, 60, 60), bool)
    tumour[30, 30, 12] = True

    assert find_cut(np.zeros_like(tumour), tumour, "axial", (1.0, 1.0, 1.0)).level == 12
