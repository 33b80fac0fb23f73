"""``brats-fl poc``: the whole federation as real processes with TLS on one host, from its project file."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import psutil
import typer
from rich.console import Console
from rich.table import Table

from brats_fl.cases.datalists import SITES_VARIABLE
from brats_fl.errors import KitError, RunError
from brats_fl.files import write_whole
from brats_fl_tools.runs import host_federation as fed
from brats_fl_tools.jobs.options import (
    ForceOption,
    LeaveOutOption,
    NameArgument,
    PreinstalledOption,
    ProfileOption,
    RoundsOption,
    SetOption,
    TimeoutsOption,
    TrackingOption,
    options_from,
)
from brats_fl_tools.jobs.assembly import JobOptions, build_job
from brats_fl_tools.jobs.participants import choose_sites
from brats_fl_tools.jobs.source import read_source
from brats_fl_tools.kit.kits import Federation, Kit, provision, read_federation
from brats_fl_tools.runs.processes import ended_by_sigterm
from brats_fl_tools.repository import POC_WORKSPACE
from brats_fl_tools.runs.folder import check_sites, prepare_run_folder
from brats_fl_tools.runs.session import admin_session
from brats_fl_tools.runs.simulate import POLLING_SECONDS
from brats_fl_tools.kit.site_files import site_files, write_site_files
from brats_fl_tools.runs.submit import print_status, run_job

POC_FILE = "poc.json"

app = typer.Typer(help="Six real processes with TLS on this host: a server and five hospitals.", no_args_is_help=True)

WorkspaceOption = Annotated[
    Path,
    typer.Option(
        "--workspace", help="Folder of the kits, logs and job store; several on one host do not disturb each other."
    ),
]
DEFAULT_WORKSPACE = Path("poc_workspace/workspace")


@dataclass(frozen=True)
class Poc:
    """A prepared workspace."""

    folder: Path
    sites: Path | None
    """Folder with ``SITE/datalist.json``; None where it comes from the environment."""
    kits: Federation

    @property
    def lead(self) -> Kit:
        """Kit of the admin who submits jobs."""
        return next((kit for kit in self.kits.admins if kit.name.startswith("lead")), self.kits.admins[0])


def read_poc(folder: Path) -> Poc:
    """A workspace that ``prepare`` has written.

    Raises:
        KitError: There is none.
    """
    try:
        content = json.loads((folder / POC_FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise KitError(f"{folder}: no POC workspace there; make one with `brats-fl poc prepare`") from None
    except (OSError, json.JSONDecodeError) as error:
        raise KitError(f"{folder / POC_FILE}: cannot be read as JSON ({error}); prepare the workspace again") from error
    sites = Path(content["sites"]) if content["sites"] else None
    return Poc(folder, sites, read_federation(folder / content["kits"]))


@app.command()
def prepare(
    sites: Annotated[
        Path | None,
        typer.Option(
            "--sites", help=f"Folder with SITE/datalist.json; default: ${SITES_VARIABLE} when a job is started."
        ),
    ] = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    project: Annotated[Path, typer.Option("--project", help="FLARE's project file.")] = POC_WORKSPACE / "project.yml",
    port: Annotated[int | None, typer.Option("--port", help="Port of the server; default: a free one.")] = None,
    policy: Annotated[
        str, typer.Option("--policy", help="Of every site: open or strict (jobs bring no code).")
    ] = "open",
    force: ForceOption = False,
) -> None:
    """Write WORKSPACE: a kit with certificates for the server, each hospital and each admin."""
    prepare_poc(workspace, sites, project, port, policy, force)


def prepare_poc(
    workspace: Path,
    sites: Path | None,
    project: Path = POC_WORKSPACE / "project.yml",
    port: int | None = None,
    policy: str = "open",
    force: bool = False,
) -> Poc:
    """As the command; returns the workspace.

    Raises:
        KitError: The project file is wrong.
        RunError: The workspace exists and ``force`` is not set, or its processes are running.
    """
    if sites is not None and not sites.is_dir():
        raise KitError(f"{sites}: no such folder; make data lists with `brats-fl partition` or `brats-fl sample`")
    if workspace.exists() and any(workspace.iterdir()):
        if not (workspace / POC_FILE).is_file():
            raise RunError(f"{workspace} is not empty and no POC workspace; choose another --workspace")
        if not force:
            raise RunError(f"{workspace} is prepared already; use it, or replace it with --force")
        if fed.processes(read_poc(workspace).kits):
            raise RunError(f"{workspace}: its processes are running; run `brats-fl poc stop` first")
        shutil.rmtree(workspace)
    port = port or free_port()
    kits = provision(project, workspace, "localhost", port)
    federation = read_federation(kits)
    for kit in (federation.server, *federation.clients):
        write_site_files(site_files(kit, policy))
    content = {
        "kits": str(kits.relative_to(workspace)),
        "port": port,
        "sites": str(sites.resolve()) if sites is not None else None,
    }
    write_whole(workspace / POC_FILE, json.dumps(content, indent=1) + "\n")
    poc = read_poc(workspace)
    names = ", ".join(kit.name for kit in poc.kits.clients)
    typer.echo(f"{workspace}: kits for {poc.kits.server.name}, {names}; port {port}")
    return poc


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@app.command()
def start(workspace: WorkspaceOption = DEFAULT_WORKSPACE) -> None:
    """Start server and hospitals, return when all are registered. Logs are in each kit: console.log and log.txt."""
    start_poc(read_poc(workspace))


def start_poc(poc: Poc) -> None:
    """As the command.

    Raises:
        RunError: They did not register; everything is stopped then.
    """
    threads = max(1, (os.cpu_count() or 1) // len(poc.kits.clients))
    environment = {"OMP_NUM_THREADS": str(threads)}
    if poc.sites is not None:
        environment[SITES_VARIABLE] = str(poc.sites)
    with ended_by_sigterm():
        seconds = fed.start(poc.kits, poc.lead, environment)
    typer.echo(f"{len(poc.kits.clients)} hospitals registered after {seconds:.1f} s")


@app.command()
def submit(
    name: NameArgument,
    out: Annotated[Path, typer.Option("--out", help="Run folder to write.")],
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    profile: ProfileOption = "full",
    rounds: RoundsOption = None,
    values: SetOption = None,
    preinstalled: PreinstalledOption = False,
    leave_out: LeaveOutOption = None,
    timeouts_from: TimeoutsOption = None,
    tracking: TrackingOption = None,
    force: ForceOption = False,
) -> None:
    """Write a run folder OUT from a job that the running hospitals carry out; prints a line per round and site.

    Ctrl-C aborts the job.
    """
    options = options_from(profile, rounds, values, timeouts_from, preinstalled, POLLING_SECONDS, tracking)
    options = replace(options, sites=choose_sites(read_source(name), leave_out))
    submit_poc(read_poc(workspace), name, out, options, force)


def submit_poc(poc: Poc, name: str, run: Path, options: JobOptions, force: bool = False) -> None:
    """As the command.

    Raises:
        JobError, DataListError: The job or a data list is wrong; nothing was submitted.
        RunError: The federation is not running, or the job did not finish.
    """
    run = run.resolve()
    if not fed.processes(poc.kits):
        raise RunError(f"{poc.folder}: nothing is running; run `brats-fl poc start` first")
    facts: dict[str, Any] = {"mode": "poc", "poc_workspace": str(poc.folder.resolve())}
    source = read_source(name)
    sites = poc.sites or (Path(os.environ[SITES_VARIABLE]) if os.environ.get(SITES_VARIABLE) else None)
    if sites is not None:
        facts |= {"sites": check_sites(sites, options.sites or source.sites, source.trains), "sites_dir": str(sites)}
    prepare_run_folder(run, force)
    job = build_job(name, run / "job", options)
    run_job(poc.lead, job, options, run, facts, abort_on_interrupt=True)


@app.command()
def status(workspace: WorkspaceOption = DEFAULT_WORKSPACE) -> None:
    """Print who is connected, the jobs, and each process with its memory. Exit 1 when nothing is running."""
    poc = read_poc(workspace)
    alive = fed.processes(poc.kits)
    if not alive:
        typer.echo(f"{workspace}: nothing is running")
        raise typer.Exit(1)
    table = Table("process", "id", "memory MB", "CPU s")
    for process in sorted(alive, key=fed.role_of):
        with contextlib.suppress(psutil.Error):
            used = process.cpu_times()
            table.add_row(
                fed.role_of(process),
                str(process.pid),
                f"{process.memory_info().rss / 2**20:.0f}",
                f"{used.user + used.system:.0f}",
            )
    Console().print(table)
    with admin_session(poc.lead) as session:
        print_status(session)


@app.command()
def stop(workspace: WorkspaceOption = DEFAULT_WORKSPACE) -> None:
    """Stop everything that runs from WORKSPACE; a job that is running is lost. Kits, logs and models stay."""
    poc = read_poc(workspace)
    begin = time.monotonic()
    count = len(fed.processes(poc.kits))
    fed.stop(poc.kits)
    typer.echo(f"{count} processes stopped in {time.monotonic() - begin:.0f} s" if count else "nothing was running")
