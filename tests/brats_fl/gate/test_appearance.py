"""Whether scans look like the modalities they are listed as."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from tests.brats_fl.gate.thin import as_thin

from brats_fl.cases.regions import to_library_labels
from brats_fl.constants import MODALITIES
from brats_fl.gate.appearance import check_copies, check_order, describe_looks, score_order
from brats_fl.gate.voxels import ThinCase
from brats_fl_tools.sample import SampleCase, make_case


@pytest.fixture(scope="module")
def sample() -> SampleCase:
    """A sample case at 4 mm: fluid, vessels and grey matter are what this rule looks at."""
    return make_case(0, 1, 1, 4.0)


def thin_of(sample: SampleCase, order: tuple[int, ...] = (0, 1, 2, 3)) -> ThinCase:
    scans = [sample.images[name].astype(np.float32) for name in MODALITIES]
    return as_thin({name: scans[at] for name, at in zip(MODALITIES, order, strict=True)}, None)


def label_of(sample: SampleCase) -> np.ndarray:
    label = to_library_labels(sample.seg, "brats2018-2021")
    assert label is not None
    return label


def test_scans_in_their_order_are_sound(sample: SampleCase):
    assert check_order("a", thin_of(sample), label_of(sample)) == []


@pytest.mark.parametrize("order", [order for order in permutations(range(4)) if order != (0, 1, 2, 3)])
def test_every_other_order_is_found(sample: SampleCase, order: tuple[int, ...]):
    (finding,) = check_order("a", thin_of(sample, order), label_of(sample))

    assert finding.rule == "G26-modalities-swapped"
    for listed, at in zip(MODALITIES, order, strict=True):
        says = f"what is listed as {listed} looks like {MODALITIES[at]}"
        assert (says in finding.found) == (listed != MODALITIES[at])


def test_order_does_not_depend_on_the_scale_of_a_scan(sample: SampleCase):
    thin, label = thin_of(sample), label_of(sample)
    scaled = as_thin({name: scan * np.float32(k + 0.5) for k, (name, scan) in enumerate(thin.scans.items())}, None)

    first, second = (describe_looks(case, label) for case in (thin, scaled))

    assert first is not None
    assert second is not None
    assert score_order(first, (0, 1, 2, 3)) == pytest.approx(score_order(second, (0, 1, 2, 3)), rel=1e-3)


def test_case_without_tumour_is_not_judged(sample: SampleCase):
    assert describe_looks(thin_of(sample), np.zeros_like(label_of(sample))) is None


def test_scan_on_another_scale_is_the_same_picture(sample: SampleCase):
    thin = thin_of(sample)
    copied = as_thin({**thin.scans, "t2f": thin.scans["t2w"] * np.float32(0.3)}, None)

    assert check_copies("a", thin) == []
    assert [(f.rule, f.scan, f.found) for f in check_copies("a", copied)] == [
        ("G25-same-volume-twice", "t2f", "t2w and t2f show the same picture, correlation 1.0000")
    ]
