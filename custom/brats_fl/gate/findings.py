"""What the gate looks for: every rule with its id, and a finding, which says where a rule was broken and by what."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any, Final, Literal

from brats_fl.cases.scan_values import MENDS
from brats_fl.errors import DataListError, ScanFault

Severity = Literal["error", "warning"]

ERROR: Final = "error"
WARNING: Final = "warning"

SHOWN_FINDINGS = 20


@dataclass(frozen=True)
class Rule:
    """What must hold of a case or of a list."""

    id: str
    severity: Severity
    """``error``: the case must not be trained on. ``warning``: somebody should look at it."""
    says: str
    mend: str

    @property
    def acceptable(self) -> bool:
        """Whether a case that breaks it may be sound, so that somebody may accept it by name."""
        return self.id not in NEVER_SOUND


NEVER_SOUND: Final = frozenset(
    {
        "G01-file-missing",
        "G02-file-unreadable",
        "G03-file-truncated",
        "G04-not-3d",
        "G05-shape-differs",
        "G06-affine-differs",
        "G07-grid-invalid",
        "G11-case-twice",
        "G12-patient-twice",
        "G13-scan-twice",
        "G21-not-finite",
        "G22-constant",
        "G25-same-volume-twice",
        "G27-hot-voxels",
        "G31-not-stripped",
        "G41-label-not-integer",
        "G42-label-unknown-value",
        "G44-label-empty",
    }
)
"""Rules that nobody can accept a case against: it cannot be read or compared, would count twice, or would be trained on
as what it is not."""


_RULES = (
    Rule("G01-file-missing", ERROR, "every file of a case is there", ScanFault.MISSING.value),
    Rule("G02-file-unreadable", ERROR, "every file is sound NIfTI", ScanFault.UNREADABLE.value),
    Rule("G03-file-truncated", ERROR, "a file is as long as its header says", ScanFault.TRUNCATED.value),
    Rule("G04-not-3d", ERROR, "a scan is one 3-D volume", ScanFault.NOT_3D.value),
    Rule(
        "G05-shape-differs",
        ERROR,
        "the files of a case have one shape",
        "resample the file onto the grid of the others",
    ),
    Rule(
        "G06-affine-differs",
        ERROR,
        "the files of a case have one affine: spacing, orientation and position",
        "register or resample the file onto the grid of the others; copy the header only if the voxels lie right",
    ),
    Rule("G07-grid-invalid", ERROR, "a header has a usable grid", ScanFault.BAD_GRID.value),
    Rule(
        "G08-spacing-not-1mm",
        WARNING,
        "voxels are near 1 mm",
        "nothing where it is meant, as with a 2 mm sample; else resample the original scans to 1 mm",
    ),
    Rule(
        "G09-not-template-space",
        WARNING,
        "a case lies in BraTS's space: SRI24 atlas, 240 x 240 x 155 mm, LPS",
        "register the case to SRI24 as BraTS's own preprocessing does",
    ),
    Rule("G11-case-twice", ERROR, "a case is listed once", "keep one of the entries"),
    Rule(
        "G12-patient-twice",
        ERROR,
        "a patient is in one split of one hospital",
        "keep all cases of the patient in one split of one hospital",
    ),
    Rule(
        "G13-scan-twice",
        ERROR,
        "a scan belongs to one case",
        "look which case the scan belongs to and take the other off the list",
    ),
    Rule("G21-not-finite", ERROR, "voxels are finite", "write the scan again from its source"),
    Rule("G22-constant", ERROR, "a scan is not constant", MENDS["G22-constant"]),
    Rule(
        "G23-negative",
        WARNING,
        "a brain has no negative intensities",
        "give the scan as it was before normalisation; training normalises it itself",
    ),
    Rule(
        "G24-saturated",
        WARNING,
        "intensities are not cut at a limit",
        "export the scan again without clipping; integer types end at 255 or 32767",
    ),
    Rule("G25-same-volume-twice", ERROR, "the scans of a case differ", "replace the copy with the scan it stands for"),
    Rule(
        "G26-modalities-swapped",
        ERROR,
        "the scans look like the modalities they are listed as",
        "look at the scans and correct the order in the data list, which is t1c, t1n, t2w, t2f",
    ),
    Rule(
        "G27-hot-voxels",
        ERROR,
        "no voxel is far beyond all others",
        MENDS["G27-hot-voxels"],
    ),
    Rule(
        "G31-not-stripped",
        ERROR,
        "the skull is removed and all around the brain is 0",
        MENDS["G31-not-stripped"],
    ),
    Rule(
        "G32-brain-cut-off",
        WARNING,
        "the brain is whole",
        "look at the scan; where its field of view ends in the brain, take the case off the list",
    ),
    Rule(
        "G33-brains-differ",
        ERROR,
        "the brain lies at the same place in all scans of a case",
        "register the scan to the others of its case",
    ),
    Rule("G41-label-not-integer", ERROR, "label values are whole numbers", "resample labels by nearest neighbour"),
    Rule(
        "G42-label-unknown-value",
        ERROR,
        "label values are those of a known convention",
        "map the values to a convention of BraTS or MSD",
    ),
    Rule(
        "G43-label-convention",
        ERROR,
        "a label follows the convention it is listed with",
        "set `labels` of the case to the convention that the label was drawn in",
    ),
    Rule("G44-label-empty", ERROR, "a label holds a tumour", "export the label again, or take the case off the list"),
    Rule(
        "G45-label-part-missing",
        WARNING,
        "a label has core and oedema",
        "look at the label; nothing where the tumour is like that",
    ),
    Rule(
        "G46-label-outside-brain",
        ERROR,
        "a label lies in the brain",
        "register the label to the scans, or export it again",
    ),
    Rule(
        "G47-label-not-on-image",
        ERROR,
        "a label lies where the scans show the tumour",
        "export the label again on the grid of the scans, its axes in the same order and direction",
    ),
)

RULES: Final = MappingProxyType({rule.id: rule for rule in _RULES})
"""Rule id -> rule. Ids are stable: a rule that goes leaves its number unused."""


@dataclass(frozen=True)
class Finding:
    """A rule that does not hold, and where."""

    rule: str
    found: str
    """What there is in place of what the rule says, with values."""
    case: str = ""
    """Name of the case; empty where the finding is about a list."""
    scan: str = ""
    """Modality, or ``label``; empty where the finding is about a whole case."""
    site: str = ""
    doubtful: bool = False
    """Whether a sound case might look like this more often than once in a thousand times: then it is a warning."""
    accepted: str = ""
    """Who accepted it as sound, and when: ``accepted by X on 2026-02-01``. It is shown, and is no error."""

    @property
    def severity(self) -> Severity:
        """How bad it is: the rule's severity, but a warning where it is doubtful or accepted."""
        return WARNING if self.doubtful or self.accepted else RULES[self.rule].severity

    @property
    def place(self) -> str:
        """Site, case and scan, as far as they are known."""
        return " ".join(part for part in (self.site, self.case, self.scan) if part)

    def __str__(self) -> str:
        """One line: place, rule, what was found, and the mend."""
        return f"{self.place}: {self.rule}: {self.said}; {RULES[self.rule].mend}"

    @property
    def said(self) -> str:
        """What was found, and who accepted it."""
        return f"{self.found} ({self.accepted})" if self.accepted else self.found


def as_record(finding: Finding) -> dict[str, Any]:
    """A finding as JSON, with what its rule says."""
    rule = RULES[finding.rule]
    return {**asdict(finding), "severity": finding.severity, "says": rule.says, "mend": rule.mend}


def errors_of(findings: Iterable[Finding]) -> list[Finding]:
    """The findings that a case must not be trained with."""
    return [finding for finding in findings if finding.severity == ERROR]


def refuse_errors(findings: Iterable[Finding]) -> None:
    """Raise ``DataListError`` that lists the errors among the findings; warnings pass."""
    errors = errors_of(findings)
    if not errors:
        return
    lines = [str(finding) for finding in errors[:SHOWN_FINDINGS]]
    if len(errors) > SHOWN_FINDINGS:
        lines.append(f"and {len(errors) - SHOWN_FINDINGS} more; `brats-fl check` lists them all")
    count = "1 error" if len(errors) == 1 else f"{len(errors)} errors"
    raise DataListError(f"the data gate found {count}, nothing is trained:\n" + "\n".join(lines))
