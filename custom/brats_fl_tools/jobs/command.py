"""``brats-fl job``: what a hospital is asked to run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from difflib import SequenceMatcher
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Column, Table

from brats_fl_tools.jobs.assembly import JobOptions, build_job, configure
from brats_fl_tools.jobs.description import describe_settings, hash_at_site
from brats_fl_tools.jobs.evaluated import check_of_run
from brats_fl_tools.jobs.options import ForceOption, NameArgument, ProfileOption, SentJobFlags, takes_job_options
from brats_fl_tools.jobs.participants import choose_sites
from brats_fl_tools.jobs.settings import settings_of
from brats_fl_tools.jobs.source import CLIENT_CONFIG, SERVER_CONFIG, job_names, read_source, shared_config

app = typer.Typer(help="Jobs: what a hospital is asked to run.", no_args_is_help=True)


@app.command("list")
def list_jobs() -> None:
    """Print a table of the jobs: name, rounds, sites, what it is."""
    table = Table(Column("job", no_wrap=True), "rounds", "sites", "what it is")
    for name in job_names():
        source = read_source(name)
        rounds = source.differences.get("num_rounds", "none")
        table.add_row(name, str(rounds), str(len(source.sites)), source.differences["description"])
    Console().print(table)


@app.command()
def show(name: NameArgument, profile: ProfileOption = "full") -> None:
    """Print the whole of what a job makes server and sites run, with what differs from the plain job marked."""
    source = read_source(name)
    built = configure(source, JobOptions(profile))
    known = settings_of(source, built.server, built.client, profile, str(built.variables.get("algorithm", "")))
    typer.echo(f"{source.name}: {source.differences['description']}")
    for app_name, sites in built.meta["deploy_map"].items():
        typer.echo(f"  {app_name}: {', '.join(sites)}")
    of_job = {**known.algorithm, **known.client, **known.server}
    for title, settings in (("variables of the job", of_job), ("variables of the bundle", known.bundle)):
        if settings:
            typer.echo("\n".join(["", title, *describe_settings(settings, built.variables)]))
    for config, app in ((SERVER_CONFIG, built.server), (CLIENT_CONFIG, built.client)):
        typer.echo(f"\n{config}  (+ not in the plain job, - in the plain job only)")
        typer.echo(mark_differences(shared_config(config), app))


def mark_differences(plain: Mapping[str, Any], app: Mapping[str, Any]) -> str:
    """The lines of an app as JSON, each with ``+`` where the plain app has not got it, and its own with ``-``."""
    before, after = (json.dumps(config, indent=2).splitlines() for config in (plain, app))
    lines: list[str] = []
    for tag, a, b, c, d in SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        if tag == "equal":
            lines += [f"  {line}" for line in after[c:d]]
        else:
            lines += [f"- {line}" for line in before[a:b]] + [f"+ {line}" for line in after[c:d]]
    return "\n".join(lines)


@app.command()
@takes_job_options
def build(
    name: NameArgument,
    out: Annotated[Path, typer.Option("--out", help="Folder that gets the job folder.")],
    flags: SentJobFlags,
    force: ForceOption = False,
) -> None:
    """Write the self-contained FLARE job folder OUT/NAME, ready for FLARE's `submit_job`, and print its hashes."""
    source = read_source(name)
    check_of_run(source, flags.of_run)
    sites = choose_sites(source, flags.asked, None)
    built = build_job(name, out, replace(flags.options(source), sites=sites), force)
    typer.echo(f"{built.folder}\ncontent_hash {built.content_hash}")
    typer.echo(f"approval_hash {hash_at_site(built, built.sites[0])}, at every hospital")
