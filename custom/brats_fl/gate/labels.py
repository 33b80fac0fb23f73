"""Rules about a label's values: which there are, which convention they follow, and whether the parts lie right."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from brats_fl.cases.datalists import Case
from brats_fl.cases.regions import count_voxels, fitting_tables, list_values, to_file_labels
from brats_fl.constants import ED, ET, LABEL, LABEL_TABLES, NCR
from brats_fl.gate.certainty import DOUBTFUL, SURE, count_pieces, excess_of_ranks, excess_of_shares
from brats_fl.gate.findings import Finding
from brats_fl.gate.voxels import LabelValues, ThinCase

Labels = NDArray[np.uint8]

PART_NAMES: Final = {NCR: "necrotic core", ED: "oedema", ET: "enhancing tumour"}

OUTSIDE_SHARE: Final = 0.01
"""Of the label's voxels; real and sample labels have none outside the brain."""

SURELY_OUTSIDE: Final = 0.1
"""So much is an error. Less is lost where skull stripping ate into a tumour at the brain's surface."""

RIM_RATIO: Final = 1.15
"""How much more of its voxels another part may have at the tumour's rim than oedema has, where both are large."""


def check_values(case: Case, label: LabelValues) -> list[Finding]:
    """What the label's values break.

    Args:
        case: The case, with the convention it is listed with.
        label: Every value of the label.
    """
    values, counts = label

    def finding(rule: str, found: str) -> list[Finding]:
        return [Finding(rule, found, case.case, LABEL)]

    def holding(odd: NDArray[np.bool_]) -> str:
        return f"holds {list_values(values[odd])} in {count_voxels(int(counts[odd].sum()))}"

    fractional = values != np.floor(values)  # NaN differs from itself
    if fractional.any():
        return finding("G41-label-not-integer", holding(fractional))
    if not np.any(values != 0):
        return finding("G44-label-empty", "every voxel is 0")
    known = np.array(list(LABEL_TABLES[case.labels]))
    unknown = ~np.isin(values, known)
    if unknown.any():
        fitting = fitting_tables(values)
        found = f"{holding(unknown)}; the convention {case.labels} has {list_values(known)}"
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
    found = f"{share:.0%} of the label lies outside the brain"
    return [Finding("G46-label-outside-brain", found, case, LABEL, doubtful=share <= SURELY_OUTSIDE)]


def check_parts(case: Case, thin: ThinCase, label: Labels) -> list[Finding]:
    """A label whose parts have each other's values, as when another year's or MSD's convention is read.

    Oedema is the outermost part: of its voxels the largest share lies at the tumour's rim. Enhancing tumour is
    brighter than the necrotic core in t1c.
    """
    found, excess = _outer_part(case, thin, label)
    if excess < DOUBTFUL:
        found, excess = _dark_enhancing(thin, label)
    if excess < DOUBTFUL:
        return []
    return [Finding("G43-label-convention", found, case.case, LABEL, doubtful=excess < SURE)]


def _outer_part(case: Case, thin: ThinCase, label: Labels) -> tuple[str, float]:
    """The part that lies further out than oedema, and by how many standard errors; nothing is said below 0."""
    rims = rim_excess(label, thin.spacing_mm)
    part = max(rims, key=lambda part: rims[part], default=NCR)
    if rims.get(part, 0.0) <= 0:
        return "", 0.0
    shares = rim_shares(label)
    found = (
        f"{shares[part]:.0%} of what is read as {PART_NAMES[part]} lies at the tumour's rim, but {shares[ED]:.0%} of "
        "the oedema, which should be the outermost"
    )
    if others := [n for n in fitting_tables(to_file_labels(np.unique(label), case.labels)) if n != case.labels]:
        found += f"; the values also fit {' and '.join(others)}"
    return found, rims[part]


def rim_excess(label: Labels, spacing_mm: NDArray[np.float64]) -> dict[int, float]:
    """Core and enhancing tumour -> standard errors by which more of it lies at the rim than may, compared to oedema."""
    shares = rim_shares(label)
    pieces = {part: count_pieces(int(np.count_nonzero(label == part)), spacing_mm) for part in shares}
    if ED not in shares:
        return {}
    return {
        part: excess_of_shares(share, pieces[part], shares[ED], pieces[ED], RIM_RATIO)
        for part, share in shares.items()
        if part != ED
    }


def _dark_enhancing(thin: ThinCase, label: Labels) -> tuple[str, float]:
    """Enhancing tumour that is darker than the core after contrast agent, and by how many standard errors."""
    excess = dark_excess(thin, label)
    if excess <= 0:
        return "", 0.0
    core, enhancing = (float(np.median(thin.scans["t1c"][label == part])) for part in (NCR, ET))
    found = f"what is read as enhancing tumour is darker in t1c than the necrotic core, {enhancing:g} and {core:g}"
    return found, excess


def dark_excess(thin: ThinCase, label: Labels) -> float:
    """Standard errors by which the core is brighter in t1c than enhancing tumour; 0 where one is missing."""
    if "t1c" not in thin.scans or not {NCR, ET} <= set(np.unique(label)):
        return 0.0
    core, enhancing = (thin.scans["t1c"][label == part] for part in (NCR, ET))
    pieces = [count_pieces(len(part), thin.spacing_mm) for part in (core, enhancing)]
    return excess_of_ranks(core, pieces[0], enhancing, pieces[1])


def rim_shares(label: Labels) -> dict[int, float]:
    """Part that the label has -> share of its voxels that touch what is not tumour."""
    box = ndimage.find_objects((label > 0).astype(np.uint8))
    if not box:
        return {}
    parts = np.pad(label[box[0]], 1)
    tumour = parts > 0
    rim = tumour & ~ndimage.binary_erosion(tumour, ndimage.generate_binary_structure(3, 2))
    return {
        part: np.count_nonzero((parts == part) & rim) / count
        for part in PART_NAMES
        if (count := np.count_nonzero(parts == part))
    }
