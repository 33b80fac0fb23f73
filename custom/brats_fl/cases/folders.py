"""Cases in a folder, as the bundles' ``inference`` takes them."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from brats_fl.cases.layouts import LOOKED_FOR, FoundCase, join_namesakes, search
from brats_fl.constants import MODALITIES
from brats_fl.errors import DataListError

logger = logging.getLogger(__name__)

FAULT = "fault"
"""Key of an item that stands for a case that cannot be used: why."""


def find_cases(folder: str | Path) -> list[dict[str, Any]]:
    """Items ``{"case", "image": [4 scans], "labels"}`` of every case below a folder, in the order of their names.

    Cases are found by ``layouts.search``, as an import finds them. Labels are not looked at: what is wrong with one,
    or with a folder that holds labels only, such as masks of an earlier run, is passed over. A case that lacks a
    modality, has one twice, has files of another case or of two layouts, or a namesake, and a folder that cannot be
    looked into, are items ``{"case", "fault": why}``: a folder of them does not lose the others.

    Raises:
        DataListError: The folder is missing or holds no case.
        CaseError: A ``dataset.json`` beside ``imagesTr`` is not that of MSD Task01.
    """
    root = Path(folder).resolve()  # a case is named after its folder, and . has no name
    if not root.is_dir():
        raise DataListError(f"{root}: no such folder; set dataset_dir to the folder that holds the cases")
    findings = search(root)
    cases = join_namesakes(found for found in findings.cases if found.files or found.problems)
    if not cases:
        strangers = findings.strangers
        seen = f"; {len(strangers)} NIfTI files have other names, such as {strangers[0]}" if strangers else ""
        raise DataListError(f"{root}: holds no case{seen}. Looked for: {LOOKED_FOR}")
    if findings.strangers:
        logger.warning("%d NIfTI files belong to no case, such as %s", len(findings.strangers), findings.strangers[0])
    return [as_item(found) for found in cases]


def as_item(found: FoundCase) -> dict[str, Any]:
    """A case that was found as an item of a dataset, without its label."""
    if found.problems:
        return {"case": found.case, FAULT: "; ".join(found.problems)}
    image = [str(found.files[modality]) for modality in MODALITIES]
    return {"case": found.case, "image": image, "labels": found.labels}
