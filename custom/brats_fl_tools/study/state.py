"""The state of a study's folder: what is there already, what of it still counts, and what is recorded of it."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import typer

from brats_fl.errors import FolderError
from brats_fl.machine import describe_machine
from brats_fl.names import check_folder
from brats_fl.provenance import find_commit, hash_file
from brats_fl_tools.own_folders import claim, is_ours, refuse_foreign
from brats_fl_tools.partition.spoilt_labels import write_spoilt
from brats_fl_tools.runs.folder import now, versions
from brats_fl_tools.study.children import is_done
from brats_fl_tools.study.definition import READER, Study
from brats_fl_tools.study.expansion import LOGS_FOLDER, RUNS_FOLDER, Cases, StudyRun, cases_of
from brats_fl_tools.study.folds import FOLD_RULE, write_lists
from brats_fl_tools.study.record import (
    STUDY_FILE,
    RunRecord,
    StatedThresholds,
    StudyRecord,
    as_record,
    read_record,
    write_record,
)
from brats_fl_tools.study.thresholds import read_thresholds


def begin_or_go_on(path: Path, study: Study, runs: Sequence[StudyRun], out: Path, force: bool) -> StudyRecord:
    """Claim the folder, or go on with what is in it; writes the record, and the lists of folds.

    Args:
        path: The study file.
        study: Its content.
        runs: What it consists of.
        out: Folder of the study.
        force: Do away with runs that are no longer what the file asks for.

    Raises:
        FolderError: ``out`` is another's; or runs there, or the thresholds, are no longer those of the file, and
            ``force`` is not given. The text names them.
    """
    check_folder(out, "folder of the study")
    earlier = _earlier(out)
    outdated = outdated_runs(earlier, runs, out)
    thresholds = state_thresholds(study, earlier, out, force)
    if outdated and not force:
        kept = sum((out / run.folder).is_dir() for run in runs) - len(outdated)
        raise FolderError(
            f"{path} asks for other runs than lie in {out}, or their data, job or bundle has changed: no longer valid "
            f"{'is' if len(outdated) == 1 else 'are'} {', '.join(run.name for run in outdated)}; add --force to run "
            f"{'it' if len(outdated) == 1 else 'them'} again ({kept} others stay), or choose another --out"
        )
    claim(out, "study")
    for run in outdated:
        typer.echo(f"{run.name}: removed, to be run again")
        shutil.rmtree(out / run.folder)
        (out / run.log).unlink(missing_ok=True)
    for folder in (RUNS_FOLDER, LOGS_FOLDER):
        (out / folder).mkdir(exist_ok=True)
    record = _state(path, study, runs, out, earlier, {run.name for run in outdated}, thresholds)
    write_record(out, record)
    for run in record.dropped:
        typer.echo(f"{run.name}: no longer in the study; its folder stays")
    for cases in cases_of(study, out):
        if cases.is_made:
            write_cases(cases, study.folders[cases.partition])
    return record


def write_cases(cases: Cases, sites: Path) -> None:
    """Write the lists of a fold, or those with spoilt labels, and these labels.

    Args:
        cases: Lists of the study's own.
        sites: Folder of the sites that they were made of.

    Raises:
        CaseError: A label that is to be spoilt cannot be read.
    """
    spoilt = {site: write_spoilt(cases.sites / site, cases.lists[site], how) for site, how in cases.spoilt.items()}
    write_lists(cases.sites, {**cases.lists, **spoilt}, sites)


def _earlier(out: Path) -> StudyRecord | None:
    """The record of a folder that is gone on with."""
    if is_ours(out, "study") and (out / STUDY_FILE).is_file():
        return read_record(out)
    if not is_ours(out, "study"):
        refuse_foreign(out, "study", force=False)
    return None


def outdated_runs(earlier: StudyRecord | None, runs: Sequence[StudyRun], out: Path) -> list[StudyRun]:
    """Runs that lie in the folder under the name of one of the study, and are not the same."""
    recipes = {run.name: run.recipe_sha256 for run in earlier.all_there} if earlier else {}
    return [run for run in runs if (out / run.folder).is_dir() and recipes.get(run.name) != run.recipe_sha256]


def state_thresholds(study: Study, earlier: StudyRecord | None, out: Path, force: bool) -> StatedThresholds | None:
    """The thresholds with their digest, as they were when the first run began.

    Raises:
        FolderError: They are not those that the runs of the folder were begun with, and ``force`` is not given.
        RunError: The file cannot be used.
    """
    begun = earlier is not None and any((out / run.folder).is_dir() for run in earlier.runs)
    before = earlier.thresholds if earlier is not None and begun else None
    if study.thresholds is None:
        if before is not None and not force:
            raise FolderError(_changed(out, "were taken out of the study"))
        return None
    asked, sha256 = read_thresholds(study.thresholds), hash_file(study.thresholds)
    if before is not None and before.sha256 == sha256:
        return replace(before, file=str(study.thresholds))
    if begun and not force:
        raise FolderError(_changed(out, "are others" if before else "came"))
    replaced = (*before.replaced, before.sha256) if before else ("none",) if begun else ()
    return StatedThresholds(str(study.thresholds), sha256, now(), asked, replaced)


def _changed(out: Path, what: str) -> str:
    return (
        f"{out}: the thresholds {what} after the first run had begun; go back to what they were, or choose another "
        "--out. With --force they count, and the record says that they were changed"
    )


def _state(
    path: Path,
    study: Study,
    runs: Sequence[StudyRun],
    out: Path,
    earlier: StudyRecord | None,
    outdated: set[str],
    thresholds: StatedThresholds | None,
) -> StudyRecord:
    known, names = earlier.all_there if earlier else (), {run.name for run in runs}
    before = {run.name: run for run in known if run.name not in outdated}
    return StudyRecord(
        name=study.name,
        file=str(path.resolve()),
        sha256=hash_file(path),
        text="\n".join(READER.text(path).splitlines()) + "\n",
        started=earlier.started if earlier else now(),
        runs=tuple(_with_state(run, before.get(run.name), out) for run in runs),
        dropped=tuple(run for run in known if run.name not in names and (out / run.folder).is_dir()),
        thresholds=thresholds,
        fold_rule=FOLD_RULE if study.folds is not None else "",
        spoilt=study.spoilt,
        versions=versions(),
        commit=find_commit() or "",
        machine=describe_machine(),
    )


def _with_state(run: StudyRun, before: RunRecord | None, out: Path) -> RunRecord:
    """A run in the state that its folder tells: what was written down last may be older."""
    seconds = before.seconds if before else 0.0
    if is_done(run, out) and not (before and before.state == "failed"):
        return as_record(run, state="finished", seconds=seconds)
    if not (out / run.folder).is_dir():
        return as_record(run)
    known = before.state if before and before.state == "failed" else "interrupted"
    return as_record(run, state=known, seconds=seconds, error=before.error if before and known == "failed" else "")
