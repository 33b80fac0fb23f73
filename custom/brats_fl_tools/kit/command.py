"""``brats-fl kit``: startup kits made by the lead, set up and checked where they run."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from rich.text import Text

from brats_fl.errors import KitError
from brats_fl.files import write_whole
from brats_fl.names import check_folder
from brats_fl_tools.jobs.options import ForceOption
from brats_fl_tools.kit import kits
from brats_fl_tools.kit.deploy import check_deployed, deploy
from brats_fl_tools.kit.kits import Federation, Kit, read_federation, read_kit
from brats_fl_tools.kit.results import CheckResult, State, as_json
from brats_fl_tools.one_writer import only_writer

COLOURS: Mapping[State, str] = {"ok": "green", "warning": "yellow", "error": "bold red"}

app = typer.Typer(help="Startup kits: what a server, a hospital or an admin needs to take part.", no_args_is_help=True)

KitArgument = Annotated[
    Path, typer.Argument(metavar="KIT", help="Folder of a startup kit, which holds startup/ and local/.")
]


@app.command()
def provision(
    project: Annotated[Path, typer.Argument(metavar="PROJECT", help="Project file, as poc_workspace/project.yml.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder that gets the kits and the authority.")],
    host: Annotated[
        str | None, typer.Option("--host", help="Name or address of the server; default: the project file's.")
    ] = None,
    port: Annotated[
        int | None, typer.Option("--port", min=1, max=65535, help="Its port; default: the project file's.")
    ] = None,
) -> None:
    """Write DIR/NAME/prod_NN, a kit for each participant, and DIR/NAME/state, the authority that signs them.

    Run it again after a change of PROJECT: it writes prod_NN+1, in which those who were there before keep their
    certificates.
    """
    from brats_fl_tools.kit.certificates import fingerprint, read_certificate

    federation = read_federation(kits.provision(project, out, host, port))
    refuse_other_host(federation)
    authority = read_certificate(federation.server, authority=True)
    typer.echo(
        f"{federation.folder}\nauthority valid until {authority.not_valid_after_utc:%Y-%m-%d}, SHA-256 "
        f"{fingerprint(authority)}"
    )
    print_kits(federation)
    state = federation.folder.parent / "state"
    typer.echo(f"{state} holds the private keys of the authority and of all kits: keep it, and keep it secret")


def refuse_other_host(federation: Federation) -> None:
    """Raise ``KitError``, and remove the kits, where the server's kept certificate is not for the host that is wanted.

    FLARE keeps a certificate once it is made: every site would refuse the server under its new name.
    """
    import shutil

    from brats_fl_tools.kit.certificates import read_certificate, server_names

    names, host = server_names(read_certificate(federation.server)), federation.clients[0].host
    if host not in names:
        shutil.rmtree(federation.folder)
        raise KitError(
            f"{federation.folder.parent}: the server's certificate is for {', '.join(names) or 'no host'}, not for "
            f"{host}; keep the host, or provision into another --out, after which every participant needs the new kit"
        )


def print_kits(federation: Federation) -> None:
    """A line a kit: for whom, what to compare by phone, and whether it was sent before."""
    from brats_fl_tools.kit.certificates import organisation, read_certificate, startup_digest

    everyone = (federation.server, *federation.clients, *federation.admins)
    width = max(len(kit.folder.name) for kit in everyone)
    typer.echo(f"{'kit':{width}}  startup digest    for")
    for kit in everyone:
        who = organisation(read_certificate(kit))
        line = f"{kit.folder.name:{width}}  {startup_digest(kit)[:16]}  {who}, {change(federation, kit)}"
        typer.echo(line)


def change(federation: Federation, kit: Kit) -> str:
    """What to do with a kit, from the one of its name in the provisioning before."""
    from brats_fl_tools.kit.certificates import startup_digest

    earlier = [folder for folder in sorted(federation.folder.parent.glob("prod_*")) if folder < federation.folder]
    before = earlier[-1] / kit.folder.name if earlier else None
    if before is None or not before.is_dir():
        return "new: send it"
    same = startup_digest(read_kit(before)) == startup_digest(kit)
    return f"as in {earlier[-1].name}: nothing to send" if same else "changed: send it again"


@app.command()
def setup(
    folder: KitArgument,
    policy: Annotated[
        str,
        typer.Option(
            "--policy",
            metavar="strict|open",
            help="strict: jobs bring no code. open: whoever may submit jobs may run any code here.",
        ),
    ],
    data_list: Annotated[
        Path | None, typer.Option("--data-list", metavar="FILE", help="The hospital's data list; linked, not copied.")
    ] = None,
    gpus: Annotated[int, typer.Option("--gpus", min=0, help="GPUs that jobs may use.")] = 0,
    gpu_memory_gib: Annotated[
        int, typer.Option("--gpu-memory-gib", min=0, metavar="GIB", help="Memory of each GPU, in GiB.")
    ] = 0,
    systemd: Annotated[
        bool, typer.Option("--systemd", help="Write a unit for systemd, too, into KIT/systemd.")
    ] = False,
    user: Annotated[
        str | None, typer.Option("--user", help="Unprivileged user of the service; default: the kit's owner.")
    ] = None,
    memory_max: Annotated[
        str | None,
        typer.Option("--memory-max", metavar="SIZE", help="Memory of the service, as 16G; default: no limit."),
    ] = None,
    cpu_quota: Annotated[
        str | None, typer.Option("--cpu-quota", metavar="PERCENT", help="400% is four cores; default: no limit.")
    ] = None,
    tasks_max: Annotated[
        int | None, typer.Option("--tasks-max", min=1, help="Processes and threads; default: systemd's own limit.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Write without asking.")] = False,
) -> None:
    """Write KIT/local: the site's policy, its resources, and a link to its data list; the difference is shown first.

    With --systemd also KIT/systemd, a unit that an administrator installs. Nothing else is touched, and nothing is done
    where nothing differs. The kit must not be running.
    """
    from brats_fl_tools.kit.checks import running_processes
    from brats_fl_tools.kit.service import Limits, unit_file, with_unit
    from brats_fl_tools.kit.site_files import differences, policy_names, site_files, write_site_files

    kit = read_kit(folder)
    check_folder(folder, "kit")
    if policy not in policy_names():
        raise typer.BadParameter(f"--policy must be one of {', '.join(policy_names())} (got {policy!r})")
    if kit.kind == "client" and data_list is None:
        raise typer.BadParameter(f"{folder} is a hospital's kit: give its data list with --data-list FILE")
    files = site_files(kit, policy, data_list, gpus, gpu_memory_gib)
    if not systemd and (user, memory_max, cpu_quota, tasks_max) != (None,) * 4:
        raise typer.BadParameter("--user, --memory-max, --cpu-quota and --tasks-max belong to --systemd")
    if systemd:
        files = with_unit(files, kit, user, data_list, Limits(memory_max, cpu_quota, tasks_max))
    difference = differences(files)
    if not difference:
        typer.echo("nothing to change")
        return
    if running := running_processes(kit):
        raise KitError(f"{folder}: {kit.name} is running (process {running[0].pid}); stop it, then set it up")
    typer.echo(difference)
    ask(folder, yes, "the difference", "write this?")
    with only_writer(folder / "local"):
        write_site_files(files)
    typer.echo(f"{folder / 'local'}: written, holds from the next start")
    if systemd:
        typer.echo(f"install it: sudo install -m 644 '{unit_file(kit)}' /etc/systemd/system/")


def ask(folder: Path, yes: bool, shown: str, question: str) -> None:
    """Raise ``KitError`` unless the user agrees to what was shown."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise KitError(f"{folder}: nothing was written; read {shown} above, then repeat with --yes")
    if not typer.confirm(question):
        raise KitError(f"{folder}: nothing was written")


@app.command()
def check(
    folder: KitArgument,
    job: Annotated[
        Path | None,
        typer.Option("--job", metavar="DIR|NAME", help="A built job, or one of `job list`."),
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write the results as JSON, for monitoring.")
    ] = None,
    container: Annotated[
        Path | None, typer.Option("--container", metavar="DIR", help="What `kit deploy docker` wrote for this kit.")
    ] = None,
    force: ForceOption = False,
) -> None:
    """Print a table of what is right and wrong with KIT before it is started; exit 1 where something is an error.

    Writes nothing but FILE. Never logs in to the server: it ends a TLS handshake and leaves.
    """
    from brats_fl_tools.kit.checks import check_kit
    from brats_fl_tools.kit.machine import stated_job

    stated = None
    if json_file is not None and json_file.exists() and not force:
        raise KitError(f"{json_file}: exists; choose another --json or add --force")
    kit = read_kit(folder)
    if job is not None:
        stated = stated_job(job, kit)
        typer.echo("\n".join(stated.words))
    results = check_kit(kit, stated) + ([check_deployed(kit, container.absolute())] if container else [])
    if json_file is not None:
        write_whole(json_file, as_json(kit, results))
    print_results(results)
    if any(result.state == "error" for result in results):
        raise typer.Exit(1)


@app.command()
def approve(
    folder: KitArgument,
    job: Annotated[
        Path | None, typer.Argument(metavar="JOB_FOLDER", help="The folder of a built job, as the lead sent it.")
    ] = None,
    by: Annotated[str | None, typer.Option("--by", help="Who agrees; default: the user of this machine.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Write without asking.")] = False,
    show_list: Annotated[bool, typer.Option("--list", help="Print what is approved, and write nothing.")] = False,
    withdraw: Annotated[
        str | None, typer.Option("--withdraw", metavar="HASH", help="Take a job off the list; the first digits do.")
    ] = None,
) -> None:
    """Add a job to KIT/local/approved_jobs.json, after all that it runs here was shown in words.

    A site with the policy strict runs no other job. Holds at once, also while the site runs, and for the same job when
    it is resumed; a job in which anything differs needs another approval.
    """
    from brats_fl_tools.kit import approvals
    from brats_fl_tools.kit.machine import stated_job

    kit = read_kit(folder)
    approvals.refuse_other_kit(kit)
    if (job is not None) + show_list + (withdraw is not None) != 1:
        raise typer.BadParameter("give one of JOB_FOLDER, --list and --withdraw HASH")
    if show_list:
        typer.echo("\n".join(approvals.list_approved(kit)))
    elif withdraw is not None:
        typer.echo(approvals.withdraw_job(kit, withdraw))
    elif job is not None:
        stated = stated_job(job.resolve(), kit)
        typer.echo("\n".join([*stated.words, "", f"approval_hash {stated.approval}"]))
        ask(folder, yes, "what the job runs", "let this job run here?")
        approvals.approve_job(kit, stated.job, stated.approval, by or approvals.user_name())
        typer.echo(f"approved: {folder} runs {stated.job.name} ({stated.approval[:12]}) from now on")


app.command()(deploy)


@app.command()
def egress(folder: KitArgument) -> None:
    """Print what left the hospital of KIT, by month and job, from KIT/local/egress.jsonl; writes nothing."""
    from brats_fl_tools.kit.egress import COLUMNS, sum_up

    rows = sum_up(read_kit(folder))
    if not rows:
        typer.echo("nothing left so far")
        return
    table = Table(*COLUMNS, box=SIMPLE)
    for row in rows:
        table.add_row(*row)
    Console().print(table)


def print_results(results: Sequence[CheckResult]) -> None:
    """A row a check, what to do beneath what was found; then the count of each state."""
    table = Table("check", "state", "found", box=SIMPLE)
    for result in results:
        found = result.found + (f"\n-> {result.mend}" if result.mend else "")
        table.add_row(result.check, Text(result.state, COLOURS[result.state]), Text(found, overflow="fold"))
    Console().print(table)
    states = [result.state for result in results]
    typer.echo(f"{states.count('error')} errors, {states.count('warning')} warnings, {states.count('ok')} ok")
