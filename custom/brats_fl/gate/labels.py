"""Rules about a label's values: which there are, which convention they follow, and whether the parts lie right."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from brats_fl.cases.datalists import Case
from brats_fl.cases.regions import fitting_tables, to_file_labels
from brats_fl.constants import ED, ET, LABEL, LABEL_TABLES, NCR
from brats_fl.gate.findings import Finding
from brats_fl.gate.voxels import ThinCase

Labels = NDArray[np.uint8]

PART_NAMES: Final = {NCR: "necrotic core", ED: "oedema", ET: "enhancing tumour"}

OUTSIDE_SHARE: Final = 0.01
"""Of the label's voxels; real and sample labels have none outside the brain."""

RIM_RATIO: Final = 1.15
"""How much more of its voxels another part may have at the tumour's rim than oedema has. Of 34 real and sample cases
the most was 0.76 (enhancing tumour) and 0.45 (core); swapped, the least is 1.3 and 2.2."""

FEWEST_VOXELS: Final = 20


def check_values(case: Case, values: NDArray[Any]) -> list[Finding]:
    """What the label's values break.

    Args:
        case: The case, with the convention it is listed with.
        values: Every value of the label, sorted.
    """

    def finding(rule: str, found: str) -> list[Finding]:
        return [Finding(rule, found, case.case, LABEL)]

    odd = values[values != np.floor(values)]  # NaN differs from itself
    if odd.size:
        return finding("G41-label-not-integer", f"holds {_list(odd)}")
    if not np.any(values != 0):
        return finding("G44-label-empty", "every voxel is 0")
    known = np.array(list(LABEL_TABLES[case.labels]))
    unknown = np.setdiff1d(values, known)
    if unknown.size:
        fitting = fitting_tables(values)
        found = f"holds {_list(unknown)}; the convention {case.labels} has {_list(known)}"
        if fitting:
            return finding("G43-label-convention", f"{found}, the values fit {' and '.join(fitting)}")
        return finding("G42-label-unknown-value", found)
    present = {LABEL_TABLES[case.labels][int(value)] for value in values}
    missing = [PART_NAMES[part] for part in (NCR, ED) if part not in present]
    return finding("G45-label-part-missing", f"has no {' and no '.join(missing)}") if missing else []


def check_in_brain(case: str, thin: ThinCase, label: Labels) -> list[Finding]:
    """A label of which more than 1 % lies where no scan shows brain."""
    tumour = label > 0
    brain = np.logical_or.reduce(list(thin.brains.values()))
    share = np.count_nonzero(tumour & ~brain) / max(np.count_nonzero(tumour), 1)
    if share <= OUTSIDE_SHARE:
        return []
    return [Finding("G46-label-outside-brain", f"{share:.0%} of the label lies outside the brain", case, LABEL)]


def check_parts(case: Case, thin: ThinCase, label: Labels) -> list[Finding]:
    """A label whose parts have each other's values, as when another year's or MSD's convention is read.

    Oedema is the outermost part: of its voxels the largest share lies at the tumour's rim. Enhancing tumour is
    brighter than the necrotic core in t1c.
    """
    rims = rim_shares(label)
    outer = {part: share for part, share in rims.items() if part != ED and share > RIM_RATIO * rims.get(ED, 1.0)}
    found = ""
    if outer:
        part = max(outer, key=lambda part: outer[part])
        found = (
            f"{outer[part]:.0%} of what is read as {PART_NAMES[part]} lies at the tumour's rim, but {rims[ED]:.0%} of "
            "the oedema, which should be the outermost"
        )
        values = to_file_labels(np.unique(label), case.labels)
        if others := [name for name in fitting_tables(values) if name != case.labels]:
            found += f"; the values also fit {' and '.join(others)}"
    elif "t1c" in thin.scans and {NCR, ET} <= set(rims):
        core, enhancing = (float(np.median(thin.scans["t1c"][label == part])) for part in (NCR, ET))
        if enhancing < core:
            found = (
                f"what is read as enhancing tumour is darker in t1c than the necrotic core, {enhancing:g} and {core:g}"
            )
    return [Finding("G43-label-convention", found, case.case, LABEL)] if found else []


def rim_shares(label: Labels) -> dict[int, float]:
    """Part -> share of its voxels that touch what is not tumour; parts of fewer than 20 voxels are left out."""
    box = ndimage.find_objects((label > 0).astype(np.uint8))
    if not box:
        return {}
    parts = np.pad(label[box[0]], 1)
    tumour = parts > 0
    rim = tumour & ~ndimage.binary_erosion(tumour, ndimage.generate_binary_structure(3, 2))
    shares = {}
    for part in PART_NAMES:
        here = parts == part
        if (count := np.count_nonzero(here)) >= FEWEST_VOXELS:
            shares[part] = np.count_nonzero(here & rim) / count
    return shares


def _list(values: NDArray[Any], shown: int = 5) -> str:
    text = ", ".join(f"{float(value):g}" for value in values[:shown])
    return text if len(values) <= shown else f"{text} and {len(values) - shown} more values"
