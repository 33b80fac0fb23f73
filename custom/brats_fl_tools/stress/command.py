"""``brats-fl stress``: a trained model on the hospitals' test cases, degraded in grades; a rerun goes on."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from brats_fl.cases.datalists import DATALIST_FILE
from brats_fl.constants import REGIONS
from brats_fl.files import write_whole
from brats_fl.machine import describe_machine
from brats_fl.provenance import find_commit
from brats_fl_tools.jobs.options import ForceOption
from brats_fl_tools.model.ensemble import digests_of, find_models, post_processing, title
from brats_fl_tools.model.evaluate import seen_by_any
from brats_fl_tools.model.evaluation_folder import count_synthetic, sites_with_cases
from brats_fl_tools.model.options import BundleOfModel, ProfileOfModel, sites_of_run
from brats_fl_tools.model.trained import TrainedModel
from brats_fl_tools.one_writer import writes
from brats_fl_tools.own_folders import claim, refuse_foreign
from brats_fl_tools.pages.formats import format_count, format_duration
from brats_fl_tools.runs.folder import RUN_FILE, now, versions
from brats_fl_tools.runs.processes import Interrupted
from brats_fl_tools.stress.plan import DEGRADATIONS, Grade, make_plan

if TYPE_CHECKING:
    from brats_fl_tools.stress.records import Records
    from brats_fl_tools.stress.summary import Summary

SPLIT = "testing"
"""The cases that neither trained nor chose the model."""

DEFAULT_FOLDER = "stress"


def stress(
    model: Annotated[
        Path, typer.Argument(metavar="RUN", help="A run folder, a checkpoint, or a bundle with weights (or its name).")
    ],
    sites: Annotated[
        Path | None,
        typer.Option("--sites", help="Folder with SITE/datalist.json; test cases are taken. Default: of its run."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Folder to write; default: RUN/stress of a run folder.")
    ] = None,
    others: Annotated[
        list[Path] | None,
        typer.Option("--model", help="Another model; figures are of the mean probability of all. Repeatable."),
    ] = None,
    bundle: BundleOfModel = None,
    profile: ProfileOfModel = None,
    only: Annotated[
        str | None,
        typer.Option("--only", metavar="A,B", help=f"These degradations, of {', '.join(DEGRADATIONS)}; default: all."),
    ] = None,
    grades: Annotated[
        list[str] | None,
        typer.Option(
            "--grades",
            metavar="NAME=X,Y",
            help="Strengths in place of a degradation's own, in its unit; alone, this degradation only. Repeatable.",
        ),
    ] = None,
    force: ForceOption = False,
) -> None:
    """Write DIR/stress.csv, stress.json and stress.html: Dice and HD95 of test cases whose scans are made worse.

    Noise, bias field, blur, gamma, shift of one modality, thick slices and each missing modality, in grades; the scans
    as they are once, with the figures of `evaluate`. Run again, it goes on where it was stopped.
    """
    try:
        plan = make_plan(only, grades or ())
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    if out is None and not (model / RUN_FILE).is_file():
        raise typer.BadParameter(f"--out is missing: {model} is no run folder, in which results would lie")
    models = find_models([model, *(others or ())], [bundle] if bundle else [], profile)
    stress_models(models, sites_of_run(model, sites), model / DEFAULT_FOLDER if out is None else out, plan, force)


@writes("out")
def stress_models(
    models: Sequence[TrainedModel], sites: Path, out: Path, plan: Mapping[Grade, float], force: bool = False
) -> Summary:
    """Segment every test case in every grade of the plan that is not known, then write table, summary and page.

    Raises:
        DataListError: A data list is wrong, or no site has a test case.
        ModelError: The bundle's evaluation cannot be used.
        FolderError: The folder is not ours, or holds figures of something else, and ``force`` is not set.
        StepError: A case could not be read or segmented; the same call goes on.
    """
    from brats_fl_tools.stress.records import RECORDS_FOLDER, Records
    from brats_fl_tools.stress.segmenting import describe_maker
    from brats_fl_tools.stress.summary import RESULTS

    refuse_foreign(out, "stress", force=True)  # what is ours is gone on with
    counts = sites_with_cases(sites, SPLIT)
    cases = list_cases(sites, counts)
    tuned = post_processing(models)
    if force:
        shutil.rmtree(out / RECORDS_FOLDER, ignore_errors=True)
    records = Records(out, describe_maker(models, tuned), cases)
    seen = seen_by_any(models, sites, counts, SPLIT)
    missing = [
        {**case, "degradation": grade.degradation, "grade": grade.grade, "strength": strength}
        for case in cases
        for grade, strength in plan.items()
        if grade not in records.of(case["site"], case["case"])
    ]
    announce(len(cases), len(plan), len(missing))
    claim(out, "stress")
    if missing:
        for name in RESULTS:  # of other grades or other cases; the new ones appear when all is known
            (out / name).unlink(missing_ok=True)
        segment_all(models, missing, tuned, records)
    facts: dict[str, Any] = {
        "models_sha256": digests_of(models),
        **title(models),
        "postprocessing": tuned,
        "split": SPLIT,
        "sites": counts,
        "cases": len(cases),
        "synthetic_cases": count_synthetic(sites, counts, SPLIT),
        "seen_in_training": None if seen is None else tuple(seen),
        "finished": now(),
        "versions": versions(),
        "machine": describe_machine(),
        "commit": find_commit(),
    }
    return write_results(out, records, cases, plan, facts)


def list_cases(sites: Path, names: Sequence[str] | Mapping[str, int]) -> list[dict[str, Any]]:
    """Test cases of the sites, as items of a MONAI dataset that name their site, too."""
    from brats_fl.scoring.evaluation import load_labelled

    return [{**item, "site": site} for site in names for item in load_labelled(sites / site / DATALIST_FILE, SPLIT)]


def announce(cases: int, grades: int, missing: int) -> None:
    """Say how much there is to do before it begins."""
    typer.echo(
        f"{format_count(cases, 'test case')} x {format_count(grades, 'grade')}, the scans as they are included: "
        f"{format_count(cases * grades, 'segmentation')}"
    )
    if missing < cases * grades:
        typer.echo(f"{cases * grades - missing} of them are known from before, {missing} are left")
    if missing:
        typer.echo("each line tells how long the rest will take, from what was measured so far")


def segment_all(
    models: Sequence[TrainedModel], items: Sequence[Mapping[str, Any]], tuned: Mapping[str, Any], records: Records
) -> None:
    """Segment the cases as their items say, and keep the figures of each."""
    from ignite.engine import Engine, Events

    from brats_fl.scoring.evaluation import score_output
    from brats_fl_tools.stress.records import Score
    from brats_fl_tools.stress.segmenting import make_evaluator

    evaluator = make_evaluator(models, items, tuned)
    begin, done = time.monotonic(), 0

    def note(engine: Engine) -> None:
        nonlocal done
        for item, output in zip(engine.state.batch, engine.state.output, strict=True):
            rows = score_output(item["case"], item["site"], SPLIT, output).rows
            dice, hd95_mm = ({row["region"]: row[name] for row in rows} for name in ("dice", "hd95_mm"))
            records.add(item["site"], item["case"], Score(item["degradation"], item["grade"], dice, hd95_mm))
            done += 1
            left = (time.monotonic() - begin) / done * (len(items) - done)
            told = " ".join(f"dice_{region}={dice[region]:.3f}" for region in REGIONS)
            typer.echo(
                f"{done}/{len(items)} site={item['site']} case={item['case']} degradation={item['degradation']} "
                f"grade={item['grade']} {told} left={format_duration(round(left))}"
            )

    evaluator.add_event_handler(Events.ITERATION_COMPLETED, note)
    try:
        evaluator.run()
    except (KeyboardInterrupt, SystemExit):
        raise Interrupted(f"{done} of {len(items)} segmentations are done; the same command goes on") from None


def write_results(
    out: Path,
    records: Records,
    cases: Sequence[Mapping[str, Any]],
    plan: Mapping[Grade, float],
    facts: Mapping[str, Any],
) -> Summary:
    """Write table, summary and page of what is known by now, and say so."""
    from brats_fl_tools.stress import summary as figures
    from brats_fl_tools.stress.page import render_page, sum_up

    results = [
        figures.Scored(case["site"], case["case"], records.of(case["site"], case["case"])[grade])
        for case in cases
        for grade in plan
    ]
    summary = figures.Summary(**facts, grades=figures.summarise(results, plan))
    page = render_page(summary)
    figures.write_table(out / figures.TABLE_FILE, results)
    figures.write_summary(out / figures.SUMMARY_FILE, summary)
    write_whole(out / figures.PAGE_FILE, page)
    for name in figures.RESULTS:
        typer.echo(f"wrote {out / name}")
    typer.echo(sum_up(summary))
    return summary
