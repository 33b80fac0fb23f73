"""``brats-fl poc``: the whole federation as real processes with TLS on one host, from its project file."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
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
from brats_fl.names import check_folder
from brats_fl.reading import Reader
from brats_fl_tools.jobs.assembly import JobOptions
from brats_fl_tools.jobs.built import BuiltJob
from brats_fl_tools.jobs.description import hash_at_site
from brats_fl_tools.jobs.evaluated import check_of_run
from brats_fl_tools.jobs.options import ForceOption, NameArgument, SentJobFlags, takes_job_options
from brats_fl_tools.jobs.participants import Asked, Present, check_sites, choose_sites, in_folder, listed
from brats_fl_tools.jobs.source import read_source
from brats_fl_tools.kit.approvals import approve_job
from brats_fl_tools.kit.checks import read_rules
from brats_fl_tools.kit.kits import Federation, Kit, provision, read_federation, read_project
from brats_fl_tools.kit.site_files import site_files, write_site_files
from brats_fl_tools.one_writer import writes
from brats_fl_tools.own_folders import emptied_on_failure, fresh_folder, refuse_foreign
from brats_fl_tools.repository import POC_WORKSPACE
from brats_fl_tools.runs import host_federation as fed
from brats_fl_tools.runs.federated import POC_MODE, carry_out
from brats_fl_tools.runs.folder import begin_run_folder
from brats_fl_tools.runs.lists import describe_lists
from brats_fl_tools.runs.processes import ended_by_sigterm
from brats_fl_tools.runs.session import admin_session
from brats_fl_tools.runs.simulator import POLLING_SECONDS
from brats_fl_tools.runs.submission import Submission
from brats_fl_tools.runs.submit import print_status
from brats_fl_tools.runs.workload import profile_here, warn_of_hours

POC_FILE = "poc.json"
READER = Reader(KitError, "prepare the workspace again", "no POC workspace there; make one with `brats-fl poc prepare`")

app = typer.Typer(help="A federation of real processes with TLS on this host.", no_args_is_help=True)

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

    @property
    def data_lists(self) -> Path | None:
        """Folder with ``SITE/datalist.json``, of the workspace or the environment; None where each kit has its own."""
        return self.sites or (Path(os.environ[SITES_VARIABLE]) if os.environ.get(SITES_VARIABLE) else None)

    def hospitals(self, trains: bool) -> Present:
        """The hospitals of the project; of those with a data list, the ones that can take part.

        Args:
            trains: Whether the job needs training cases.
        """
        place, names = f"the project of {self.folder}", tuple(kit.name for kit in self.kits.clients)
        if self.data_lists is None:
            return Present(place, names)
        lists = in_folder(self.data_lists, trains)
        unfit = {name: why for name, why in lists.unfit.items() if name in names}
        strangers = {name: f"no kit in {self.folder}" for name in lists.everybody if name not in names}
        return Present(place, tuple(name for name in names if name not in unfit), {**unfit, **strangers})


def read_poc(folder: Path) -> Poc:
    """A workspace that ``prepare`` has written.

    Raises:
        KitError: There is none.
    """
    path = folder / POC_FILE
    content = READER.json_object(path)
    kits = READER.at(Path, content, ["kits"], path)
    sites = READER.at(Path, content, ["sites"], path) if content.get("sites") else None
    return Poc(folder, sites, read_federation(folder / kits))


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
    port: Annotated[
        int | None, typer.Option("--port", min=1, max=65535, help="Port of the server; default: a free one.")
    ] = None,
    policy: Annotated[
        str, typer.Option("--policy", help="Of every site: open or strict (jobs bring no code).")
    ] = "open",
    force: ForceOption = False,
) -> None:
    """Write WORKSPACE: a kit with certificates for the server, each hospital and each admin."""
    prepare_poc(workspace, sites, project, port, policy, force)


@writes("workspace")
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
        KitError, SiteNameError: The project file is wrong.
        FolderError: The workspace exists and ``force`` is not set, it is none of ours, or FLARE does not bear its path.
        RunError: Its processes are running.
    """
    if sites is not None and not sites.is_dir():
        raise KitError(f"{sites}: no such folder; make data lists with `brats-fl partition` or `brats-fl sample`")
    check_folder(workspace, "workspace")
    read_project(project)
    refuse_foreign(workspace, "POC workspace", force, "--workspace")
    if (workspace / POC_FILE).is_file() and fed.processes(read_poc(workspace).kits):
        raise RunError(f"{workspace}: its processes are running; run `brats-fl poc stop` first")
    fresh_folder(workspace, "POC workspace", force, "--workspace")
    with emptied_on_failure(workspace):
        poc = _write_workspace(workspace, sites, project, port or free_port(), policy)
    names = ", ".join(kit.name for kit in poc.kits.clients)
    typer.echo(f"{workspace}: kits for {poc.kits.server.name}, {names}; port {poc.kits.server.port}")
    return poc


def _write_workspace(workspace: Path, sites: Path | None, project: Path, port: int, policy: str) -> Poc:
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
    return read_poc(workspace)


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
    check_folder(poc.folder, "workspace")
    check_folder(Path(sys.executable), "Python environment")
    threads = max(1, (os.cpu_count() or 1) // len(poc.kits.clients))
    environment = {"OMP_NUM_THREADS": str(threads)}
    if poc.sites is not None:
        environment[SITES_VARIABLE] = str(poc.sites)
    with ended_by_sigterm():
        seconds = fed.start(poc.kits, poc.lead, environment)
    typer.echo(f"{len(poc.kits.clients)} hospitals registered after {seconds:.1f} s")


@app.command()
@takes_job_options
def submit(
    name: NameArgument,
    out: Annotated[Path, typer.Option("--out", help="Run folder to write.")],
    flags: SentJobFlags,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    force: ForceOption = False,
) -> None:
    """Write a run folder OUT from a job that the running hospitals carry out; prints a line per round and site.

    Ctrl-C aborts the job.
    """
    poc, source = read_poc(workspace), read_source(name)
    check_of_run(source, flags.of_run)
    chosen = choose_sites(source, flags.asked, poc.hospitals(source.trains))
    options = replace(flags.options(source, POLLING_SECONDS, profile_here(source, flags.profile)), sites=chosen)
    warn_of_hours(source, options)
    submit_poc(poc, name, out, options, force)


@writes("run")
def submit_poc(poc: Poc, name: str | Path, run: Path, options: JobOptions, force: bool = False) -> None:
    """As the command.

    Raises:
        JobError, DataListError, FolderError: The job, a data list or the folder is wrong; nothing was submitted.
        RunError: The federation is not running, or the job did not finish.
    """
    run, source = run.resolve(), read_source(name)
    if not fed.processes(poc.kits):
        raise RunError(f"{poc.folder}: nothing is running; run `brats-fl poc start` first")
    if options.sites is None:
        options = replace(options, sites=choose_sites(source, Asked(), poc.hospitals(source.trains)))
    facts: dict[str, Any] = {"mode": POC_MODE, "poc_workspace": str(poc.folder.resolve())}
    if poc.data_lists is not None:
        counts = check_sites(poc.data_lists, options.sites or (), source.trains)
        facts |= {"sites": counts, "sites_dir": str(poc.data_lists)}
        facts |= describe_lists(poc.data_lists, options.sites or ())
    job = begin_run_folder(run, source.folder, options, force)
    approve_here(poc, job)
    kit = str(poc.lead.folder.resolve())
    carry_out(run, job, Submission(job.name, source.reference, "", options, facts, kit=kit))


def approve_here(poc: Poc, job: BuiltJob) -> None:
    """Approve a job for those of its hospitals that ask for it: here the lead is the hospitals, too."""
    asking = [kit for kit in poc.kits.clients if kit.name in job.sites and read_rules(kit).must_approve]
    for kit in asking:
        approve_job(kit, job, hash_at_site(job, kit.name), "poc submit")
    if asking:
        typer.echo(f"approved for {listed(kit.name for kit in asking)}, whose policy asks for it")


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
