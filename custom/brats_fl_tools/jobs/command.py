"""``brats-fl job``: what a hospital is asked to run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Column, Table

from brats_fl_tools.jobs.assembly import (
    CLIENT_CONFIG,
    NOT_VARIABLES,
    SERVER_CONFIG,
    build_job,
    bundle_variables,
    job_names,
    job_sites,
    read_config,
    read_job,
    variables_of,
)
from brats_fl_tools.jobs.options import (
    ForceOption,
    LeaveOutOption,
    NameArgument,
    PreinstalledOption,
    ProfileOption,
    RoundsOption,
    SetOption,
    TimeoutsOption,
    options_from,
)

app = typer.Typer(help="Jobs: what a hospital is asked to run.", no_args_is_help=True)


@app.command("list")
def list_jobs() -> None:
    """Print a table of the jobs: name, rounds, sites, what it is."""
    table = Table(Column("job", no_wrap=True), "rounds", "sites", "what it is")
    for name in job_names():
        _, differences = read_job(name)
        rounds, sites = differences.get("num_rounds", "none"), len(job_sites(name))
        table.add_row(name, str(rounds), str(sites), differences["description"])
    Console().print(table)


@app.command()
def show(name: NameArgument) -> None:
    """Print what a job holds: who takes part, its variables with their values, and what else may be set."""
    meta, differences = read_job(name)
    server, client = read_config(name, SERVER_CONFIG), read_config(name, CLIENT_CONFIG)
    own = {key: value for key, value in differences.items() if key not in NOT_VARIABLES}
    variables = {**variables_of(client), **variables_of(server), **own}
    of_bundle = bundle_variables(own["bundle"], "full") if "bundle" in own else {}
    console = Console()
    console.print(f"{name}: {differences['description']}")
    for app_name, sites in meta["deploy_map"].items():
        console.print(f"  {app_name}: {', '.join(sites)}")
    for title, values in (
        ("variables of the job", variables),
        ("variables of the bundle", of_bundle),
    ):
        if not values:
            continue
        table = Table(title, "value", title_justify="left")
        for key, value in sorted(values.items()):
            table.add_row(key, json.dumps(value))
        console.print(table)


@app.command()
def build(
    name: NameArgument,
    out: Annotated[Path, typer.Option("--out", help="Folder that gets the job folder.")],
    profile: ProfileOption = "full",
    rounds: RoundsOption = None,
    values: SetOption = None,
    preinstalled: PreinstalledOption = False,
    leave_out: LeaveOutOption = None,
    timeouts_from: TimeoutsOption = None,
    force: ForceOption = False,
) -> None:
    """Write the self-contained FLARE job folder OUT/NAME, ready for FLARE's `submit_job`, and print its hash."""
    options = options_from(
        profile, rounds, values, preinstalled=preinstalled, leave_out=leave_out, timeouts_from=timeouts_from
    )
    built = build_job(name, out, options, force)
    typer.echo(f"{built.folder}\ncontent_hash {built.content_hash}")
