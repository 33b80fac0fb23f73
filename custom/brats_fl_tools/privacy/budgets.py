"""The privacy budgets of hospitals on this machine: written, and what was spent of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from brats_fl.cases.datalists import find_datalists, read_datalist
from brats_fl.errors import FolderError, KitError
from brats_fl.files import write_whole
from brats_fl.privacy.budget import BUDGET_FILE, SPENT_FILE, Budget, begin_record, most_spent, read_budget, read_spent
from brats_fl_tools.kit.kits import read_kit
from brats_fl_tools.one_writer import writes

COLUMNS = ("hospital", "most spent by a patient", "budget", "delta", "rounds", "patients")


def budget_folders(where: Path) -> dict[str, Path]:
    """Hospital -> the folder that has its budget, or is to have it.

    Args:
        where: A hospital's startup kit, a folder of sites, or one site's folder.

    Raises:
        DataListError: It is none of these.
        KitError: It is the kit of a server or an admin, or a damaged one.
    """
    if (where / "startup").is_dir():
        if (kit := read_kit(where)).kind != "client":
            raise KitError(f"{where}: is the kit of {kit.name}, which has no patients; give a hospital's kit")
        return {kit.name: where / "local"}
    found = find_datalists(where)
    for path in found:
        read_datalist(path)  # a file that is none has no hospital's budget beside it
    return {path.resolve().parent.name: path.parent for path in found}


def write_budgets(where: Path, budget: Budget, force: bool) -> list[Path]:
    """Write a budget, and begin the record of what is spent, for each hospital; what was spent stays.

    Raises:
        FolderError: A hospital has a budget already, and ``force`` is not given; nothing was written.
        DataListError: As ``budget_folders``.
    """
    folders = list(budget_folders(where).values())
    if not force and (there := [folder for folder in folders if (folder / BUDGET_FILE).exists()]):
        raise FolderError(f"{there[0] / BUDGET_FILE}: is there already; --force replaces it, and keeps what was spent")
    return [_write(folder, budget) for folder in folders]


@writes("folder", BUDGET_FILE)
def _write(folder: Path, budget: Budget) -> Path:
    path = folder / BUDGET_FILE
    is_new = not path.exists()  # a record that is missing beside a budget was lost, and is not begun anew
    write_whole(path, json.dumps(asdict(budget), indent=1) + "\n")
    if is_new and not (folder / SPENT_FILE).exists():
        begin_record(folder / SPENT_FILE)
    return path


def sum_up(where: Path) -> Iterator[tuple[str, ...]]:
    """A row for each hospital, as ``COLUMNS`` say.

    Raises:
        PrivacyBudgetError: A budget or a record cannot be used, or there is none.
        DataListError: As ``budget_folders``.
    """
    for name, folder in budget_folders(where).items():
        budget, spent = read_budget(folder / BUDGET_FILE), read_spent(folder / SPENT_FILE)
        patients = {who for one in spent for who in one.patients}
        rounds = sum(one.noise is not None for one in spent)
        numbers = (f"{most_spent(spent, budget.delta):.3f}", f"{budget.epsilon:g}", f"{budget.delta:g}")
        yield (name, *numbers, str(rounds), str(len(patients)))
