"""Cases in a folder, as the bundles' ``inference`` takes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from brats_fl.cases.layouts import LOOKED_FOR, join_namesakes, search
from brats_fl.constants import MODALITIES
from brats_fl.errors import CaseError, DataListError


def find_cases(folder: str | Path) -> list[dict[str, Any]]:
    """Items ``{"case", "image": [4 scans], "labels"}`` of every case below a folder, in the order of their names.

    Cases are found by ``layouts.search``, as an import finds them. Labels are not looked at: what is wrong with one,
    or with a folder that holds labels only, such as masks of an earlier run, is passed over.

    Raises:
        DataListError: The folder is missing or holds no case.
        CaseError: A case lacks a modality, has one twice, has files of another case or of two layouts, or there are two
            of its name; or a folder cannot be looked into. All of them are named.
    """
    root = Path(folder).resolve()  # a case is named after its folder, and . has no name
    if not root.is_dir():
        raise DataListError(f"{root}: no such folder; set dataset_dir to the folder that holds the cases")
    findings = search(root)
    cases = join_namesakes(found for found in findings.cases if found.files or found.problems)
    if problems := [f"{found.case}: {problem}" for found in cases for problem in found.problems]:
        raise CaseError("\n".join(problems))
    if not cases:
        strangers = findings.strangers
        seen = f"; {len(strangers)} NIfTI files have other names, such as {strangers[0]}" if strangers else ""
        raise DataListError(f"{root}: holds no case{seen}. Looked for: {LOOKED_FOR}")
    return [
        {
            "case": found.case,
            "image": [str(found.files[modality]) for modality in MODALITIES],
            "labels": found.labels,
        }
        for found in cases
    ]
