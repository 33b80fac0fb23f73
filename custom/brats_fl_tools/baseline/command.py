"""``brats-fl baseline``: what the same recipe gives without the federation."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import typer

from brats_fl.constants import REGIONS
from brats_fl.errors import RunError
from brats_fl.files import CASE_TABLE_FILE, write_whole
from brats_fl.reading import Reader
from brats_fl.settings import bundle_settings
from brats_fl_tools.baseline.parts import LISTS_FOLDER, Kind, Part, parts_of, write_pooled
from brats_fl_tools.jobs.assembly import JobOptions, refuse_within
from brats_fl_tools.jobs.options import ForceOption, JobFlags, takes_job_options
from brats_fl_tools.jobs.participants import choose_sites, in_folder
from brats_fl_tools.jobs.source import JobSource, read_source
from brats_fl_tools.model.evaluate import evaluate_sites
from brats_fl_tools.model.evaluation_folder import count_synthetic
from brats_fl_tools.one_writer import writes
from brats_fl_tools.own_folders import claim, fresh_folder, is_ours, refuse_foreign
from brats_fl_tools.pages.formats import format_count
from brats_fl_tools.report.run_facts import EVALUATION_FACTS, RELIABILITY, read_facts
from brats_fl_tools.runs.folder import BEST_MODEL, EVALUATION_FILE, RUN_FILE
from brats_fl_tools.runs.lists import describe_lists
from brats_fl_tools.runs.resume import can_resume, resume_run
from brats_fl_tools.runs.simulate import run_simulation
from brats_fl_tools.runs.simulator import POLLING_SECONDS
from brats_fl_tools.runs.workload import profile_here, warn_of_hours, workload_of

if TYPE_CHECKING:
    import pandas as pd

BASELINE_FILE: Final = "baseline.json"
"""In the folder of a baseline: what was asked for, so that a second call goes on and does not mix two baselines."""

READER: Final = Reader(RunError, "remove the folder, and run the command again")
DEFAULT_JOB: Final = "brats_unet_fedavg"

SitesOption = Annotated[Path, typer.Option("--sites", help="Folder with SITE/datalist.json for each hospital.")]
OutOption = Annotated[Path, typer.Option("--out", help="Folder to write: a run folder each, and evaluation.csv.")]
JobOption = Annotated[str, typer.Option("--job", metavar="NAME", help="Job whose recipe it is.")]

app = typer.Typer(
    help="The same recipe without the federation: each hospital alone, all lists pooled, all hospitals but one.",
    no_args_is_help=True,
)


@app.command()
@takes_job_options
def local(
    sites: SitesOption, out: OutOption, flags: JobFlags, job: JobOption = DEFAULT_JOB, force: ForceOption = False
) -> None:
    """Train each hospital alone, and test its model on its own test cases.

    As many local steps as in the federation. Of a hospital's own machine: --sites with its list alone.
    """
    write_baseline("local", sites, out, flags, job, force)


@app.command()
@takes_job_options
def central(
    sites: SitesOption,
    out: OutOption,
    flags: JobFlags,
    job: JobOption = DEFAULT_JOB,
    equal: Annotated[
        Literal["steps", "passes"],
        typer.Option(
            "--equal",
            help="steps: as many one after the other as a hospital of the federation makes. passes: every case is seen "
            "as often, which is as many times more steps as there are hospitals.",
        ),
    ] = "steps",
    force: ForceOption = False,
) -> None:
    """Train one model on all lists pooled, and test it on every hospital's test cases."""
    write_baseline("central", sites, out, flags, job, force, equal)


@app.command("leave-one-out")
@takes_job_options
def leave_one_out(
    sites: SitesOption, out: OutOption, flags: JobFlags, job: JobOption = DEFAULT_JOB, force: ForceOption = False
) -> None:
    """Train all hospitals but one, as often as there are hospitals, and test on the one that was left out.

    Each part's own table has the others' test cases, too: what they lose without it is what that hospital contributes.
    """
    write_baseline("leave-one-out", sites, out, flags, job, force)


@writes("out")
def write_baseline(
    kind: Kind, sites: Path, out: Path, flags: JobFlags, job: str, force: bool, equal: str = "steps"
) -> JobOptions:
    """Run a baseline's parts, those that are done already excepted, and write its table of cases; the job's options.

    Raises:
        JobError, DataListError, FolderError: Job, lists or folder are wrong; nothing was started.
        RunError: A part did not finish; the parts before it stay.
    """
    sites, out, source = sites.resolve(), out.resolve(), read_source(job)
    if not source.trains:
        raise RunError(f"{source.name}: trains nothing; give --job with a job that does")
    chosen = choose_sites(source, flags.asked, in_folder(sites, True))
    options = flags.options(source, POLLING_SECONDS, profile_here(source, flags.profile))
    if equal == "passes":
        options = with_more_steps(source, options, len(chosen))
    asked = {
        "baseline": kind, "job": source.name, "sites_dir": str(sites), "sites": list(chosen),
        "profile": options.profile, "rounds": options.rounds, "values": dict(options.values),
        "lists": describe_lists(sites, chosen)["lists"],
        **({"start_sha256": options.start_sha256} if options.start_sha256 else {}),
    }  # fmt: skip
    parts = parts_of(kind, sites, chosen, out)
    typer.echo(describe(kind, source, options, parts, equal))
    warn_of_hours(source, replace(options, sites=parts[0].trained))
    refuse_within(out, options)
    begin_or_go_on(out, asked, force)
    if kind == "central":
        write_pooled(sites, chosen, out / LISTS_FOLDER)
    tables = [carry_out(part, source, sites, out, options) for part in parts]
    write_table(out, parts, tables)
    return options


def with_more_steps(source: JobSource, options: JobOptions, factor: int) -> JobOptions:
    """The same job with so many times the steps of an epoch."""
    assert source.bundle is not None
    known = bundle_settings(source.bundle, options.profile)
    steps = int(options.values.get("steps_per_epoch", known["steps_per_epoch"].default))
    return replace(options, values={**options.values, "steps_per_epoch": steps * factor})


def begin_or_go_on(out: Path, asked: Mapping[str, Any], force: bool) -> None:
    """Claim the folder; one that holds parts of the very same baseline is gone on with.

    Raises:
        FolderError: It holds something else, and ``force`` is not given or no baseline wrote it.
    """
    path = out / BASELINE_FILE
    text = json.dumps(asked, indent=1) + "\n"
    if is_ours(out, "baseline") and path.is_file() and path.read_text(encoding="utf-8") == text and not force:
        return
    refuse_foreign(out, "baseline", force)
    fresh_folder(out, "baseline", force)
    claim(out, "baseline")
    write_whole(path, text)


def describe(kind: Kind, source: JobSource, options: JobOptions, parts: Sequence[Part], equal: str) -> str:
    """What will be run, and what is held equal to the federation."""
    work = workload_of(source, replace(options, sites=parts[0].trained))
    whom = {
        "local": "of one hospital each",
        "central": "of all lists pooled",
        "leave-one-out": "of all hospitals but one",
    }
    held = {
        "steps": f"{work.rounds * work.steps:,} steps one after the other, as each hospital of the federation makes",
        "passes": f"{work.rounds * work.steps:,} steps, so that every case is seen as often as in the federation",
    }
    runs, rounds = format_count(len(parts), "run"), format_count(work.rounds, "round")
    return f"{runs} {whom[kind]}, each of {rounds}: {held[equal]}"


def carry_out(part: Part, source: JobSource, sites: Path, out: Path, options: JobOptions) -> pd.DataFrame:
    """Run and evaluate a part, unless that is done already; its table of test cases."""
    import pandas as pd

    run = out / part.name
    if (run / CASE_TABLE_FILE).is_file():
        typer.echo(f"{part.name}: done before")
        return pd.read_csv(run / CASE_TABLE_FILE, keep_default_na=False, dtype={"site": str, "case": str})
    if not _is_finished(run) and can_resume(run):
        typer.echo(f"{part.name}: was interrupted, and goes on")
        resume_run(run)
    elif not _is_finished(run):
        typer.echo(f"{part.name}: training of {', '.join(part.trained)}")
        run_simulation(source.folder, part.lists, run, replace(options, sites=part.trained), force=True)
    assert source.bundle is not None
    return evaluate_sites(source.bundle, run / BEST_MODEL, sites, run, options.profile, force=True, only=part.tested)


def _is_finished(run: Path) -> bool:
    return (run / RUN_FILE).is_file() and READER.json_object(run / RUN_FILE).get("state") == "finished"


def write_table(out: Path, parts: Sequence[Part], tables: Sequence[pd.DataFrame]) -> None:
    """Write each case as one table, under the model that was made for its hospital, and print the means.

    ``brats-fl report RUN --against OUT`` compares a federation with it, case by case.

    Raises:
        RunError: A model had seen a case that it was tested on.
    """
    import pandas as pd

    facts = {part.name: _evaluation(out / part.name) for part in parts}
    for name, one in facts.items():
        if seen := one.get("seen_in_training"):
            raise RunError(
                f"{out / name}: its model was trained or chosen on {', '.join(seen)}, which it was tested on; take "
                "them out of one of the lists"
            )
    own = [table[table["site"].isin(part.made_for)] for part, table in zip(parts, tables, strict=True)]
    table, last = pd.concat(own, ignore_index=True), facts[parts[-1].name]
    sites, split = Path(str(last["sites_dir"])), str(last["split"])
    told = {
        **{key: last[key] for key in ("bundle", "profile", "split", "sites_dir", "finished", "versions", "machine")},
        "model": f"{format_count(len(parts), 'model')} of {out.name}",
        "models_sha256": {name: one["model_sha256"] for name, one in facts.items()},
        "cases": len(table[["site", "case"]].drop_duplicates()),
        "synthetic_cases": count_synthetic(sites, table["site"].unique(), split),
    }
    bins = {site: bins for part in parts for site, bins in _bins(facts[part.name]).items() if site in part.made_for}
    if set(bins) == set(table["site"]):
        told[RELIABILITY] = bins
    if all("seen_in_training" in one for one in facts.values()):
        told["seen_in_training"] = []
    write_whole(out / EVALUATION_FILE, json.dumps(told, indent=1) + "\n")
    write_whole(out / CASE_TABLE_FILE, table.to_csv(index=False))
    _print_means(table)
    typer.echo(f"compare: brats-fl report RUN --against {out}")


def _bins(facts: Mapping[str, Any]) -> Mapping[str, Any]:
    """Hospital -> its voxels by their probability; empty of an evaluation that counted none."""
    return dict(facts.get(RELIABILITY, {}))


def _evaluation(run: Path) -> dict[str, Any]:
    """What its evaluation stated, typed."""
    return dict(read_facts(READER, run / EVALUATION_FILE, EVALUATION_FACTS))


def _print_means(table: pd.DataFrame) -> None:
    """A line a hospital, with the number of its cases beside the means."""
    for site, rows in table.groupby("site"):
        dice = rows.groupby("region")["dice"].mean()
        count = rows["case"].nunique()
        regions = " ".join(f"dice_{region}={dice[region]:.3f}" for region in REGIONS)
        typer.echo(f"site={site} cases={count} {regions} mean={dice.mean():.3f}")
