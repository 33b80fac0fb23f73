"""What ``kit check`` says of a hospital's privacy budget."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.tiny_kits import TinyKits

from brats_fl.privacy.budget import BUDGET_FILE, SPENT_FILE, Budget
from brats_fl_tools.kit.privacy_budget import check_budget
from brats_fl_tools.privacy.budgets import write_budgets


@pytest.fixture
def local(kits: TinyKits) -> Path:
    return kits.hospital.folder / "local"


def spend(local: Path, *epsilons: float) -> None:
    """Releases of statistics of one patient: their epsilons add up."""
    lines = [{"study": "s", "round": 0, "patients": ["a"], "epsilon": epsilon} for epsilon in epsilons]
    with (local / SPENT_FILE).open("a", encoding="utf-8") as record:
        record.writelines(f"{json.dumps(line)}\n" for line in lines)


def test_hospital_without_a_budget_is_told_what_that_means(kits: TinyKits) -> None:
    result = check_budget(kits.hospital)

    assert (result.state, result.found.split(":")[0]) == ("ok", "none")


def test_budget_is_told_with_what_is_spent_of_it(kits: TinyKits, local: Path) -> None:
    write_budgets(kits.hospital.folder, Budget(8.0, 1e-3), force=False)
    spend(local, 1.5, 2.0)

    result = check_budget(kits.hospital)

    assert result.state == "ok"
    assert result.found == "epsilon 3.500 of 8 is spent, at delta 0.001; jobs without noise are refused"


def test_budget_that_allows_jobs_without_noise_says_so(kits: TinyKits) -> None:
    write_budgets(kits.hospital.folder, Budget(8.0, 1e-3, allow_unaccounted=True), force=False)

    assert check_budget(kits.hospital).found.endswith("jobs without noise may run, too")


@pytest.mark.parametrize(("epsilon", "state"), [(5.5, "ok"), (5.4, "warning")])
def test_budget_is_as_good_as_spent_when_the_last_cannot_be_done_again(
    kits: TinyKits, local: Path, epsilon: float, state: str
) -> None:
    write_budgets(kits.hospital.folder, Budget(epsilon, 1e-3), force=False)
    spend(local, 1.5, 2.0)  # and 2.0 again is 5.5

    assert check_budget(kits.hospital).state == state


@pytest.mark.parametrize(
    ("name", "content", "named"),
    [
        (BUDGET_FILE, '{"epsilon": 8}', "delta"),
        (BUDGET_FILE, '{"epsilon": -1, "delta": 0.001}', "epsilon must be above 0"),
        (SPENT_FILE, "nonsense\n", f"{SPENT_FILE}:1"),
        (SPENT_FILE, "", f"{SPENT_FILE}: is empty"),
        (SPENT_FILE, None, SPENT_FILE),
    ],
)
def test_file_that_cannot_be_used_is_an_error_that_names_it(
    kits: TinyKits, local: Path, name: str, content: str | None, named: str
) -> None:
    write_budgets(kits.hospital.folder, Budget(8.0, 1e-3), force=False)
    (local / name).unlink()
    if content is not None:
        (local / name).write_text(content, encoding="utf-8")

    result = check_budget(kits.hospital)

    assert result.state == "error"
    assert str(local / name) in result.found
    assert named in result.found
    assert result.mend
