"""``brats-fl evaluate``: the bundle's own evaluation, once a site, by the MONAI bundle command line; or given masks."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from brats_fl.bundle import config_files
from brats_fl.cases.datalists import DATALIST_FILE
from brats_fl.constants import LABEL_TABLES, REGIONS, SPLITS
from brats_fl.errors import RunError
from brats_fl.files import CASE_TABLE_FILE, write_whole
from brats_fl.network.engine_packages import TORCH, describe_engine
from brats_fl.provenance import hash_file
from brats_fl.reading import Reader
from brats_fl_tools.jobs.options import ForceOption
from brats_fl_tools.model.engine import EngineOption, engine_settings
from brats_fl_tools.model.ensemble import (
    digests_of,
    ensemble_parts,
    find_models,
    post_processing,
    tell_unused,
    title,
)
from brats_fl_tools.model.evaluation_folder import (
    describe_evaluation,
    refuse_earlier,
    replace_masks,
    sites_with_cases,
    write_evaluation,
)
from brats_fl_tools.model.rescore import rescore_masks
from brats_fl_tools.model.trained import TUNED_FILE, TrainedModel, build_trained
from brats_fl_tools.one_writer import writes
from brats_fl_tools.own_folders import fresh_folder
from brats_fl_tools.runs.folder import MASKS_FOLDER
from brats_fl_tools.runs.lists import find_seen
from brats_fl_tools.runs.processes import last_lines, python_module, running
from brats_fl_tools.weights import ENSEMBLE_FILE

if TYPE_CHECKING:
    import pandas as pd

READER = Reader(RunError, "evaluate again")


def evaluate(
    sites: Annotated[Path, typer.Option("--sites", help="Folder with SITE/datalist.json for each site.")],
    out: Annotated[Path, typer.Option("--out", help="Folder to write; of a model a run folder is fine.")],
    bundle: Annotated[
        list[Path] | None,
        typer.Argument(metavar="BUNDLE", help="Folder of the bundle, or its name; of several models one, or one each."),
    ] = None,
    model: Annotated[
        list[Path] | None,
        typer.Option(
            "--model",
            help="Checkpoint, or the run folder or bundle that holds it. Repeated: the mean of their probabilities.",
        ),
    ] = None,
    rescore: Annotated[
        Path | None,
        typer.Option(
            "--rescore",
            metavar="MASKS",
            help="In place of BUNDLE and --model: masks to score, (SITE/)CASE_seg.nii.gz or (SITE/)CASE.nii.gz.",
        ),
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(
            "--labels", help=f"Convention of these masks: {', '.join(LABEL_TABLES)}; default: each case's own."
        ),
    ] = None,
    profile: Annotated[
        str | None,
        typer.Option("--profile", help="full or small; default: of the run folder, else the one that it fits."),
    ] = None,
    split: Annotated[str, typer.Option("--split", help="training, validation or testing.")] = "testing",
    masks: Annotated[bool, typer.Option("--masks", help="Also write masks/SITE/CASE_seg.nii.gz.")] = False,
    engine: EngineOption = TORCH,
    force: ForceOption = False,
) -> None:
    """Write OUT/evaluation.csv: Dice, HD95 in mm, volumes in ml and more per case and region, at full resolution."""
    if split not in SPLITS:
        raise typer.BadParameter(f"--split must be one of {', '.join(SPLITS)} (got {split!r})")
    if labels is not None and labels not in LABEL_TABLES:
        raise typer.BadParameter(f"--labels must be one of {', '.join(LABEL_TABLES)} (got {labels!r})")
    if rescore is not None:
        if bundle or model or profile or engine != TORCH:
            raise typer.BadParameter("--rescore scores masks: BUNDLE, --model, --profile and --engine have no meaning")
        rescore_masks(rescore, sites, out, split, labels, masks, force)
        return
    if not bundle or not model:
        raise typer.BadParameter("give BUNDLE and --model, or --rescore MASKS where the masks are there already")
    if labels is not None:
        raise typer.BadParameter("--labels is of the masks of --rescore; a model's are in each case's own convention")
    models = find_models(model, bundle, profile)
    tell_unused(bundle, models)
    evaluate_models(models, sites, out, split, masks, force, engine=engine)


def evaluate_sites(
    bundle: Path,
    model: Path,
    sites: Path,
    out: Path,
    profile: str = "full",
    split: str = "testing",
    masks: bool = False,
    force: bool = False,
    only: Collection[str] | None = None,
) -> pd.DataFrame:
    """As ``evaluate_models``, of one model."""
    return evaluate_models((TrainedModel(bundle, model.resolve(), profile),), sites, out, split, masks, force, only)


@writes("out")
def evaluate_models(
    models: Sequence[TrainedModel],
    sites: Path,
    out: Path,
    split: str = "testing",
    masks: bool = False,
    force: bool = False,
    only: Collection[str] | None = None,
    engine: str = TORCH,
) -> pd.DataFrame:
    """Evaluate a model, or the mean probability of several, on every site, or on some.

    Writes ``evaluation.csv`` and ``evaluation.json``, and returns the table.

    Raises:
        ModelError, DataListError: Model or data lists are wrong; nothing was started.
        FolderError: There are masks in ``out`` that no evaluation wrote.
        RunError: The evaluation of a site failed; the message names the site, the reason and the log.
    """
    sites, out = sites.resolve(), out.resolve()
    refuse_earlier(out, force)
    for model in models:
        build_trained(model)
    counts = sites_with_cases(sites, split, only)
    seen = seen_by_any(models, sites, counts, split)
    tuned = post_processing(models)
    if tuned:
        typer.echo(f"post-processing of {models[0].weights.with_name(TUNED_FILE)}: {json.dumps(tuned)}")
    scratch = out / ".evaluation"
    fresh_folder(scratch, "evaluation", force=True)
    begin = time.perf_counter()
    tables, bins = [], {}
    for site in counts:
        typer.echo(f"site={site} cases={counts[site]} split={split}: evaluating")
        tables.append(evaluate_site(models, sites / site / DATALIST_FILE, scratch / site, split, masks, tuned, engine))
        bins[site] = read_bins(scratch / site)
        means = tables[-1].groupby("region")["dice"].mean()
        typer.echo(f"site={site} " + " ".join(f"dice_{region}={means[region]:.3f}" for region in REGIONS))
    import pandas as pd

    table = pd.concat(tables, ignore_index=True)
    replace_masks(out, {site: scratch / site / MASKS_FOLDER for site in counts} if masks else {})
    facts = {
        **name_models(models),
        "postprocessing": tuned,
        "engine": describe_engine(engine),
        **({} if seen is None else {"seen_in_training": seen}),
        **({"reliability": bins} if any(bins.values()) else {}),
        **describe_evaluation(sites, counts, split, begin),
    }
    shutil.rmtree(scratch)
    write_evaluation(out, facts, table.to_csv(index=False))
    return table


def read_bins(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Region -> bins of the voxels by their probability, as the bundle's own ``evaluate`` left them; may be empty."""
    from brats_fl.scoring.calibration import Bin
    from brats_fl.scoring.evaluation import SUMMARY_FILE

    path = folder / SUMMARY_FILE
    regions = READER.at(dict[str, list[dict[str, Any]]], READER.json_object(path), ["reliability"], path)
    kept = [field.name for field in fields(Bin)]
    return {region: [{name: row[name] for name in kept} for row in rows] for region, rows in regions.items()}


def name_models(models: Sequence[TrainedModel]) -> dict[str, Any]:
    """What was evaluated, for ``evaluation.json``: the model and its digest, or every model and its digest."""
    if len(models) == 1:
        return {**title(models), "model_sha256": hash_file(models[0].weights)}
    return {**title(models), "models_sha256": digests_of(models)}


def seen_by_any(models: Sequence[TrainedModel], sites: Path, names: Iterable[str], split: str) -> list[str] | None:
    """Cases that a model was trained or chosen on, which is told; None where not all of the models' runs tell."""
    found = [find_seen(model.weights, sites, names, split) for model in models]
    seen = list(dict.fromkeys(case for cases in found for case in cases or ()))
    if seen and split == "testing":
        typer.echo(f"note: the model was trained or chosen on {len(seen)} of these cases: {', '.join(seen)}", err=True)
    return None if None in found else seen


def evaluate_site(
    models: Sequence[TrainedModel],
    datalist: Path,
    out: Path,
    split: str,
    masks: bool,
    tuned: Mapping[str, Any] = MappingProxyType({}),
    engine: str = TORCH,
) -> pd.DataFrame:
    """Run the bundle's ``evaluate`` on one data list; its table."""
    settings = evaluation_settings(models, datalist, out, split, masks, tuned)
    settings |= engine_settings(engine, "validate#inferer")
    arguments = [part for key, value in settings.items() for part in (f"--{key}", value)]
    # MONAI's command finds a bundle's own classes, scripts.MODULE.CLASS, where the bundle is on the path.
    bundles = dict.fromkeys(str(model.bundle) for model in models)
    path = os.pathsep.join(filter(None, (*bundles, os.environ.get("PYTHONPATH"))))
    log, environment = out / "evaluate.log", {"PYTHONWARNINGS": "ignore", "PYTHONPATH": path}
    with running(python_module("monai.bundle", "run", *arguments), log, environment) as process:
        process.wait()
    if process.returncode != 0 or not (out / CASE_TABLE_FILE).is_file():
        raise RunError(f"{datalist.parent.name}: {describe_end(process.returncode, log)}; see {log}")
    import pandas as pd

    return pd.read_csv(out / CASE_TABLE_FILE, keep_default_na=False)


def evaluation_settings(
    models: Sequence[TrainedModel], datalist: Path, out: Path, split: str, masks: bool, tuned: Mapping[str, Any]
) -> dict[str, str]:
    """What MONAI's command is given; of several models the configuration that makes them one lies beside ``out``."""
    first, files = models[0], config_files(models[0].bundle, models[0].profile, ["evaluate"])
    if len(models) > 1:
        parts = {**ensemble_parts(models, "validate#inferer"), "checkpoint": [str(model.weights) for model in models]}
        files.append(str(out.with_name(ENSEMBLE_FILE)))
        write_whole(Path(files[-1]), json.dumps(parts))
    return {
        "config_file": json.dumps(files),
        "bundle_root": str(first.bundle),
        **({} if len(models) > 1 else {"checkpoint": str(first.weights)}),
        "data_list_file_path": str(datalist),
        "output_dir": str(out),
        "site": datalist.parent.name,
        "split": split,
        "save_masks": str(masks),
        **{name: json.dumps(value) for name, value in tuned.items()},
    }


def describe_end(code: int, log: Path) -> str:
    """Why a command failed: the signal that ended it, where one did, and what it said last.

    Args:
        code: Its exit code, below 0 for a signal.
        log: What it printed.
    """
    ended = f"ended by {signal.Signals(-code).name}, perhaps for want of memory, after: " if code < 0 else ""
    return ended + reason(log)


def reason(log: Path) -> str:
    """What a failed command said last: the reason, where the bundle tells it, else an error of ours, else a line."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.is_file() else []
    for start in ("error: ", "brats_fl.errors."):
        for number in reversed(range(len(lines))):
            if lines[number].startswith(start):
                # The reason is told to the end of the log; under an error in a traceback others may follow.
                told = lines[number:] if start == "error: " else lines[number : number + 1]
                return "\n".join(told).split(": ", 1)[1]
    return last_lines(log, 1)
