"""What a training step takes: the steps alone, and not the preparation of the cases."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.tiny_sites import make_tiny_sites

from brats_fl.cases.datalists import CACHE_VARIABLE, DATALIST_FILE
from brats_fl.cases.transforms import LoadCased
from brats_fl_tools.repository import BUNDLES
from brats_fl_tools.study import measuring


def test_cases_are_prepared_before_the_first_step_is_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    sites = make_tiny_sites(tmp_path / "sites", {"hospital-1": (2, 0, 0)})
    order: list[str] = []
    load = LoadCased.__call__

    def loaded(self: LoadCased, data: Any) -> Any:
        order.append("case")
        return load(self, data)

    def now() -> float:
        order.append("step")
        return time.perf_counter()

    monkeypatch.setattr(LoadCased, "__call__", loaded)
    monkeypatch.setattr(measuring, "time", SimpleNamespace(perf_counter=now))
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    tiny = {"patch_size": [32, 32, 32], "batch_size": 1}

    found = measuring._measure_here(
        BUNDLES / "brats_unet", "small", sites / "hospital-1" / DATALIST_FILE, tiny, tmp_path / "out"
    )

    assert order == ["case"] * 2 + ["step"] * measuring.STEPS
    assert found.parameters == 4_812_512
    assert found.step_seconds > 0
