"""Which model a table of cases is of: told by the digest of the file that was evaluated, never by its name."""

from __future__ import annotations

from pathlib import Path

from brats_fl.provenance import hash_file
from brats_fl_tools.report.run_folder import RunFolder
from brats_fl_tools.runs.folder import BEST_MODEL, FINAL_MODEL

FINAL = "final model"
NOT_HERE = "a model that is not in this run folder"
NOT_RECORDED = "not recorded"


def name_evaluated_model(run: RunFolder) -> str:
    """What the evaluated model is in its run, in words.

    ``model_sha256`` of the evaluation is compared with the run's own models. The number of a round is the run's word
    on its best model, and stands there only where that is the one.
    """
    if run.is_rescored:
        folder, masks = (str(run.evaluation.get(name)) for name in ("masks_dir", "masks_sha256"))
        return f"none: masks of {Path(folder).name}, SHA-256 {masks[:12]}"
    if run.evaluation.get("models_sha256"):  # the mean of several, or a baseline: each hospital's cases by its own
        return str(run.evaluation.get("model"))
    digest = run.evaluation.get("model_sha256")
    if not digest:
        return NOT_RECORDED
    if run.is_evaluation:
        return f"{run.evaluation.get('model')}, SHA-256 {str(digest)[:12]}"
    is_best, is_final = (
        (run.path / name).is_file() and hash_file(run.path / name) == digest for name in (BEST_MODEL, FINAL_MODEL)
    )
    if is_final:
        return f"{FINAL}, the best on validation" if is_best else FINAL
    if not is_best:
        return NOT_HERE
    chosen = run.info.get("best_round")
    return f"best on validation, round {chosen}" if isinstance(chosen, int) else "best on validation"
