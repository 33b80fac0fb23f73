"""A rule of the hospital that cannot be reached, such as a link to a disk that is not mounted, is not no rule."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from brats_fl.approval import APPROVED_FILE, read_approvals
from brats_fl.errors import BratsFLError, EgressError, KitError, PrivacyBudgetError, PrivacyError
from brats_fl.privacy.budget import BUDGET_FILE, find_budget, read_budget, refuse_unaccounted
from brats_fl.sharing.cross_site import RULES_FILE, read_rules
from brats_fl.sharing.egress import CONTRACT_FILE, read_contract
from brats_fl.sharing.site_statistics import read_releases

RULES: dict[str, tuple[str, Callable[[Path], object], type[BratsFLError]]] = {
    "contract": (CONTRACT_FILE, read_contract, EgressError),
    "budget": (BUDGET_FILE, read_budget, PrivacyBudgetError),
    "budget, of a job without noise": (BUDGET_FILE, lambda file: refuse_unaccounted(file, "this"), PrivacyBudgetError),
    "who scores models": (RULES_FILE, lambda file: read_rules("hospital-1", file.parents[1], {}), PrivacyError),
    "approved jobs": (APPROVED_FILE, read_approvals, KitError),
    "statistics that went out": ("statistics.json", read_releases, PrivacyError),
}


@pytest.mark.parametrize("rule", RULES)
def test_link_that_leads_nowhere_refuses(rule: str, tmp_path: Path) -> None:
    name, read, refusal = RULES[rule]
    file = tmp_path / "local" / name
    file.parent.mkdir()
    file.symlink_to(tmp_path / "not-mounted" / name)

    with pytest.raises(refusal, match=name):
        read(file)


def test_budget_of_the_kit_that_cannot_be_reached_comes_before_that_of_the_simulator(tmp_path: Path) -> None:
    file = tmp_path / "kit" / "local" / BUDGET_FILE
    file.parent.mkdir(parents=True)
    file.symlink_to(tmp_path / "not-mounted")

    assert find_budget("hospital-1", tmp_path / "kit", {"BRATS_FL_SITES": str(tmp_path)}) == file
