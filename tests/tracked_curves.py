"""Curves as TensorBoard and MLflow read them from what a tracker wrote."""

from __future__ import annotations

from pathlib import Path

import pytest

Curves = dict[str, dict[str, list[tuple[int, float]]]]
"""Site -> curve -> (step, value)."""


def read_event_files(folder: Path) -> Curves:
    """What ``tensorboard --logdir FOLDER`` shows; the keys are the names that it gives."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator").EventAccumulator
    curves: Curves = {}
    for run in sorted({path.parent for path in folder.rglob("*tfevents*")}):
        events = accumulator(str(run)).Reload()
        names = events.Tags()["scalars"]
        curves[run.relative_to(folder).as_posix()] = {
            name: [(event.step, event.value) for event in events.Scalars(name)] for name in names
        }
    return curves


def read_store(path: Path) -> Curves:
    """What MLflow has in a file: the keys are the names of its runs, all of them finished."""
    client = pytest.importorskip("mlflow.tracking.client").MlflowClient(f"sqlite:///{path}")
    runs = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    assert {run.info.status for run in runs} == {"FINISHED"}
    return {
        run.info.run_name: {
            name: [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, name)]
            for name in run.data.metrics
        }
        for run in runs
    }
