"""What a run folder beside a model tells the commands that take one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer

from brats_fl_tools.model.options import sites_of_run


def test_data_lists_are_those_of_the_run_unless_others_are_given(tmp_path: Path):
    run, sites, others = (tmp_path / name for name in ("run", "sites", "others"))
    run.mkdir()
    sites.mkdir()
    (run / "run.json").write_text(json.dumps({"sites_dir": str(sites)}))

    assert sites_of_run(run, None) == sites
    assert sites_of_run(run / "final_model.pt", None) == sites
    assert sites_of_run(run, others) == others


@pytest.mark.parametrize("facts", [{}, {"sites_dir": 3}, {"sites_dir": "/not/here/any/more"}])
def test_run_that_knows_no_data_lists_here_wants_them_to_be_given(facts: dict[str, object], tmp_path: Path):
    (tmp_path / "run.json").write_text(json.dumps(facts))

    with pytest.raises(typer.BadParameter, match=r"^--sites is missing: .* does not say where data lists"):
        sites_of_run(tmp_path, None)
