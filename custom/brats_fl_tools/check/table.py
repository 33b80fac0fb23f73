"""The findings on a terminal: under each broken rule where it is broken, by what, and how to mend it."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table

from brats_fl.gate import RULES, Finding, Rule, errors_of

MOST_ROWS = 20
"""Findings shown of a rule; a fault of the whole download would fill the screen."""

COLOURS = {"error": "red", "warning": "yellow"}


def print_findings(findings: Sequence[Finding], cases: int, seconds: float) -> None:
    """Print the findings by rule, errors first, and one line of counts."""
    console = Console(highlight=False)
    for severity in COLOURS:
        for rule in RULES.values():
            own = [finding for finding in findings if (finding.rule, finding.severity) == (rule.id, severity)]
            if own:
                print_rule(console, rule, own)
    errors = errors_of(findings)
    faulty = len({(finding.site, finding.case) for finding in errors})
    console.print(
        f"cases={cases} with_errors={faulty} errors={len(errors)} warnings={len(findings) - len(errors)} "
        f"seconds={seconds:.1f}",
        soft_wrap=True,
    )


def print_rule(console: Console, rule: Rule, findings: Sequence[Finding]) -> None:
    """Print a rule, the places where it is broken as badly as the first one, and the mend."""
    severity = findings[0].severity
    console.print(f"[{COLOURS[severity]}]{severity}[/] [bold]{rule.id}[/] ({rule.says})")
    table = Table("site", "case", "scan", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("found", overflow="fold")
    for finding in findings[:MOST_ROWS]:
        table.add_row(*(escape(text) for text in (finding.site, finding.case or "-", finding.scan, finding.said)))
    console.print(Padding(table, (0, 0, 0, 2), expand=False))
    if len(findings) > MOST_ROWS:
        console.print(f"  and {len(findings) - MOST_ROWS} more; --json FILE or --html FILE has them all")
    console.print(Padding(f"mend: {rule.mend}", (0, 0, 0, 2), expand=False))
    console.print()
