"""``brats-fl simulate``: a whole federation on one machine with FLARE's simulator, one process per site."""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from brats_fl.names import check_folder
from brats_fl_tools.jobs.assembly import JobOptions
from brats_fl_tools.jobs.built import BuiltJob
from brats_fl_tools.jobs.evaluated import check_of_run
from brats_fl_tools.jobs.options import ForceOption, JobFlags, NameArgument, takes_job_options
from brats_fl_tools.jobs.participants import Asked, check_sites, choose_sites, in_folder
from brats_fl_tools.jobs.source import read_source
from brats_fl_tools.one_writer import writes
from brats_fl_tools.runs.folder import STATE_FOLDER, begin_run_folder, now
from brats_fl_tools.runs.lists import describe_lists, take_seen, write_seen
from brats_fl_tools.runs.simulator import MODE, POLLING_SECONDS, carry_out, gpu_groups
from brats_fl_tools.runs.submission import Submission
from brats_fl_tools.runs.turns import NO_TRAINING, choose_at_once, describe_turns
from brats_fl_tools.runs.workload import profile_here, warn_of_hours


@takes_job_options
def simulate(
    name: NameArgument,
    sites: Annotated[Path, typer.Option("--sites", help="Folder with SITE/datalist.json for each hospital.")],
    out: Annotated[Path, typer.Option("--out", help="Run folder to write.")],
    flags: JobFlags,
    gpu: Annotated[
        str | None,
        typer.Option(
            "--gpu",
            metavar="0,1",
            help="GPUs that sites share, one site at a time on each; [0,1],[2,3]: groups. Default: all GPUs for all.",
        ),
    ] = None,
    at_once: Annotated[
        int | None,
        typer.Option(
            "--at-once",
            metavar="N",
            help="Sites that work at a time. Default: all, or of more than five as many as memory and cores bear.",
        ),
    ] = None,
    force: ForceOption = False,
) -> None:
    """Write a run folder OUT: global_model.pt, final_model.pt, rounds.jsonl, run.json, from a run on this machine.

    Ctrl-C keeps the rounds that were done: `brats-fl resume OUT` goes on with the next.
    """
    source = read_source(name)
    check_of_run(source, flags.of_run)
    chosen = choose_sites(source, flags.asked, in_folder(sites.resolve(), source.trains))
    options = replace(flags.options(source, POLLING_SECONDS, profile_here(source, flags.profile)), sites=chosen)
    warn_of_hours(source, options)
    run_simulation(name, sites, out, options, force, gpu, at_once)


@writes("run")
def run_simulation(
    name: str | Path,
    sites: Path,
    run: Path,
    options: JobOptions,
    force: bool = False,
    gpu: str | None = None,
    at_once: int | None = None,
) -> BuiltJob:
    """Run a job in FLARE's simulator and collect its run folder; prints a line per round and site.

    Args:
        name: Name of a job, or its folder.
        sites: Folder with ``SITE/datalist.json``.
        run: Run folder to write.
        options: With the sites that take part, else those of the folder do.
        force: Replace an earlier run in ``run``.
        gpu: GPUs that the sites share; see ``gpu_groups``.
        at_once: Sites that work at a time; see ``turns``.

    Raises:
        JobError, DataListError, FolderError: The job, a data list or the folder is wrong; nothing was started.
        RunError: The run did not finish; the message names its log.
    """
    sites, run = sites.resolve(), run.resolve()
    check_folder(run, "run folder")
    check_folder(Path(sys.executable), "Python environment")
    source = read_source(name)
    if options.sites is None:
        options = replace(options, sites=choose_sites(source, Asked(), in_folder(sites, source.trains)))
    chosen = options.sites or ()
    facts: dict[str, Any] = {
        "mode": MODE,
        "sites": check_sites(sites, chosen, source.trains),
        "sites_dir": str(sites),
        **describe_lists(sites, chosen),
    }
    groups = gpu_groups(gpu, len(chosen)) if gpu else []
    if gpu:
        facts["gpu"] = gpu.replace(" ", "")
    profile = options.profile if source.trains else NO_TRAINING
    working = choose_at_once(at_once, len(groups), len(chosen), profile)
    if working < len(chosen):
        facts["at_once"] = working
        typer.echo(describe_turns(working, len(chosen), profile))
    job = begin_run_folder(run, source.folder, options, force)
    if options.of_run and (options.of_run / STATE_FOLDER).is_dir():  # what its hospitals kept for themselves
        shutil.copytree(options.of_run / STATE_FOLDER, run / STATE_FOLDER)
    # What a model from elsewhere was trained on, nobody can tell.
    if source.trains and (options.checkpoint is None or take_seen(options.checkpoint, run)):
        write_seen(run, sites, chosen)
    carry_out(run, job, Submission(job.name, source.reference, now(), options, facts))
    return job
