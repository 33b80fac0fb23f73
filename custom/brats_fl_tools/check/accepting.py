"""``brats-fl check --accept RULE:CASE --by NAME``: keeps beside a list which cases are sound, and honours it."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Sequence

import typer

from brats_fl.errors import DataListError
from brats_fl.gate import Finding
from brats_fl.gate.acceptance import (
    accept,
    find_rule,
    mark_accepted,
    read_acceptances,
    refuse_never_sound,
    write_acceptances,
)
from brats_fl_tools.data.given_cases import GivenCases


def split_acceptance(text: str, by: str) -> tuple[str, str]:
    """Rule and case of ``RULE:CASE``, once it is known that the rule can be accepted and somebody does.

    Raises:
        DataListError: It has another form, there is no such rule, it can never be accepted, or nobody is named.
    """
    rule, colon, case = text.partition(":")
    if not colon or not case:
        raise DataListError(f"--accept {text}: write RULE:CASE, such as G33:{text or 'CASE'}")
    refuse_never_sound(find_rule(rule), f"--accept {text}")
    if not by.strip() or not by.isprintable():
        raise DataListError(f"--accept {text}: say who accepts it, with --by NAME")
    return rule, case


def honour_acceptances(
    sources: Iterable[GivenCases], findings: Sequence[Finding], wanted: Sequence[str], by: str
) -> list[Finding]:
    """The findings with what was accepted of them, now or before; what is new is written beside the lists.

    Args:
        sources: Where the cases were named.
        findings: What the gate found in them.
        wanted: ``RULE:CASE`` to accept now.
        by: Who accepts.

    Raises:
        DataListError: One cannot be accepted; then none is written.
    """
    today = datetime.datetime.now().astimezone().date().isoformat()
    new = [(text, *split_acceptance(text, by)) for text in wanted]
    for _, rule, case in new:
        accept(findings, rule, case, by, today)  # all or none
    marked: list[Finding] = []
    for source in sources:
        path = source.beside
        own = [finding for finding in findings if finding.site == source.datalist.site]
        kept = list(read_acceptances(path))
        added = [
            acceptance
            for _, rule, case in new
            if any(finding.case == case and finding.rule == find_rule(rule) for finding in own)
            for acceptance in accept(own, rule, case, by, today)
        ]
        if added:
            of_added = {(acceptance.rule, acceptance.case, acceptance.scan) for acceptance in added}
            kept = [old for old in kept if (old.rule, old.case, old.scan) not in of_added] + added
            typer.echo(f"wrote {write_acceptances(path, kept)}")
        marked += mark_accepted(own, kept)
    return marked
