"""Cases that somebody looked at and accepted though the gate doubts them, kept beside the data list with name and date.

What is accepted is a finding of one kind: the same rule, scan and words, whatever the numbers in it. Where the gate
later finds something else by that rule, it is told as if nothing had been accepted.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

from brats_fl.errors import DataListError
from brats_fl.files import write_whole
from brats_fl.gate.findings import NEVER_SOUND, RULES, Finding
from brats_fl.reading import Reader
from brats_fl.typed import shorten

ACCEPTED_FILE: Final = "accepted.json"
READER: Final = Reader(DataListError, "remove it, and accept the cases again with `brats-fl check --accept`")


@dataclass(frozen=True)
class Acceptance:
    """A finding that somebody takes for sound."""

    rule: str
    case: str
    scan: str
    found: str
    """What the gate said when it was accepted."""
    by: str
    on: str
    """Date, as 2026-02-01."""

    def covers(self, finding: Finding) -> bool:
        """Whether it is about a finding: same rule, case, scan and kind."""
        same_place = (self.rule, self.case, self.scan) == (finding.rule, finding.case, finding.scan)
        return same_place and kind_of(self.found) == kind_of(finding.found)


def kind_of(found: str) -> str:
    """What was found without its numbers."""
    return re.sub(r"-?\d+(?:[.,]\d+)*", "#", found)


def accepted_file(datalist: Path) -> Path:
    """Where what was accepted of a data list is kept."""
    return datalist.parent / ACCEPTED_FILE


def read_acceptances(datalist: Path) -> tuple[Acceptance, ...]:
    """What was accepted of a data list; nothing where there is no such file.

    Raises:
        DataListError: The file is damaged, or accepts what can never be sound.
    """
    path = accepted_file(datalist)
    if not path.is_file():
        return ()
    acceptances = READER.at(tuple[Acceptance, ...], READER.json_object(path), ["accepted"], path)
    for acceptance in acceptances:
        refuse_never_sound(acceptance.rule, str(path))
    return acceptances


def write_acceptances(datalist: Path, acceptances: Sequence[Acceptance]) -> Path:
    """Write the file beside a data list, whole or not at all, and return its path."""
    path = accepted_file(datalist)
    content = {"accepted": [asdict(acceptance) for acceptance in acceptances]}
    write_whole(path, json.dumps(content, indent=1) + "\n")
    return path


def mark_accepted(findings: Iterable[Finding], acceptances: Sequence[Acceptance]) -> list[Finding]:
    """The findings, those that were accepted with the name and date; they are warnings and stay visible."""
    return [_mark(finding, acceptances) for finding in findings]


def _mark(finding: Finding, acceptances: Sequence[Acceptance]) -> Finding:
    for acceptance in acceptances:
        if finding.rule not in NEVER_SOUND and acceptance.covers(finding):
            return replace(finding, accepted=f"accepted by {acceptance.by} on {acceptance.on}")
    return finding


def accept(findings: Iterable[Finding], rule: str, case: str, by: str, on: str) -> list[Acceptance]:
    """Acceptances of what a rule found in a case, one for each of its scans.

    Args:
        findings: What the gate found.
        rule: Id of the rule, in full or its first part, such as ``G33``.
        case: Name of the case.
        by: Who accepts it.
        on: The day.

    Raises:
        DataListError: There is no such rule, it can never be accepted, or it found nothing in the case.
    """
    name = find_rule(rule)
    refuse_never_sound(name, f"{rule}:{case}")
    if not by.strip() or not by.isprintable():
        raise DataListError(f"{rule}:{case}: say who accepts it, with --by NAME")
    found = [finding for finding in findings if (finding.rule, finding.case) == (name, case)]
    if not found:
        raise DataListError(f"{rule}:{case}: the gate found nothing by this rule in a case of this name; see its table")
    return [Acceptance(name, case, finding.scan, finding.found, by.strip(), on) for finding in found]


def find_rule(rule: str) -> str:
    """Full id of a rule of which the id or its first part is given."""
    for name in RULES:
        if rule in (name, name.split("-")[0]):
            return name
    raise DataListError(f"{rule}: there is no such rule; use an id that `brats-fl check` prints, such as G33")


def refuse_never_sound(rule: str, place: str) -> None:
    """Raise ``DataListError`` for a rule that cannot be accepted."""
    if rule not in RULES:
        raise DataListError(f"{place}: there is no rule {shorten(rule)}; remove the entry")
    if not RULES[rule].acceptable:
        raise DataListError(
            f"{place}: {rule} cannot be accepted, as no sound case breaks it; instead: {RULES[rule].mend}"
        )
