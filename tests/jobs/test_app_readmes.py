"""The tables of variables in the apps' READMEs are those of the files."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from brats_fl.settings import SETTINGS_FILE
from brats_fl_tools.jobs.settings import variables_of
from brats_fl_tools.jobs.source import job_names, read_source
from brats_fl_tools.repository import APP_CLIENT, APP_SERVER, JOBS


@pytest.mark.parametrize(("app", "side"), [(APP_SERVER, "server"), (APP_CLIENT, "client")])
def test_every_variable_has_a_row_with_its_default(app: Path, side: str) -> None:
    config = json.loads((app / "config" / f"config_fed_{side}.json").read_text(encoding="utf-8"))
    text = (app / "README.md").read_text(encoding="utf-8").split("## Variables")[1]
    rows = re.findall(r"^\| `(\w+)` \|.*\| `([^`]*)` \|$", text, flags=re.MULTILINE)

    assert {name: json.loads(default) for name, default in rows} == variables_of(config)


@pytest.mark.parametrize("app", [APP_SERVER, APP_CLIENT])
def test_every_row_says_what_the_table_of_settings_says(app: Path) -> None:
    text = (app / "README.md").read_text(encoding="utf-8").split("## Variables")[1]
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \| (.*?) ?\| `", text, flags=re.MULTILINE)

    settings = json.loads((app / SETTINGS_FILE).read_text(encoding="utf-8"))
    assert {name: (meaning, unit) for name, meaning, unit in rows} == {
        name: (entry["meaning"], entry.get("unit", "")) for name, entry in settings.items()
    }


def test_every_job_has_a_row() -> None:
    text = (JOBS / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| `(\w+)` \|", text, flags=re.MULTILINE)

    jobs = {name: read_source(name).differences.get("bundle", "none") for name in job_names()}
    assert dict(rows) == jobs
