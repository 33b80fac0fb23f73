"""Pictures of slices: which way up, in what shape, in what colours."""

from __future__ import annotations

import base64
import io

import numpy as np
from matplotlib.image import imread

from brats_fl.constants import ET
from brats_fl_tools.pages.pictures import (
    AGREEMENT_COLOURS,
    FALSE_ALARM,
    HIT,
    LABEL_COLOURS,
    MISS,
    as_jpeg,
    paint_agreement,
    paint_labels,
    paint_overview,
    split_agreement,
)


def luminance(colour: tuple[int, int, int]) -> float:
    """Relative luminance, 0 to 1: IEC 61966-2-1 and ITU-R BT.709."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (part / 255 for part in colour)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_picture_has_the_front_at_the_top_and_the_patients_right_on_the_left() -> None:
    labels = np.zeros((40, 40), np.uint8)  # from the patient's left to the right, from back to front
    labels[30:36, 30:36] = ET  # right, front

    pixels = paint_labels(np.ones((40, 40), np.float32), labels, None, (1.0, 1.0))

    rows, columns = np.nonzero((pixels == LABEL_COLOURS[ET]).all(axis=2))
    assert pixels.shape == (320, 320, 3)
    assert rows.max() < 160
    assert columns.max() < 160


def test_voxels_longer_than_wide_are_shown_in_their_true_shape() -> None:
    pixels = paint_labels(np.ones((20, 20), np.float32), np.zeros((20, 20), np.uint8), None, (1.0, 2.0))

    assert pixels.shape == (320, 160, 3)  # 40 mm from back to front, 20 mm from side to side

    grey, nothing = np.ones((20, 10), np.float32), np.zeros((20, 10), bool)
    pixels = paint_agreement(grey, nothing, nothing, (1.0, 4.0), 240)
    assert pixels.shape == (240, 120, 3)  # a coronal slice of 20 mm by 40 mm, thick slices


def test_voxels_of_a_region_are_hits_misses_or_false_alarms() -> None:
    reference, prediction = np.array([1, 1, 0, 0], bool), np.array([1, 0, 1, 0], bool)

    parts = {name: part.tolist() for name, part in split_agreement(reference, prediction).items()}

    assert parts == {
        HIT: [True, False, False, False],
        MISS: [False, True, False, False],
        FALSE_ALARM: [False, False, True, False],
    }


def test_hits_misses_and_false_alarms_have_their_own_colours_and_the_rest_is_the_scan() -> None:
    reference, prediction = np.zeros((8, 8), bool), np.zeros((8, 8), bool)
    reference[0:6, 4:6], prediction[2:8, 4:6] = True, True

    pixels = paint_agreement(np.full((8, 8), 0.5, np.float32), reference, prediction, (1.0, 1.0), 80)

    def at(right: int, front: int) -> tuple[int, ...]:  # the corner of a voxel of ten pixels, where its edge is drawn
        return tuple(int(value) for value in pixels[80 - 10 * front - 1, 80 - 10 * right - 1])

    assert at(0, 4) == AGREEMENT_COLOURS[MISS]
    assert at(2, 4) == AGREEMENT_COLOURS[HIT]
    assert at(6, 4) == AGREEMENT_COLOURS[FALSE_ALARM]
    assert at(0, 0) == (127, 127, 127)


def test_colours_of_agreement_differ_in_lightness_for_who_sees_no_colour() -> None:
    dark, middle, light = sorted(luminance(colour) for colour in AGREEMENT_COLOURS.values())

    # 1.5 to 1 and more, as in WCAG's contrast ratio
    assert (middle + 0.05) / (dark + 0.05) > 1.5
    assert (light + 0.05) / (middle + 0.05) > 1.5


def test_overview_has_a_frame_around_what_is_enlarged_and_nothing_else() -> None:
    pixels = paint_overview(np.zeros((40, 40), np.float32), (slice(10, 20), slice(0, 10)), (1.0, 1.0), 40)

    rows, columns = np.nonzero(pixels.all(axis=2))
    assert (rows.min(), rows.max()) == (30, 39)  # the back is at the bottom
    assert (columns.min(), columns.max()) == (20, 29)
    assert len(rows) == 36  # the edge of 10 by 10 pixels


def test_jpeg_keeps_the_colours_apart() -> None:
    pixels = np.zeros((16, 24, 3), np.uint8)
    for index, colour in enumerate(AGREEMENT_COLOURS.values()):
        pixels[:, 8 * index : 8 * index + 8] = colour

    seen = imread(io.BytesIO(base64.b64decode(as_jpeg(pixels))), format="jpeg")

    for index, colour in enumerate(AGREEMENT_COLOURS.values()):
        assert np.abs(seen[:, 8 * index : 8 * index + 8].astype(int) - colour).max() < 30
