"""The data gate: whether a hospital's cases can take part, and what is wrong where they cannot.

``check_headers`` is the cheap part that every site runs at the start of a job; ``check_case`` reads the voxels.
"""

from __future__ import annotations

from brats_fl.gate.acceptance import mark_accepted, read_acceptances
from brats_fl.gate.case import CaseVerdict, check_case, check_case_headers_only
from brats_fl.gate.findings import RULES, Finding, Rule, as_record, errors_of, refuse_errors
from brats_fl.gate.list_check import check_headers, check_list

__all__ = [
    "RULES",
    "CaseVerdict",
    "Finding",
    "Rule",
    "as_record",
    "check_case",
    "check_case_headers_only",
    "check_headers",
    "check_list",
    "errors_of",
    "mark_accepted",
    "read_acceptances",
    "refuse_errors",
]
