"""How far sound cases stay from the thresholds of the gate's heuristics, cross-validated by institution.

For each heuristic a number is measured in every sound case. Each institution is left out once; from the other ones'
mean and deviation follows the limit that a sound case passes once in a thousand times (Student's t, one more
observation). A heuristic may say error only beyond the limit, whichever institution was left out.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import permutations

import numpy as np
from scipy import stats
from tests.gate_mutations.clean_cases import Clean
from tests.shared_data import REAL_CASES

from brats_fl.cases.grids import main_grid
from brats_fl.cases.regions import to_library_labels
from brats_fl.cases.scan_values import SURELY_A_HEAD_ML, SURELY_HOT, reach_of
from brats_fl.cases.scans import VolumeReader
from brats_fl.constants import ED, ET, NCR
from brats_fl.gate import appearance, labels, tumour_fit
from brats_fl.gate.certainty import FEWEST_PIECES, count_pieces
from brats_fl.gate.headers import check_case_headers
from brats_fl.gate.voxels import ThinCase, read_case

ONCE_IN = 1000


@dataclass(frozen=True)
class Heuristic:
    """A number that says error above a threshold."""

    rule: str
    measures: str
    threshold: float
    scale: Callable[[float], float]
    """Increasing; of the numbers, their cube roots, their logarithms and Fisher's transform of a correlation the one
    that makes sound cases lie least skewed about their mean."""
    unscale: Callable[[float], float]


def cube(number: float) -> float:
    """The inverse of a cube root."""
    return number**3


HEURISTICS = {
    "copies": Heuristic(
        "G25-same-volume-twice", "largest correlation of two scans", appearance.ONE_PICTURE, math.atanh, math.tanh
    ),
    "order": Heuristic(
        "G26-modalities-swapped",
        "points by which the best other order leads",
        appearance.SURELY_BETTER,
        float,
        float,
    ),
    "reach": Heuristic(
        "G27-hot-voxels",
        "farthest voxel, in ranges of the brain's middle 98 %",
        SURELY_HOT,
        math.log,
        math.exp,
    ),
    "volume": Heuristic("G31-not-stripped", "ml of brain", SURELY_A_HEAD_ML, float, float),
    "rim": Heuristic(
        "G43-label-convention",
        "share at the rim, another part's over oedema's",
        labels.RIM_RATIO,
        float,
        float,
    ),
    "dark": Heuristic(
        "G43-label-convention",
        "share of pairs in which core is brighter than enhancing tumour",
        0.5,
        np.cbrt,
        cube,
    ),
    "turned": Heuristic(
        "G47-label-not-on-image",
        "fit in the best other orientation over the fit as given",
        tumour_fit.SURELY_BETTER,
        np.cbrt,
        cube,
    ),
    "unfit": Heuristic(
        "G47-label-not-on-image",
        "share of the scans' contrast that the label leaves unexplained",
        1 - tumour_fit.SURELY_NO_FIT,
        float,
        float,
    ),
}


@dataclass(frozen=True)
class Margin:
    """What the sound cases say of a heuristic's threshold."""

    cases: int
    worst: float
    """The sound case that comes nearest to an error."""
    limit: float
    """Passed by a sound case once in a thousand times; the largest of all institutions left out."""
    left_out: str
    """The institution whose absence gives that limit."""


def measure_case(clean: Clean) -> dict[str, float]:
    """The number of each heuristic that judges a case."""
    _, grids = check_case_headers(clean.case)
    thin = read_case(clean.case, grids, main_grid(grids)).thin
    label = to_library_labels(thin.label, clean.case.labels)
    sample = tumour_fit.draw_sample(thin, label)
    given = tumour_fit.fit(sample)
    turned = max(tumour_fit.fit(sample, placement) for placement in tumour_fit.other_orientations(label.shape))
    together = np.corrcoef([scan[thin.brain] for scan in thin.scans.values()])
    numbers = {
        "copies": float(together[np.triu_indices(4, 1)].max()),
        "reach": max(reach_of(VolumeReader().read(scan).voxels) for scan in clean.case.image),
        "volume": np.count_nonzero(thin.brain) * float(np.prod(thin.spacing_mm)) / 1000,
        "turned": turned / given,
        "unfit": 1 - given,
    }
    if (looks := appearance.describe_looks(thin, label)) is not None:
        listed, *others = (appearance.score_order(looks, order) for order in permutations(range(4)))
        numbers["order"] = max(others) - listed
    return numbers | _measure_parts(thin, label)


def _measure_parts(thin: ThinCase, label: labels.Labels) -> dict[str, float]:
    """Of parts that are large enough to be judged."""
    large = {p for p in (NCR, ED, ET) if count_pieces(np.count_nonzero(label == p), thin.spacing_mm) >= FEWEST_PIECES}
    rims = labels.rim_shares(label)
    numbers = {}
    if ED in large and len(large) > 1:
        numbers["rim"] = max(rims[part] for part in large - {ED}) / rims[ED]
    if {NCR, ET} <= large:
        core, enhancing = (thin.scans["t1c"][label == part] for part in (NCR, ET))
        numbers["dark"] = float((np.searchsorted(np.sort(enhancing), core) / len(enhancing)).mean())
    return numbers


def institution_of(clean: Clean) -> str:
    """Where a case comes from: the sample's hospital, or the real one of the table beside the real cases."""
    name = clean.case.case
    if name.startswith("Sample_"):
        return f"sample {name.split('_')[1]}"
    with (REAL_CASES.parent / "cases.csv").open(encoding="utf-8") as file:
        return {row["case"]: row["institution"] for row in csv.DictReader(file)}.get(name, "another")


def find_margins(cases: Iterable[tuple[str, Mapping[str, float]]]) -> dict[str, Margin]:
    """The margin of every heuristic.

    Args:
        cases: Institution and numbers of every sound case.
    """
    measured = list(cases)
    margins = {}
    for name, heuristic in HEURISTICS.items():
        rows = [(place, numbers[name]) for place, numbers in measured if name in numbers]
        if not rows:
            continue
        limits = {
            left_out: heuristic.unscale(
                find_limit([heuristic.scale(number) for place, number in rows if place != left_out])
            )
            for left_out, _ in rows
        }
        left_out = max(limits, key=lambda place: limits[place])
        margins[name] = Margin(len(rows), max(number for _, number in rows), limits[left_out], left_out)
    return margins


def find_limit(numbers: list[float]) -> float:
    """What one more number like these exceeds once in a thousand times."""
    count = len(numbers)
    far = float(stats.t.ppf(1 - 1 / ONCE_IN, count - 1)) * math.sqrt(1 + 1 / count)
    return float(np.mean(numbers) + far * np.std(numbers, ddof=1))


def draw_margins(margins: Mapping[str, Margin]) -> str:
    """A row a heuristic."""
    lines = [
        ["rule", "number", "error above", "sound cases", "nearest sound case", "once in 1,000", "left out"],
        ["---"] * 7,
    ]
    for name, margin in margins.items():
        heuristic = HEURISTICS[name]
        numbers = (f"{number:.4g}" for number in (heuristic.threshold, margin.worst, margin.limit))
        threshold, worst, limit = numbers
        row = [f"`{heuristic.rule}`", heuristic.measures, threshold, str(margin.cases), worst, limit, margin.left_out]
        lines.append(row)
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)
