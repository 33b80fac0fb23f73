"""The gate's page: the findings, how to mend them, and pictures of the cases they are about."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import brats_fl
from brats_fl.gate import RULES, Finding, Rule, errors_of
from brats_fl.gate.lists import Entry
from brats_fl_tools.check.thumbnails import Thumbnail, draw_thumbnails
from brats_fl_tools.pages.pictures import LABEL_COLOURS, LABEL_NAMES
from brats_fl_tools.pages.templates import page_environment

MOST_PICTURES = 40
"""Cases shown with pictures, 0.3 MB each; the others are listed."""


@dataclass(frozen=True)
class CaseSection:
    """A case with findings."""

    entry: Entry
    findings: tuple[Finding, ...]
    thumbnails: tuple[Thumbnail, ...]

    @property
    def has_error(self) -> bool:
        """Whether one of the findings is an error."""
        return bool(errors_of(self.findings))


def render_page(entries: Sequence[Entry], findings: Sequence[Finding], headers_only: bool) -> str:
    """Page of a check: one HTML text that needs no other file and must not leave the hospital.

    Args:
        entries: The cases that were checked.
        findings: What was found.
        headers_only: Whether no voxels were read; the page then has no pictures.
    """
    environment = page_environment()
    errors = errors_of(findings)
    return environment.get_template("check_page.html").render(
        version=brats_fl.__version__,
        cases=len(entries),
        sites=sorted({entry.site for entry in entries}),
        errors=len(errors),
        warnings=len(findings) - len(errors),
        faulty=len({(finding.site, finding.case) for finding in errors}),
        headers_only=headers_only,
        broken=count_rules(findings),
        rules=RULES,
        of_lists=[finding for finding in findings if not finding.case],
        sections=make_sections(entries, findings, 0 if headers_only else MOST_PICTURES),
        most_pictures=MOST_PICTURES,
        label_colours={LABEL_NAMES[label]: "#{:02x}{:02x}{:02x}".format(*rgb) for label, rgb in LABEL_COLOURS.items()},
    )


def count_rules(findings: Sequence[Finding]) -> list[tuple[Rule, str, int]]:
    """The rules that do not hold, how badly and how often, errors first."""
    counts = Counter((finding.severity, finding.rule) for finding in findings)
    return [(RULES[rule], severity, times) for (severity, rule), times in sorted(counts.items())]


def make_sections(entries: Sequence[Entry], findings: Sequence[Finding], pictures: int) -> list[CaseSection]:
    """A section for every case with a finding, those with errors first; the first ones get pictures."""
    of_case: dict[tuple[str, str], list[Finding]] = {}
    for finding in findings:
        of_case.setdefault((finding.site, finding.case), []).append(finding)
    found = {}
    for entry in entries:
        key = (entry.site, entry.case.case)
        if key in of_case:
            found[key] = CaseSection(entry, tuple(of_case[key]), ())
    ordered = sorted(found.values(), key=lambda section: not section.has_error)
    shown = [replace(section, thumbnails=tuple(draw_thumbnails(section.entry.case))) for section in ordered[:pictures]]
    return shown + ordered[pictures:]
