"""nnU-Net's raw data sets: a file a channel, and ``dataset.json`` says what the channels and the label values are.

```
dataset.json                              "channel_names": {"0": "T1", "1": "T1ce", ...}, "labels": {...}
imagesTr/case_0000.nii.gz to _0003        labelsTr/case.nii.gz
imagesTs/case_0000.nii.gz to _0003        labelsTs/case.nii.gz, may be absent
```

Version 1 calls the channels ``modality`` and turns ``labels`` round. Which channel is which, and what a value means, is
taken from there and never guessed. Source: nnU-Net's documentation, "dataset_format.md" (Isensee et al. 2021).
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from brats_fl.cases.found_cases import SEG, FoundCase, ambiguous, choose_files
from brats_fl.cases.msd import DATASET_FILE, IMAGES, LABELS, TEST_IMAGES, list_images
from brats_fl.cases.namings import modality_of
from brats_fl.cases.nifti import nifti_stem
from brats_fl.constants import DEFAULT_LABEL_TABLE, ED, ET, LABEL_TABLES, MODALITIES, NCR, REGION_LABELS
from brats_fl.errors import CaseError
from brats_fl.reading import Reader
from brats_fl.typed import shorten

TEST_LABELS: Final = "labelsTs"
PAIRS: Final = ((IMAGES, LABELS), (TEST_IMAGES, TEST_LABELS))
_CHANNEL = re.compile(r"(?P<case>.+)_(?P<channel>\d{4})")
LONGEST_LABELS: Final = 1000
"""Characters of ``labels`` in the question."""

_NUMBER = re.compile("[0-9]{1,4}")

QUESTION: Final = "the names of the labels in dataset.json are not those of a convention"

EXAMPLE: Final = json.dumps(
    {
        **dict.fromkeys(MODALITIES, f"{IMAGES}/{{case}}_000?.nii.gz"),
        SEG: f"{LABELS}/{{case}}.nii.gz",
        "labels": " or ".join(LABEL_TABLES),
    }
)
"""A mapping that the user completes: which channel is which only he knows."""

# The whole tumour before its parts, non-enhancing before enhancing: the first that fits counts.
_PARTS: Final = (
    ("wt", r"whole|\bwt\b"),
    ("tc", r"^(?!.*(necro|enh)).*core|\btc\b"),
    (ED, r"o?edema|snfh|\bed\b|infiltrat"),
    (NCR, r"necr|non.?enh|\bncr\b|\bnetc?\b"),
    (ET, r"enh|\bet\b|\bat\b"),
)


def is_nnunet(folder: Path) -> bool:
    """Whether a folder is laid out as a raw data set of nnU-Net: its files are numbered by channels."""
    return any(_channel_of(file) == "0000" for name, _ in PAIRS for file in list_images(folder, name))


def _channel_of(file: Path) -> str | None:
    match = _CHANNEL.fullmatch(nifti_stem(file) or "")
    return match["channel"] if match else None


def read_cases(folder: Path) -> list[FoundCase]:
    """The cases of a data set.

    Raises:
        CaseError: ``dataset.json`` is not there, cannot be read, or does not name each of the four modalities once.
    """
    content = _read_dataset(folder)
    channels = read_channels(folder, content)
    labels, question = read_convention(content)
    return [
        _as_case(case, candidates, folder / images, channels, labels, question)
        for images, labelled in PAIRS
        for case, candidates in sorted(_sort_files(folder, images, labelled, channels).items())
    ]


def _read_dataset(folder: Path) -> dict[str, Any]:
    path = folder / DATASET_FILE
    if not path.exists():
        raise CaseError(
            f"{path} is missing, which says what the channels _0000 to _0003 are; restore it, or describe the folder "
            f"with a mapping, a number for each ?: {EXAMPLE}"
        )
    return Reader(CaseError, "restore it").json_object(path)


def read_channels(folder: Path, content: Mapping[str, Any]) -> dict[str, str]:
    """Channel number, such as ``0003``, -> modality."""
    names = content.get("channel_names", content.get("modality"))
    named = {str(number): str(name) for number, name in names.items()} if isinstance(names, dict) else {}
    numbers = {number: name for number, name in named.items() if _NUMBER.fullmatch(number)}
    found = {f"{int(n):04d}": modality for n, name in numbers.items() if (modality := modality_of(name))}
    if sorted(found.values()) != sorted(MODALITIES):
        got = shorten(", ".join(f"{number} {name}" for number, name in named.items()))[1:-1] or "nothing"
        raise CaseError(
            f"{folder / DATASET_FILE}: channel_names must name t1c, t1n, t2w and t2f, each once, in any usual spelling "
            f"(got {got}); mend it, or describe the folder with a mapping, a number for each ?: {EXAMPLE}"
        )
    return found


def read_convention(content: Mapping[str, Any]) -> tuple[str, str]:
    """The label convention that ``labels`` describes, and a question that is empty where it does so for certain."""
    labels = content.get("labels")
    try:
        meaning = _meaning_of(labels) if isinstance(labels, dict) else None
    except (TypeError, ValueError):  # a value that is no whole number
        meaning = None
    for name, table in LABEL_TABLES.items():
        if meaning is not None and meaning == {value: part for value, part in table.items() if part}:
            return name, ""
    return DEFAULT_LABEL_TABLE, f"{QUESTION}: {json.dumps(labels)[:LONGEST_LABELS]}"


def _meaning_of(labels: Mapping[str, Any]) -> dict[int, int] | None:
    """Value -> part of the tumour, from names of parts or of regions; None where a name is neither."""
    if all(_NUMBER.fullmatch(str(key)) for key in labels):  # version 1
        labels = {str(name): int(value) for value, name in labels.items()}
    parts: dict[int, int] = {}
    regions: dict[str, set[int]] = {}
    for name, value in labels.items():
        if name.lower() in ("background", "ignore", "label"):
            continue
        part = next((part for part, words in _PARTS if re.search(words, _spaced(name))), None)
        values = {int(one) for one in value} if isinstance(value, (list, tuple)) else {int(value)}
        if part is None:
            return None
        if isinstance(part, str) or part == ET:
            regions["et" if part == ET else str(part)] = values
        if isinstance(part, int) and len(values) == 1:
            (one,) = values
            parts[one] = part
    if set(regions) == set(REGION_LABELS):
        return _from_regions(regions)
    return parts if set(regions) == {"et"} else None


def _spaced(name: str) -> str:
    return re.sub(r"[_\-]", " ", name.lower())


def _from_regions(regions: Mapping[str, set[int]]) -> dict[int, int] | None:
    enhancing, core, whole = regions["et"], regions["tc"], regions["wt"]
    if not (enhancing < core < whole and len(whole) == 3):
        return None
    return {
        **dict.fromkeys(enhancing, ET),
        **dict.fromkeys(core - enhancing, NCR),
        **dict.fromkeys(whole - core, ED),
    }


def _sort_files(
    folder: Path, images: str, labelled: str, channels: Mapping[str, str]
) -> dict[str, dict[str, list[Path]]]:
    cases: dict[str, dict[str, list[Path]]] = defaultdict(lambda: defaultdict(list))
    for file in list_images(folder, images):
        match = _CHANNEL.fullmatch(nifti_stem(file) or "")
        if match and match["channel"] in channels:
            cases[match["case"]][channels[match["channel"]]].append(file)
    for file in list_images(folder, labelled):
        if (case := nifti_stem(file)) in cases:
            cases[case][SEG].append(file)
    return cases


def _as_case(
    case: str, candidates: dict[str, list[Path]], folder: Path, channels: Mapping[str, str], labels: str, question: str
) -> FoundCase:
    numbers = {modality: number for number, modality in channels.items()}
    files, problems, label_problems = choose_files(
        candidates, lambda kind: f"{case}_{numbers[kind]}.nii.gz must be in {folder}", str(folder)
    )
    if folder.name == IMAGES and SEG not in candidates:
        missing = folder.parent / LABELS / f"{case}.nii.gz"
        label_problems.append(f"{missing} is missing; restore it, or move the case to {TEST_IMAGES}")
    return FoundCase(
        case=case,
        labels=labels,
        files=files,
        folder=folder,
        problems=tuple(problems),
        label_problems=tuple(label_problems),
        question=question,
        candidates=ambiguous(candidates),
    )
