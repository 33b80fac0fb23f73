"""The FLARE classes that the apps name or extend, held against FLARE's own recipes: an upgrade breaks this first."""

from __future__ import annotations

import importlib
import inspect
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.jobs.test_jobs import SMALL, components, small

from brats_fl_tools.jobs.assembly import build_job
from brats_fl_tools.jobs.source import job_names

RECIPES_ALONE = {
    "nvflare.app_common.workflows.fedavg.FedAvg": (
        "it asks k of n sites, at random, and waits for all of them without a time limit; ScatterAndGather asks all, "
        "and goes on with k when the time is up"
    ),
    "nvflare.app_opt.pt.fedopt.PTFedOptModelShareableGenerator": (
        "it begins with the network's random weights, whatever model a job goes on from"
    ),
    "nvflare.app_common.aggregators.intime_accumulate_model_aggregator.InTimeAccumulateWeightedAggregator": (
        "it adds up what does not fit, is not finite or is a million times too large"
    ),
    "nvflare.app_common.widgets.intime_model_selector.IntimeModelSelector": (
        "it counts the metrics of updates that are then refused"
    ),
    "nvflare.app_common.widgets.metrics_artifact_writer.MetricsArtifactWriter": "rounds.jsonl has the metrics",
    "nvflare.app_common.widgets.validation_json_generator.ValidationJsonGenerator": "rounds.jsonl has the metrics",
    "nvflare.app_common.widgets.convert_to_fed_event.ConvertToFedEvent": (
        "it sends a site's events to the server; here nothing leaves a site but the results of its tasks"
    ),
    "nvflare.app_common.executors.client_api_executor.ClientAPIExecutor": "it runs a script, not a bundle",
    "network.Network": "the bundle's network is built where it is needed, and is no component",
}
"""FLARE class of the recipes -> why no app has it."""

APPS_ALONE = {
    "nvflare.app_common.shareablegenerators.full_model_shareable_generator.FullModelShareableGenerator": (
        "the plain generator; FedOpt's recipe has its own, and FedAvg's controller needs none"
    ),
    "nvflare.app_common.abstract.aggregator.Aggregator": "what AlgorithmAggregator must be",
    "nvflare.widgets.widget.Widget": "what BestModelSelector must be",
    "nvflare.apis.fl_component.FLComponent": "what RoundRecords must be",
    "nvflare.apis.executor.Executor": "what BratsExecutor must be",
}
"""FLARE class of the apps -> why no recipe has it."""

# FLARE looks through all that the network's file imports, and copies it: a plain import of torch takes minutes.
NETWORK = 'class Network(__import__("torch").nn.Linear):\n    """A network."""\n'


def load(path: str) -> Any:
    """The class of a dotted path."""
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def flare_class(cls: type) -> str:
    """Dotted path of the class if it is FLARE's, else of the nearest of its bases that is."""
    found = next(base for base in inspect.getmro(cls) if base.__module__.startswith("nvflare."))
    return f"{found.__module__}.{found.__qualname__}"


def exported(folder: Path) -> set[str]:
    """Paths of the components and executors of an exported job."""
    configs = [json.loads(path.read_text(encoding="utf-8")) for path in folder.rglob("config_fed_*.json")]
    return {component["path"] for config in configs for component in components(config)}


def test_apps_are_flares_recipes_but_for_the_differences_that_have_a_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["pytest"])  # FLARE's recipes read options of their own from it
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "network.py").write_text(NETWORK, encoding="utf-8")
    (tmp_path / "train.py").write_text("print('never run')\n", encoding="utf-8")
    fedopt = importlib.import_module("nvflare.app_opt.pt.recipes.fedopt")  # exports ScatterAndGather
    fedavg = importlib.import_module("nvflare.app_opt.pt.recipes.fedavg")  # takes a final evaluation
    network = importlib.import_module("network").Network(1, 1)
    settings = {"min_clients": 2, "num_rounds": 1, "model": network, "train_script": "train.py"}
    evaluated = fedavg.FedAvgRecipe(name="evaluated", **settings)
    importlib.import_module("nvflare.recipe.utils").add_cross_site_evaluation(evaluated)
    for recipe in (fedopt.FedOptRecipe(name="trained", **settings), evaluated):
        recipe.export(str(tmp_path / "recipes"))

    built = build_job("brats_unet_fedavg", tmp_path / "jobs", SMALL)

    theirs = exported(tmp_path / "recipes")
    ours = {flare_class(load(path)) for path in exported(built.folder)}
    assert theirs - ours == set(RECIPES_ALONE)
    assert ours - theirs == set(APPS_ALONE)
    assert {path.rpartition(".")[2] for path in theirs & ours} == {
        "ScatterAndGather",
        "CrossSiteModelEval",
        "PTFileModelPersistor",
        "PTFileModelLocator",
    }


OVERRIDDEN = {
    "AlgorithmAggregator": {"accept", "aggregate", "handle_event", "reset"},
    "BestModelSelector": {"handle_event"},
    "BratsExecutor": {"execute", "handle_event"},
    "BundlePersistor": {"handle_event", "load_model", "save_model"},
    "CrossSiteEvaluation": {
        "control_flow",
        "process_result_of_unknown_task",
        "start_controller",
        "stop_controller",
    },
    "CrossSiteExecutor": set(),
    "FinalModelLocator": {"get_model_names"},
    "FingerprintExecutor": {"execute"},
    "FingerprintMatcher": {"create_task_data", "final_process", "process_client_response"},
    "PayloadGenerator": {"handle_event", "learnable_to_shareable", "shareable_to_learnable"},
    "ReleaseFilter": {"process"},
    "RoundRecords": {"handle_event"},
    "RunLedger": {"handle_event"},
    "SecureAggregator": set(),
    "SecureExecutor": set(),
    "SecureScatterAndGather": {"broadcast_and_wait"},
    "SharedScansTeller": {"control_flow"},
    "SiteStatistics": {"count", "features", "histogram", "mean", "stddev", "sum", "variance_with_mean"},
    "SiteStatisticsExecutor": {"execute"},
}
"""Component -> methods by which FLARE calls it."""


def overridden(cls: type) -> set[str]:
    """Methods of a component that FLARE has as well; they take what FLARE's take."""
    base = load(flare_class(cls))
    methods = [name for name, value in vars(cls).items() if inspect.isfunction(value) and name[:2] != "__"]
    found = {name for name in methods if hasattr(base, name)}
    for name in found:
        theirs, ours = (list(inspect.signature(getattr(c, name)).parameters) for c in (base, cls))
        assert ours == theirs, f"{cls.__name__}.{name}"
    return found


def test_flare_calls_each_component_by_the_methods_that_it_has(tmp_path: Path) -> None:
    """No component has one of FLARE's own methods by accident, either."""
    paths = {path for name in job_names() for path in exported(build_job(name, tmp_path / name, small(name)).folder)}
    own = [load(path) for path in paths if path.startswith("brats_fl.")]

    assert {cls.__name__: overridden(cls) for cls in own} == OVERRIDDEN
