"""``brats-fl demo``: the whole way on sample hospitals, from data to report, in one command."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from brats_fl.names import check_folder
from brats_fl_tools.jobs.assembly import JobOptions
from brats_fl_tools.jobs.options import ForceOption
from brats_fl_tools.model.evaluate import evaluate_sites
from brats_fl_tools.model.trained import resolve_bundle
from brats_fl_tools.one_writer import writes
from brats_fl_tools.own_folders import refuse_foreign
from brats_fl_tools.report import write_report
from brats_fl_tools.runs.simulate import run_simulation
from brats_fl_tools.runs.simulator import POLLING_SECONDS
from brats_fl_tools.sample import write_sample

JOB, BUNDLE = "brats_unet_fedavg", "brats_unet"

# Few long rounds: together under ten minutes on two cores, and enough steps that the report shows something learnt.
ROUNDS, STEPS_PER_ROUND, CASES_PER_SITE = 5, 32, 6


@writes("out")
def demo(
    out: Annotated[Path, typer.Option("--out", help="Run folder to write; the sample hospitals go beside the run.")],
    force: ForceOption = False,
) -> None:
    """Write OUT with report.html: five sample hospitals train a UNet together, and it is evaluated on their test cases.

    Takes about ten minutes on two cores and 8 GB of memory. The sample lies in OUT-sites.
    """
    begin = time.perf_counter()
    check_folder(out, "run folder")
    check_folder(Path(sys.executable), "Python environment")
    refuse_foreign(out, "run", force)
    sites = out.with_name(f"{out.name}-sites")
    if not (sites / "cases.csv").is_file():
        typer.echo("1 of 4: five sample hospitals")
        write_sample(sites, CASES_PER_SITE, seed=0, full_size=False, progress=typer.echo, force=force)
    typer.echo("2 of 4: federated training")
    options = JobOptions("small", ROUNDS, {"steps_per_epoch": STEPS_PER_ROUND}, polling_seconds=POLLING_SECONDS)
    run_simulation(JOB, sites, out, options, force)
    typer.echo("3 of 4: evaluation on each hospital's test cases")
    evaluate_sites(resolve_bundle(Path(BUNDLE)), out / "global_model.pt", sites, out, "small", masks=True, force=force)
    typer.echo("4 of 4: report")
    files = write_report(out, force=force)
    typer.echo(f"done in {time.perf_counter() - begin:.0f} s; open {files.page}")
