"""Cases in 3-D on a page: scans and masks within the file, and NiiVue, which shows them in a browser without a network.

NiiVue is not part of this repository: whoever wants the view gives the package as npm has it. A page that holds
patients' scans runs no code but this release of it and ``viewer.js``, each by its hash.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import nibabel as nib
import numpy as np
from markupsafe import Markup

from brats_fl.errors import BratsFLError, RunError
from brats_fl.provenance import hash_file
from brats_fl_tools.pages.formats import format_count
from brats_fl_tools.pages.pictures import LABEL_COLOURS, LABEL_NAMES
from brats_fl_tools.report.case_results import CaseResult
from brats_fl_tools.report.cuts import fullest_slice
from brats_fl_tools.report.overlays import MODALITY_NAMES, Array, OpenCase, choose_cases, masked_cases, open_result
from brats_fl_tools.report.run_folder import RunFolder

NIIVUE: Final = "0.69.0"
PACKAGE_SHA256: Final = "6e9a6a471b428eb3b258a0086beca9187d95e43a781a39e8a519c6da246af485"
"""Of the package's file at registry.npmjs.org, which never changes; a new release is looked at and named here."""

SCRIPT_IN_PACKAGE: Final = "package/dist/niivue.umd.js"
FETCH: Final = f"npm pack @niivue/niivue@{NIIVUE}"

MOST_BYTES: Final = 24_000_000
"""Of all scans and masks of a page, as they stand in it: six cases of 1 mm, which a browser opens in seconds."""

OWN_SCRIPT: Final = Path(__file__).with_name("viewer.js")


@dataclass(frozen=True)
class Wanted:
    """What the view is to be made of."""

    package: Path
    """NiiVue's package as ``FETCH`` writes it."""
    cases: tuple[str, ...] = ()
    """``CASE`` or ``SITE/CASE``, to be shown beside the best and the worst."""


@dataclass(frozen=True)
class ViewedCase:
    """A case as the page holds it."""

    title: str
    centre_mm: tuple[float, ...]
    """Where the view is cut at first: the slices with the most tumour."""
    volumes: Mapping[str, str]
    """``T1c``, ``FLAIR``, ``reference``, ``prediction`` -> NIfTI, gzip, base64."""

    @property
    def bytes(self) -> int:
        """Of the volumes as they stand in the page."""
        return sum(map(len, self.volumes.values()))


@dataclass(frozen=True)
class Viewer:
    """The view of a page."""

    cases: tuple[ViewedCase, ...]
    notes: tuple[str, ...]
    """A line on everything that is not shown."""
    niivue: Markup
    script: Markup

    @cached_property
    def policy(self) -> str:
        """What the page's policy says of scripts: these two and no others."""
        digests = [hashlib.sha256(text.encode()).digest() for text in (self.niivue, self.script)]
        return "script-src " + " ".join(f"'sha256-{base64.b64encode(one).decode()}'" for one in digests)

    @property
    def data(self) -> list[dict[str, Any]]:
        """What ``viewer.js`` reads."""
        return [{"title": one.title, "centre_mm": one.centre_mm, "volumes": one.volumes} for one in self.cases]

    @property
    def scans(self) -> tuple[str, ...]:
        """Modalities to choose among."""
        return tuple(MODALITY_NAMES[name] for name in ("t1c", "t2f"))

    @property
    def labels(self) -> dict[str, list[Any]]:
        """NiiVue's table of label colours: 0 is clear."""
        colours = [(0, 0, 0), *(LABEL_COLOURS[label] for label in sorted(LABEL_COLOURS))]
        red, green, blue = (list(channel) for channel in zip(*colours, strict=True))
        names = ["", *(LABEL_NAMES[label] for label in sorted(LABEL_COLOURS))]
        return {"R": red, "G": green, "B": blue, "A": [0, 255, 255, 255], "I": [0, 1, 2, 3], "labels": names}

    @property
    def legend(self) -> dict[str, str]:
        """Name of a label -> its colour."""
        return {LABEL_NAMES[label]: "#{:02x}{:02x}{:02x}".format(*rgb) for label, rgb in LABEL_COLOURS.items()}


def read_niivue(package: Path) -> str:
    """NiiVue's script out of its package.

    Raises:
        RunError: The package is missing, or is another than ``PACKAGE_SHA256``.
    """
    how = f"write it with `{FETCH}`, where there is a network, and give --viewer niivue-niivue-{NIIVUE}.tgz"
    try:
        found = hash_file(package)
    except OSError as error:
        raise RunError(f"--viewer {package}: cannot be read ({error.strerror}); {how}") from error
    if found != PACKAGE_SHA256:
        raise RunError(
            f"--viewer {package}: must be the package of NiiVue {NIIVUE} as npm has it, SHA-256 {PACKAGE_SHA256} "
            f"(got {found}): no other script runs beside patients' scans; {how}"
        )
    with tarfile.open(package) as archive:
        file = archive.extractfile(SCRIPT_IN_PACKAGE)
        assert file is not None  # by its hash
        return file.read().decode()


def build_viewer(wanted: Wanted, runs: Mapping[str, RunFolder], sites: Path | None = None) -> Viewer:
    """The chosen cases of each run, its worst and its best, as far as they can be opened and the bytes reach.

    Args:
        wanted: Package and chosen cases.
        runs: Name for a reader, empty of one alone -> run with masks.
        sites: Folder with ``SITE/datalist.json``, where a run's own word on it does not hold here.

    Raises:
        RunError: As ``read_niivue``, or no run has a mask of a chosen case.
    """
    niivue = read_niivue(wanted.package)
    chosen = {name: choose_viewed(masked_cases(run), wanted.cases) for name, run in runs.items()}
    for case in wanted.cases:
        if not any(is_named(case, result) for found in chosen.values() for _, result in found):
            raise RunError(f"--viewer-case {case}: {_say_which(runs)}")
    cases: list[ViewedCase] = []
    notes = [] if any(chosen.values()) else ["No case is shown in 3-D: that needs masks; see Pictures."]
    for name, role, result in _in_turn(chosen):
        try:
            viewed = view_case(open_result(runs[name], result, sites), title_of(name, role, result))
        except BratsFLError as error:
            notes.append(f"{result.case} of {result.site} is not shown in 3-D: {error}")
            continue
        if sum(other.bytes for other in cases) + viewed.bytes > MOST_BYTES:
            notes.append(
                f"Only {format_count(len(cases), 'case')} in 3-D: one more would pass {MOST_BYTES / 1e6:g} MB of scans."
            )
            break
        cases.append(viewed)
    script = OWN_SCRIPT.read_text(encoding="utf-8")
    return Viewer(tuple(cases), tuple(notes), Markup(niivue), Markup(script))


def _in_turn(chosen: Mapping[str, Sequence[tuple[str, CaseResult]]]) -> Iterator[tuple[str, str, CaseResult]]:
    """The first of each run, then the second of each: no run takes all the bytes."""
    for place in range(max(map(len, chosen.values()), default=0)):
        yield from ((name, *found[place]) for name, found in chosen.items() if place < len(found))


def choose_viewed(masked: Sequence[CaseResult], named: Sequence[str]) -> list[tuple[str, CaseResult]]:
    """Cases that are named, then the worst and the best by mean Dice, each once, with its role."""
    ends = choose_ends(masked)
    asked = [result for name in named for result in masked if is_named(name, result)]
    found: list[CaseResult] = []
    for result in (*asked, *(result for _, result in ends)):
        if result not in found:
            found.append(result)
    return [(next((role for role, end in ends if end == result), ""), result) for result in found]


def choose_ends(masked: Sequence[CaseResult]) -> list[tuple[str, CaseResult]]:
    """The worst and the best case with their roles; one alone, or none."""
    ranked = choose_cases(masked) if masked else []
    return [ranked[0], *ranked[1:][-1:]] if ranked else []


def is_named(name: str, result: CaseResult) -> bool:
    """Whether ``CASE`` or ``SITE/CASE`` means it."""
    return name in (result.case, f"{result.site}/{result.case}")


def title_of(run: str, role: str, result: CaseResult) -> str:
    """Such as ``Worst: a1, hospital-1``."""
    return f"{f'{run}, ' if run else ''}{f'{role}: ' if role else ''}{result.case}, {result.site}"


def _say_which(runs: Mapping[str, RunFolder]) -> str:
    names = list(dict.fromkeys(f"{one.site}/{one.case}" for run in runs.values() for one in masked_cases(run)))
    if not names:
        return "there are no masks; write them with `brats-fl evaluate --masks`"
    more = f" and {len(names) - 20} more" if len(names) > 20 else ""
    return f"no such case with a predicted mask; there are {', '.join(names[:20])}{more}"


def view_case(case: OpenCase, title: str) -> ViewedCase:
    """A case cut to the head, of one byte a voxel."""
    inside = np.logical_or.reduce([*(scan > 0 for scan in case.grey.values()), case.reference > 0, case.prediction > 0])
    box = _box_of(inside)
    tumour = (case.reference[box] > 0) if case.reference.any() else case.prediction[box] > 0
    centre = [fullest_slice(tumour, axis) for axis in range(3)]
    grey = {MODALITY_NAMES[name]: np.rint(255 * scan[box]) for name, scan in case.grey.items()}
    masks = {"reference": case.reference[box], "prediction": case.prediction[box]}
    return ViewedCase(
        title,
        tuple(level * step for level, step in zip(centre, case.spacing_mm, strict=True)),
        {name: pack(volume.astype(np.uint8), case.spacing_mm) for name, volume in {**grey, **masks}.items()},
    )


def _box_of(inside: Array) -> tuple[slice, ...]:
    """Smallest box around what is marked; all without a mark."""
    if not inside.any():
        return (slice(None),) * inside.ndim
    spans = []
    for axis in range(inside.ndim):
        others = tuple(other for other in range(inside.ndim) if other != axis)
        marked = np.flatnonzero(inside.any(axis=others))
        spans.append(slice(int(marked[0]), int(marked[-1]) + 1))
    return tuple(spans)


def pack(volume: Array, spacing_mm: Sequence[float]) -> str:
    """A uint8 volume, axes to the right, the front and the head, as NIfTI, gzip, base64; the same for the same."""
    image = nib.Nifti1Image(volume, np.diag([*spacing_mm, 1.0]))
    return base64.b64encode(gzip.compress(image.to_bytes(), mtime=0)).decode("ascii")
