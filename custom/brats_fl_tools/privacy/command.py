"""``brats-fl privacy``: what a private job comes to before it starts, and hospitals' budgets."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from brats_fl.cases.datalists import DATALIST_FILE, read_datalist
from brats_fl.errors import PrivacyError
from brats_fl.privacy.budget import Budget
from brats_fl_tools.jobs.assembly import configure
from brats_fl_tools.jobs.options import ForceOption, JobFlags, NameArgument, takes_job_options
from brats_fl_tools.jobs.participants import choose_sites, in_folder
from brats_fl_tools.jobs.source import read_source
from brats_fl_tools.privacy.budgets import COLUMNS, sum_up, write_budgets
from brats_fl_tools.privacy.plan import Plan, plan_job

app = typer.Typer(help="What privacy costs, and what hospitals have spent of it.", no_args_is_help=True)


@app.command()
@takes_job_options
def plan(
    flags: JobFlags,
    name: NameArgument = "brats_unet_dp",
    sites: Annotated[
        Path | None, typer.Option("--sites", help="Folder with SITE/datalist.json for each hospital.")
    ] = None,
    patients: Annotated[
        int | None,
        typer.Option("--patients", min=1, help="In place of --sites: training patients of each hospital."),
    ] = None,
    epsilon: Annotated[
        float | None, typer.Option("--epsilon", help="Find the noise multiplier that stays within it.")
    ] = None,
) -> None:
    """Print what a private job comes to, and write nothing: noise, steps, epsilon by hospital, signal against noise.

    --set chooses clipping_norm, sampling_rate and delta, and noise_multiplier where --epsilon does not.
    """
    if (sites is None) == (patients is None):
        raise typer.BadParameter("give either --sites or --patients")
    source = read_source(name)
    present = in_folder(sites.resolve(), source.trains) if sites else None
    chosen = choose_sites(source, flags.asked, present)
    options = replace(flags.options(source), sites=chosen)
    counts = {site: patients or _count_patients(sites, site) for site in chosen}
    built = configure(source, options)
    found = plan_job(built, options.profile, counts, epsilon, options.checkpoint is not None)
    _print(name, found)


def _count_patients(sites: Path | None, site: str) -> int:
    assert sites is not None
    return len({case.patient for case in read_datalist(sites / site / DATALIST_FILE).training})


def _print(name: str, plan: Plan) -> None:
    noise = plan.noise
    typer.echo(
        f"{name}: {plan.rounds} rounds, {noise.steps:,} steps; noise_multiplier={noise.noise_multiplier:g} "
        f"clipping_norm={plan.clipping_norm:g} sampling_rate={noise.sampling_rate:g} delta={plan.delta:g}\n"
        f"trained: {plan.trained:,} of {plan.values:,} values"
    )
    table = Table("hospital", "patients", "drawn a step", "epsilon", "signal / noise of a step, at most")
    for site, count in plan.patients.items():
        drawn = noise.sampling_rate * count
        table.add_row(site, str(count), f"{drawn:.3g}", f"{plan.epsilon:.3f}", f"{plan.signal(site):.2g}")
    Console().print(table)
    typer.echo(
        f"of all hospitals together: {plan.signal_of_all:.2g} a step, {plan.signal_of_study:.2g} over all steps\n"
        f"{plan.verdict}"
    )
    for warning in plan.warnings():
        typer.echo(f"warning: {warning}")


@app.command()
def budget(
    where: Annotated[
        Path, typer.Argument(metavar="KIT|SITES", help="A hospital's startup kit, or a folder of simulated hospitals.")
    ],
    epsilon: Annotated[
        float | None, typer.Option("--epsilon", help="The most that may be computed on a patient's scans; writes it.")
    ] = None,
    delta: Annotated[
        float | None, typer.Option("--delta", help="Probability that epsilon may fail to hold, with --epsilon.")
    ] = None,
    allow_unaccounted: Annotated[
        bool, typer.Option("--allow-unaccounted", help="Jobs without noise run here, too, and no epsilon covers them.")
    ] = False,
    force: ForceOption = False,
) -> None:
    """Print what was spent; with --epsilon and --delta write privacy_budget.json, by which a site refuses rounds."""
    if (epsilon is None) != (delta is None):
        raise typer.BadParameter("--epsilon and --delta go together: neither has a default")
    if epsilon is not None and delta is not None:
        try:
            asked = Budget(epsilon, delta, allow_unaccounted)
        except ValueError as error:
            raise PrivacyError(f"the budget cannot be written: {error}") from None
        for path in write_budgets(where, asked, force):
            typer.echo(f"{path}: epsilon {epsilon:g} at delta {delta:g}")
        return
    table = Table(*COLUMNS)
    for row in sum_up(where):
        table.add_row(*row)
    Console().print(table)
