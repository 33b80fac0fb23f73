"""BIDS, and folders that are named like it: ``sub-01/ses-1/anat/sub-01_ses-1_T1w.nii.gz``, derivatives anywhere.

A case is a subject at one session, its files wherever they lie: scans in ``anat``, a label under ``derivatives``. With
contrast agent a T1 is called ``ce-gadolinium_T1w``, or ``T1ce``, ``T1c``, ``T1gd``. What a label's values mean is not
told, so that whoever reads one asks.

Source: https://bids-specification.readthedocs.io, "Magnetic Resonance Imaging" and "Imaging derivatives".
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final, NamedTuple

from brats_fl.cases.found_cases import SEG, FoundCase, ambiguous, choose_files, label_alone
from brats_fl.cases.namings import modality_of
from brats_fl.constants import DEFAULT_LABEL_TABLE, MODALITIES

_NAME = re.compile(
    r"(?P<subject>sub-[A-Za-z0-9]+)(_(?P<session>ses-[A-Za-z0-9]+))?"
    r"(?P<entities>(_[A-Za-z]+-[A-Za-z0-9+]+)*)_(?P<suffix>[A-Za-z0-9]+)"
)
_LABEL_SUFFIXES: Final = ("dseg", "mask", "seg", "segmentation", "roi", "tumor", "tumour", "lesion")
_NO_TUMOUR = re.compile(r"brain|gm|wm|csf|aseg|aparc|tissue|head|skull|cerebellum|ventricle", re.IGNORECASE)

QUESTION: Final = "BIDS does not say what a label's values mean"
EXAMPLES: Final = {"t1c": "ce-gadolinium_T1w", "t1n": "T1w", "t2w": "T2w", "t2f": "FLAIR"}


class BidsName(NamedTuple):
    """What the name of a file says."""

    subject: str
    session: str
    """Empty where there is none."""
    kind: str
    """A modality, or ``seg``."""

    @property
    def case(self) -> str:
        """Subject and session."""
        return "_".join(part for part in (self.subject, self.session) if part)


def read_name(stem: str) -> BidsName | None:
    """What the name of a file says; None where it is no scan and no label of a tumour."""
    match = _NAME.fullmatch(stem)
    if match is None:
        return None
    entities = dict(part.split("-", 1) for part in match["entities"].split("_") if part)
    kind = modality_of(match["suffix"])
    if kind == "t1n" and "ce" in entities:
        kind = "t1c"
    elif match["suffix"] in _LABEL_SUFFIXES and not _NO_TUMOUR.match(entities.get("label", entities.get("desc", ""))):
        kind = SEG
    return BidsName(match["subject"], match["session"] or "", kind) if kind else None


def read_cases(images: Iterable[Path], stem_of: Callable[[Path], str]) -> list[FoundCase]:
    """The cases of all files of a tree that are named as in BIDS."""
    groups: dict[tuple[str, str], dict[str, list[Path]]] = defaultdict(lambda: defaultdict(list))
    for file in images:
        if name := read_name(stem_of(file)):
            groups[name.subject, name.session][name.kind].append(file)
    return [_as_case(BidsName(*key, ""), candidates) for key, candidates in sorted(groups.items())]


def _as_case(name: BidsName, candidates: dict[str, list[Path]]) -> FoundCase:
    scans = [file for modality in MODALITIES for file in candidates.get(modality, ())]
    folder = (scans or candidates[SEG])[0].parent
    if not scans:
        alone = label_alone(candidates[SEG][0], f"{name.case}_T1w.nii.gz")
        return FoundCase(name.case, DEFAULT_LABEL_TABLE, {}, folder, label_problems=(alone,))
    files, problems, label_problems = choose_files(
        candidates, lambda kind: f"no file is named {name.case}_..._{EXAMPLES[kind]}.nii.gz", str(folder)
    )
    return FoundCase(
        case=name.case,
        labels=DEFAULT_LABEL_TABLE,
        files=files,
        folder=folder,
        problems=tuple(problems),
        label_problems=tuple(label_problems),
        patient=name.subject,
        time_point=name.session.removeprefix("ses-"),
        question=QUESTION,
        candidates=ambiguous(candidates),
    )
