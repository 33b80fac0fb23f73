"""The page of an audit: pictures of what was rebuilt beside the truth, correlations, membership, how to read it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from torch import Tensor

import brats_fl
from brats_fl.constants import MODALITIES
from brats_fl_tools.audit.attacks import Target
from brats_fl_tools.audit.figures import list_warnings, sum_up
from brats_fl_tools.audit.summary import STATES, Attack, Summary
from brats_fl_tools.pages.pictures import Array, as_png, paint_grey
from brats_fl_tools.pages.templates import page_environment

SIDE_PX: Final = 128
PERCENTILES: Final = (1, 99)


@dataclass(frozen=True)
class Row:
    """What was rebuilt from one update: a picture a modality, PNG in base64."""

    attack: Attack
    title: str
    pictures: Mapping[str, str]


def render_page(summary: Summary, target: Target, images: Sequence[Tensor]) -> str:
    """Page of an audit: one HTML text that needs no other file. It shows a patient's scan and names the case.

    Args:
        summary: All figures.
        target: What was looked for.
        images: What each attack came to, in their order.
    """
    inversion = summary.inversion
    rows = [
        Row(attack, inversion.titles[attack.update], paint_all(image, target))
        for attack, image in zip(inversion.attacks, images, strict=True)
    ]
    return (
        page_environment()
        .get_template("audit_page.html")
        .render(
            version=brats_fl.__version__,
            summary=summary,
            headline=sum_up(summary),
            warnings=list_warnings(summary),
            case=target.case,
            modalities=MODALITIES,
            truth=paint_all(target.patches[0][0], target),
            states=[(title, [row for row in rows if row.attack.state == state]) for state, title in STATES.items()],
            kinds={"loss": "low loss", "calibrated": "loss lower than the reference's"},
        )
    )


def paint_all(image: Tensor, target: Target) -> dict[str, str]:
    """The slice through the patch's middle of each modality; each picture has its own bounds of grey.

    What is rebuilt is right in shape at best: brightness and contrast are not looked at.
    """
    middle = image.shape[-1] // 2
    brain = target.brain[..., middle].numpy() > 0
    slices = image[0, ..., middle].numpy()
    return {name: as_png(paint_grey(_grey(one, brain), SIDE_PX)) for name, one in zip(MODALITIES, slices, strict=True)}


def _grey(values: Array, brain: Array) -> Array:
    low, high = np.percentile(values[brain] if brain.any() else values, PERCENTILES)
    return np.asarray(np.clip((values - low) / max(high - low, 1e-6), 0, 1))
