"""Whether a hospital's privacy budget and the record of what was spent of it can be used, and what is left."""

from __future__ import annotations

from brats_fl.errors import PrivacyBudgetError
from brats_fl.files import is_there
from brats_fl.privacy.budget import BUDGET_FILE, SPENT_FILE, most_spent, read_budget, read_spent, weigh
from brats_fl_tools.kit.kits import Kit
from brats_fl_tools.kit.results import CheckResult, fail, passed, warn


def check_budget(kit: Kit) -> CheckResult:
    """A private job can draw on the hospital's budget, or the hospital has none."""
    name, local = "privacy budget", kit.folder / "local"
    path = local / BUDGET_FILE
    if not is_there(path):
        return passed(name, "none: jobs that need one are refused, others are not held to an epsilon")
    try:
        budget, spent = read_budget(path), read_spent(local / SPENT_FILE)
    except PrivacyBudgetError as error:
        return fail(name, str(error), f"mend {BUDGET_FILE} and {SPENT_FILE}, see docs/privacy.md")
    found = f"epsilon {most_spent(spent, budget.delta):.3f} of {budget.epsilon:g} is spent, at delta {budget.delta:g}"
    if spent and weigh(spent, spent[-1], budget.delta, budget.delta).total > budget.epsilon:
        found += "; what was done last may not be done again"
        return warn(name, found, "private jobs are refused; to allow more: brats-fl privacy budget with --force")
    others = "may run, too" if budget.allow_unaccounted else "are refused"
    return passed(name, f"{found}; jobs without noise {others}")
