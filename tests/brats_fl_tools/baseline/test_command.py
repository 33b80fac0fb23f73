"""What is refused before a baseline's folder is touched, and which folder is gone on with."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from tests.conftest import TinySites
from typer.testing import CliRunner

from brats_fl.constants import REGIONS
from brats_fl.errors import BratsFLError, FolderError
from brats_fl_tools.baseline.command import BASELINE_FILE, begin_or_go_on, write_table
from brats_fl_tools.baseline.parts import parts_of
from brats_fl_tools.cli import app


def refusal(sites: Path, out: Path, *options: str) -> str:
    command = ["baseline", "leave-one-out", "--sites", str(sites), "--out", str(out), "--profile", "small", *options]
    result = CliRunner().invoke(app, command)
    assert isinstance(result.exception, BratsFLError), result.output
    return str(result.exception)


def test_wrong_setting_and_wrong_lists_leave_an_earlier_baseline_as_it_is(tiny_sites: TinySites, tmp_path: Path):
    two, one = tiny_sites({"hospital-1": (1, 0, 1), "hospital-2": (1, 0, 1)}), tmp_path / "one"
    (one / "hospital-1").mkdir(parents=True)
    (one / "hospital-1" / "datalist.json").write_bytes((two / "hospital-1" / "datalist.json").read_bytes())
    out = tmp_path / "out"
    begin_or_go_on(out, {"baseline": "local"}, force=False)
    (out / "kept").write_text("mine")

    assert "unknown key 'nonsense'" in refusal(two, out, "--force", "--set", "nonsense=1")
    assert "leaving it out leaves nobody" in refusal(one, out, "--force")
    assert (out / "kept").read_text() == "mine"


def test_baseline_is_gone_on_with_only_where_all_that_was_asked_for_is_the_same(tmp_path: Path):
    asked = {"baseline": "local", "lists": {"hospital-1": {"training": "0f"}}}
    begin_or_go_on(tmp_path / "out", asked, force=False)
    (tmp_path / "out" / "hospital-1").mkdir()

    begin_or_go_on(tmp_path / "out", asked, force=False)

    assert (tmp_path / "out" / "hospital-1").is_dir()
    with pytest.raises(FolderError, match="it holds a baseline"):
        begin_or_go_on(tmp_path / "out", {**asked, "lists": {"hospital-1": {"training": "1e"}}}, force=False)
    assert json.loads((tmp_path / "out" / BASELINE_FILE).read_text()) == asked


def test_bins_of_a_hospital_are_those_of_the_model_that_was_made_for_it(tiny_sites: TinySites, tmp_path: Path):
    counts = {"hospital-1": (1, 0, 1), "hospital-2": (1, 0, 1)}
    sites, out = tiny_sites(counts), tmp_path / "out"
    parts = parts_of("leave-one-out", sites, tuple(counts), out)
    facts = {
        "bundle": "brats_unet", "profile": "small", "split": "testing", "sites_dir": str(sites), "finished": "2026",
        "versions": {}, "machine": {}, "model_sha256": "00",
    }  # fmt: skip
    for share, part in zip((0.2, 0.9), parts, strict=True):
        bins = {site: {"wt": [{"voxels": 8, "mean_probability": 0.5, "share": share}]} for site in counts}
        (out / part.name).mkdir(parents=True)
        (out / part.name / "evaluation.json").write_text(json.dumps({**facts, "reliability": bins}))
    rows = [{"site": site, "case": site, "region": region, "dice": 0.5} for site in counts for region in REGIONS]

    write_table(out, parts, [pd.DataFrame(rows)] * 2)

    merged = json.loads((out / "evaluation.json").read_text())["reliability"]
    assert {site: regions["wt"][0]["share"] for site, regions in merged.items()} == {
        "hospital-1": 0.2,  # of the model trained without it
        "hospital-2": 0.9,
    }
