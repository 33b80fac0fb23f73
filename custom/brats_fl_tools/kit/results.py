"""What a check of a kit found: one line of the table that ``brats-fl kit check`` prints."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from brats_fl_tools.kit.kits import Kit

State = Literal["ok", "warning", "error"]


@dataclass(frozen=True)
class CheckResult:
    """One check and how it went."""

    check: str
    state: State
    found: str
    """What was found, with values."""
    mend: str = ""
    """What to do; empty where all is well."""


def passed(check: str, found: str) -> CheckResult:
    """A check in which all is well."""
    return CheckResult(check, "ok", found)


def warn(check: str, found: str, mend: str) -> CheckResult:
    """A check that somebody should look at; the kit can be started."""
    return CheckResult(check, "warning", found, mend)


def fail(check: str, found: str, mend: str) -> CheckResult:
    """A check that says not to start the kit."""
    return CheckResult(check, "error", found, mend)


def as_json(kit: Kit, results: Sequence[CheckResult]) -> str:
    """The results for programs. They hold paths and names of the site: the file stays in the house."""
    content = {
        "kit": kit.name,
        "kind": kit.kind,
        "ok": all(result.state != "error" for result in results),
        "results": [asdict(result) for result in results],
    }
    return json.dumps(content, indent=1) + "\n"
