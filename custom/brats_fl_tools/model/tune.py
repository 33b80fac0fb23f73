"""``brats-fl tune``: how a model's probabilities become masks, chosen on validation cases and kept beside the model."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from brats_fl.bundle import config_files
from brats_fl.cases.datalists import DATALIST_FILE
from brats_fl.errors import RunError
from brats_fl.files import write_whole
from brats_fl.provenance import hash_file
from brats_fl.scoring.finishing import MM3_PER_ML, PostProcessing
from brats_fl_tools.jobs.options import ForceOption
from brats_fl_tools.model.evaluation_folder import sites_with_cases
from brats_fl_tools.model.options import sites_of_run
from brats_fl_tools.model.trained import TUNED_FILE, TrainedModel, find_model
from brats_fl_tools.one_writer import only_writer

if TYPE_CHECKING:
    from brats_fl.scoring.tuning import Prediction

SPLIT = "validation"
"""The cases that also chose the best round; test cases would be judged by what was chosen on them."""


def tune(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help="A run folder, a checkpoint, or a bundle with weights.")
    ],
    sites: Annotated[
        Path | None,
        typer.Option("--sites", help="Folder with SITE/datalist.json; validation cases count. Default: of its run."),
    ] = None,
    bundle: Annotated[Path | None, typer.Option("--bundle", help="Bundle of the model; default: of its run.")] = None,
    profile: Annotated[str | None, typer.Option("--profile", help="full or small; default: of its run.")] = None,
    force: ForceOption = False,
) -> None:
    """Write postprocessing.json beside the model: thresholds and smallest sizes, chosen on the validation cases.

    `evaluate`, `segment` and `export` use it from then on. A choice that is worth no more than the default on cases
    that it was not made on is not made.
    """
    tune_model(find_model(model, bundle, profile), sites_of_run(model, sites).resolve(), force)


def tune_model(model: TrainedModel, sites: Path, force: bool = False) -> PostProcessing:
    """As the command; returns what was chosen.

    Raises:
        DataListError: No site has a validation case.
        RunError: There are too few cases, or the file is there already.
    """
    with only_writer(model.weights.with_name(TUNED_FILE)):
        return _tune(model, sites, force)


def _tune(model: TrainedModel, sites: Path, force: bool) -> PostProcessing:
    from brats_fl.scoring.tuning import choose, refuse_few

    target = model.weights.with_name(TUNED_FILE)
    if target.exists() and not force:
        raise RunError(f"{target} exists; add --force to replace it")
    counts = sites_with_cases(sites, SPLIT)
    refuse_few(sum(counts.values()))
    with tempfile.TemporaryDirectory() as scratch:
        files: list[Path] = []
        for site in counts:
            typer.echo(f"site={site} cases={counts[site]} split={SPLIT}: segmenting")
            files += keep_predictions(model, sites / site / DATALIST_FILE, Path(scratch) / site)
        choice = choose([partial(read_prediction, file) for file in files])
    facts = {
        "model_sha256": hash_file(model.weights),
        "cases": len(files),
        "sites": sorted(counts),
        "mean_dice_default": round(choice.before, 4),
        "mean_dice": round(choice.after, 4),
        "mean_dice_left_out": round(choice.left_out, 4),
    }
    write_whole(target, json.dumps({**as_settings(choice.settings), "tuned": facts}, indent=1) + "\n")
    typer.echo(
        f"{target}: {json.dumps(as_settings(choice.settings))}\nmean Dice of {len(files)} validation cases: default "
        f"{choice.before:.3f}, chosen {choice.after:.3f}; each case with what the others choose {choice.left_out:.3f}"
    )
    return choice.settings


def as_settings(chosen: PostProcessing) -> dict[str, Any]:
    """Post-processing as variables of the bundle."""
    return {
        "thresholds": list(chosen.thresholds),
        "smallest_wt_share": chosen.smallest_wt_share,
        "smallest_et_ml": chosen.smallest_et_ml,
    }


def keep_predictions(model: TrainedModel, datalist: Path, folder: Path) -> list[Path]:
    """Run the bundle's evaluation up to the probabilities, and keep those of every case in a file."""
    from ignite.engine import Events
    from monai.bundle import ConfigParser

    folder.mkdir(parents=True)
    parser = ConfigParser()
    parser.read_config(config_files(model.bundle, model.profile, ["evaluate"]))
    places = {"bundle_root": model.bundle, "checkpoint": model.weights, "data_list_file_path": datalist}
    for key, value in {**places, "output_dir": folder, "split": SPLIT}.items():
        parser[key] = str(value)
    transforms = parser["validate#postprocessing#transforms"]
    parser["validate#postprocessing#transforms"] = without(transforms, ("FinishMaskd", "SaveMaskd"))
    parser["validate#handlers"] = without(parser["validate#handlers"], ("CaseTable",))
    evaluator = parser.get_parsed_content("validate#evaluator")
    files: list[Path] = []

    def keep(engine: Any) -> None:
        for item, output in zip(engine.state.batch, engine.state.output, strict=True):
            files.append(folder / f"{len(files)}.npz")
            write_prediction(files[-1], output["pred"], output["label"])
            typer.echo(f"case={item['case']} done")

    evaluator.add_event_handler(Events.ITERATION_COMPLETED, keep)
    evaluator.run()
    return files


def without(parts: Sequence[Mapping[str, Any]], classes: Sequence[str]) -> list[Mapping[str, Any]]:
    """Parts of a configuration that are of no such class."""
    return [part for part in parts if str(part["_target_"]).rpartition(".")[2] not in classes]


def write_prediction(file: Path, pred: Any, label: Any) -> None:
    """Keep probabilities (3, H, W, D) and regions, cut to where either may matter."""
    from brats_fl.scoring.tuning import THRESHOLDS

    probabilities, reference = pred.numpy(force=True), np.asarray(label) > 0
    affine = np.asarray(pred.affine)[:3, :3]
    matters = ((probabilities >= min(THRESHOLDS)) | reference).any(axis=0)
    within = (slice(0, 1) if not len(w) else slice(w.min(), w.max() + 1) for w in np.nonzero(matters))
    box = (slice(None), *within)
    np.savez(
        file,
        probabilities=probabilities[box].astype(np.float16),
        reference=reference[box],
        voxel_ml=abs(np.linalg.det(affine)) / MM3_PER_ML,
    )


def read_prediction(file: Path) -> Prediction:
    """What ``write_prediction`` kept."""
    from brats_fl.scoring.tuning import Prediction

    with np.load(file, allow_pickle=False) as kept:
        return Prediction(kept["probabilities"].astype(np.float32), kept["reference"], float(kept["voxel_ml"]))
