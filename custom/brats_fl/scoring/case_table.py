"""The evaluation table: a row per case and region, and what it comes to over the cases."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from brats_fl.constants import MISSED_HD95_MM, REGIONS
from brats_fl.files import CASE_TABLE_COLUMNS, write_whole
from brats_fl.scoring.bland_altman import volume_bias
from brats_fl.scoring.calibration import Reliability, mean_entropy_bits, near_tumour, reliability
from brats_fl.scoring.columns import ALL_COLUMNS, FURTHER, Column
from brats_fl.scoring.lesions import LESION_DILATION, lesion_scores
from brats_fl.scoring.metrics import MM3_PER_ML, as_mask, as_spacing, check_shapes
from brats_fl.scoring.surfaces import Box, Mask, bounding_box, grown, surface_distances

Rows = list[dict[str, Any]]
WT = REGIONS.index("wt")


@dataclass(frozen=True)
class Certainty:
    """What a network said of a case before it became a mask."""

    probability: NDArray[np.floating[Any]]
    """(3, H, W, D) in [0, 1], channels in the order of ``REGIONS``."""
    brain: Mask
    """(H, W, D)."""

    def __post_init__(self) -> None:
        """Check that both are on one grid; ``ValueError`` where they are not."""
        if self.probability.shape != (len(REGIONS), *self.brain.shape):
            raise ValueError(
                f"probability has shape {self.probability.shape}, brain {self.brain.shape}; both must be on the scan's "
                f"own grid, ({len(REGIONS)}, H, W, D) and (H, W, D): invert both"
            )


@dataclass(frozen=True)
class CaseScores:
    """Figures of one case."""

    rows: Rows
    """One per region, in the order of ``REGIONS``."""
    reliability: Mapping[str, Reliability]
    """Region -> its voxels by their probability; empty where no probability is known, or there is no tumour."""


def case_rows(
    case: str, site: str, split: str, pred: Tensor, label: Tensor, spacing_mm: Sequence[float]
) -> list[dict[str, Any]]:
    """Rows of the evaluation table for one case whose probabilities are not known, as ``score_case``."""
    return score_case({"case": case, "site": site, "split": split}, pred, label, spacing_mm).rows


def score_case(
    place: Mapping[str, str],
    pred: Tensor,
    label: Tensor,
    spacing_mm: Sequence[float],
    certainty: Certainty | None = None,
) -> CaseScores:
    """Every figure of one case.

    Args:
        place: ``case``, ``site`` and ``split``, which each row begins with.
        pred: Binary prediction, (3, H, W, D).
        label: Binary reference, same shape.
        spacing_mm: Voxel size along H, W and D.
        certainty: What the prediction was made of; without it calibration and entropy are None.

    Raises:
        ValueError: As ``region_hd95_mm``.
    """
    check_shapes(pred[None], label[None])
    spacing = as_spacing(spacing_mm)
    masks, references = (as_mask(*one).cpu().numpy() for one in (("pred", pred), ("label", label)))
    box = _box_of(masks | references)
    figures = [
        region_figures(mask[box], reference[box], spacing) for mask, reference in zip(masks, references, strict=True)
    ]
    found = _reliability(certainty, references, spacing) if certainty else {}
    rows = [
        {**place, "region": region, **figures[channel], **_of_certainty(*found.get(region, (None, None)))}
        for channel, region in enumerate(REGIONS)
    ]
    return CaseScores(rows, {region: bins for region, (bins, _) in found.items()})


def region_figures(mask: Mask, reference: Mask, spacing_mm: NDArray[np.float64]) -> dict[str, float]:
    """Figures of one region that need no probability, by column; masks are (H, W, D).

    What lies outside may be cut off, but for ``LESION_DILATION`` voxels around both masks.

    A ratio is 1 where both masks are empty and 0 where only one is, as Dice is, and as BraTS 2023's program has it.
    """
    size, reference_size, shared = (int(np.count_nonzero(one)) for one in (mask, reference, mask & reference))
    agree = 1.0 if size == reference_size == 0 else 0.0
    distances = surface_distances(mask, reference, spacing_mm)
    hd95_mm = distances.hd95_mm() if distances else 0.0 if agree else MISSED_HD95_MM
    lesions = lesion_scores(mask, reference, spacing_mm, hd95_mm if distances else None)
    voxel_ml = float(spacing_mm.prod()) / MM3_PER_ML
    return {
        "dice": 2 * shared / (size + reference_size) if size + reference_size else agree,
        "hd95_mm": hd95_mm,
        "volume_ml": size * voxel_ml,
        "reference_volume_ml": reference_size * voxel_ml,
        "nsd_1mm": distances.surface_dice() if distances else agree,
        "sensitivity": shared / reference_size if reference_size else agree,
        "precision": shared / size if size else agree,
        "lesion_dice": lesions.dice,
        "lesion_hd95_mm": lesions.hd95_mm,
        "lesions_found": lesions.found,
        "lesions_missed": lesions.missed,
        "lesions_false": lesions.false,
    }


def _box_of(regions: NDArray[np.bool_]) -> Box:
    """What all regions (3, H, W, D) lie in, with room for a lesion's dilation; a voxel where there is none."""
    anything: Mask = np.logical_or.reduce(regions)
    if not anything.any():
        return slice(0, 1), slice(0, 1), slice(0, 1)
    return grown(bounding_box(anything), (LESION_DILATION,) * 3, anything.shape)


def _reliability(
    certainty: Certainty, references: NDArray[np.bool_], spacing_mm: NDArray[np.float64]
) -> dict[str, tuple[Reliability, float | None]]:
    """Region -> its voxels near the tumour by their probability, and their mean entropy."""
    near = near_tumour(references[WT], certainty.brain, spacing_mm.tolist())
    if near is None:
        return {}
    box, chosen = near
    found = {}
    for channel, region in enumerate(REGIONS):
        probability = certainty.probability[channel][box][chosen]
        bins = reliability(probability, references[channel][box][chosen])
        found[region] = (bins, mean_entropy_bits(probability))
    return found


def _of_certainty(bins: Reliability | None, entropy_bits: float | None) -> dict[str, float | None]:
    return {"ece": bins.expected_error() if bins else None, "entropy_bits": entropy_bits}


def summarise(rows: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, dict[str, Any]]]:
    """Mean, median and worst of each figure over the cases, per region; of lesions their number, of volumes the bias.

    Args:
        rows: As ``case_rows`` makes them, or as read back from the table.

    Returns:
        ``{region: {"dice": {"mean", "median", "worst"}, "hd95_mm": {...}, "lesions_found": {"total"}, ...,
        "volume_bias": {"bias_ml", ...}}}``; the worst Dice is the smallest, the worst HD95 the largest.
        A region without rows is absent, and so is a figure that no row has.
    """
    table = list(rows)
    summary = {}
    for region in REGIONS:
        of_region = [row for row in table if row["region"] == region]
        if of_region:
            summary[region] = _summarise_region(of_region)
    return summary


DICE_AND_HD95 = (Column("dice", "Dice", "lowest"), Column("hd95_mm", "HD95 in mm", "largest", digits=3))


def _summarise_region(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    summary: dict[str, dict[str, Any]] = {}
    for column in (*DICE_AND_HD95, *FURTHER):
        values = [float(row[column.name]) for row in rows if row.get(column.name) not in (None, "")]
        if values and column.is_count:
            summary[column.name] = {"total": sum(values)}
        elif values:
            worst = (min if column.worst == "lowest" else max)(values)
            summary[column.name] = {"mean": fmean(values), "median": median(values), "worst": worst}
    volumes = [(float(row["volume_ml"]), float(row["reference_volume_ml"])) for row in rows if "volume_ml" in row]
    if bias := volume_bias([one for one, _ in volumes], [other for _, other in volumes]):
        summary["volume_bias"] = asdict(bias)
    return summary


def write_case_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows as CSV; the file appears whole or not at all."""
    write_whole(path, format_case_table(rows))


def format_case_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as CSV; ratios to 5 digits, mm and ml to 3, an empty field for a figure that is not known."""
    table = io.StringIO()
    writer = csv.writer(table)
    writer.writerow(ALL_COLUMNS)
    for row in rows:
        writer.writerow(
            [
                *(row[name] for name in CASE_TABLE_COLUMNS[:4]),
                f"{row['dice']:.5f}",
                *(f"{row[name]:.3f}" for name in CASE_TABLE_COLUMNS[5:]),
                *(_field(row.get(column.name), column.digits) for column in FURTHER),
            ]
        )
    return table.getvalue()


def _field(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"
