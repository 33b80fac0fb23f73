"""A provisioned federation on hosts of its own, under the strict policy, to break things in."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import psutil
import yaml

from brats_fl.cases.datalists import DATALIST_FILE, Case, DataList, read_datalist, write_datalist
from brats_fl.cases.scans import name_volume, split_volume
from brats_fl.constants import SITES, SPLITS
from brats_fl.errors import RunError
from brats_fl.round_records import read_records
from brats_fl.site_state import LOCAL_MODEL_FILE, find_state_dir
from brats_fl_tools.drill.hosts import Hosts
from brats_fl_tools.jobs.assembly import JobOptions, build_job
from brats_fl_tools.jobs.description import hash_at_site
from brats_fl_tools.kit.approvals import approve_job
from brats_fl_tools.kit.kits import Federation, Kit, provision, read_kit
from brats_fl_tools.kit.site_files import site_files, write_site_files
from brats_fl_tools.repository import POC_WORKSPACE
from brats_fl_tools.runs import host_federation as fed
from brats_fl_tools.runs.processes import end_tree

Array = npt.NDArray[np.floating]
SERVER_NAME = "fl.consortium.example"
LEAD, MEMBER = "lead", "member"
HOSTS = ("server", *SITES, LEAD)
PORT = 8002
WAIT_SECONDS = 600.0

# Small enough that a round takes seconds, and the waits short enough that a drill takes minutes.
JOB_VALUES: Mapping[str, Any] = {
    "patch_size": [32, 32, 32],
    "batch_size": 1,
    "steps_per_epoch": 4,
    "wait_time_after_min_received": 20,
    "train_timeout": 300,
    "validation_timeout": 60,
}


@dataclass(frozen=True)
class Outcome:
    """What came of a job."""

    exit_code: int
    output: str
    run: Path
    records: list[dict[str, Any]]

    def status(self, site: str, round_index: int) -> str:
        """A site's part in a round: ``ok``, a code, or ``absent``."""
        found = [
            record["status"]
            for record in self.records
            if record["phase"] == "train" and record["site"] == site and record["round"] == round_index
        ]
        return found[-1] if found else "absent"


class Drill:
    """The federation, and what can be done to it.

    Args:
        hosts: Server, five hospitals and the lead.
        sites: Folder with ``SITE/datalist.json``; the cases are copied to the hospitals' hosts.
    """

    def __init__(self, hosts: Hosts, sites: Path) -> None:
        self.hosts = hosts
        self.faults: dict[str, str] = {}
        self.provisioned = provision_hosts(hosts)
        for site in SITES:
            copy_cases(sites / site / DATALIST_FILE, hosts.files(site) / "data")
        self.federation = self.install_kits()

    def install_kits(self) -> Federation:
        """Put each kit on its host, with the site's files."""
        for name in (*HOSTS, MEMBER):
            target = self.kit_folder(name)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(self.provisioned / participant(name), target)
        kits = [read_kit(self.kit_folder(site)) for site in SITES]
        server = Kit(self.kit_folder("server"), "server", "server", SERVER_NAME, PORT)
        for kit in (server, *kits):
            datalist = None if kit.kind == "server" else self.hosts.files(kit.name) / "data" / DATALIST_FILE
            write_site_files(site_files(kit, "strict", datalist))
        lead = read_kit(self.kit_folder(LEAD))
        return Federation(self.hosts.folder, server, tuple(kits), (lead,))

    def kit_folder(self, name: str) -> Path:
        """Where a participant's kit lies; the member's is on the lead's host."""
        return self.hosts.files(LEAD if name == MEMBER else name) / (f"{name}-kit" if name == MEMBER else "kit")

    # --- Processes ---

    def start(self, names: Sequence[str] = ("server", *SITES)) -> None:
        """Start server and hospitals as their houses would, with FLARE's watchdog."""
        for name in names:
            kit = self.federation.server if name == "server" else self.kit_of(name)
            environment = {"OMP_NUM_THREADS": "1", "PYTHONPATH": self.faults.get(name, "")}
            fed.start_kit(self.federation, kit, environment, True, lambda k, c: self.hosts.command(k.name, c))

    def kit_of(self, site: str) -> Kit:
        """A hospital's kit."""
        return next(kit for kit in self.federation.clients if kit.name == site)

    def processes(self, role: str) -> list[psutil.Process]:
        """Living processes of a role, such as ``hospital-2 trainer``; see ``federation.role_of``."""
        return [process for process in fed.processes(self.federation) if self.role_of(process) == role]

    def role_of(self, process: psutil.Process) -> str:
        """Role of a process by the namespace's host and what it runs."""
        with contextlib.suppress(psutil.Error, OSError):
            line = " ".join(process.cmdline())
            host = next((name for name in HOSTS if f"/hosts/{name}/" in line), None)
            if "brats_fl.trainer_process" in line:
                parent = process.parent()
                return f"{self.role_of(parent).split()[0]} trainer" if parent else "trainer"
            if "client_train" in line or "server_train" in line:
                return f"{host} parent"
            if "worker_process" in line or "runner_process" in line:
                return f"{host} job"
            return f"{host} other"
        return "? ?"

    def restart(self, name: str, fault: str = "") -> None:
        """End everything on a host and start it again, with code that breaks it or, without, as an honest one."""
        self.faults[name] = fault
        self.end(name)
        self.start([name])

    def end(self, name: str) -> None:
        """End everything on a host, its watchdog first."""
        for kind in ("other", "parent", "job", "trainer"):
            for process in self.processes(f"{name} {kind}"):
                with contextlib.suppress(psutil.Error):
                    process.kill()
        wait_until(
            lambda: not any(self.processes(f"{name} {kind}") for kind in ("parent", "job", "trainer")), "the end"
        )
        for path in self.kit_folder(name).glob("*.fl"):
            path.unlink()

    def kill(self, role: str) -> None:
        """``kill -9`` the processes of a role.

        Raises:
            RunError: There is none.
        """
        found = self.processes(role)
        if not found:
            raise RunError(f"no process is a {role!r}")
        for process in found:
            with contextlib.suppress(psutil.Error):
                process.kill()

    def stop(self) -> None:
        """End everything."""
        fed.stop(self.federation)

    @contextlib.contextmanager
    def foreign_process(self, command: Sequence[str], output: IO[bytes]) -> Iterator[None]:
        """A process that does not belong to the federation while the block runs."""
        environment = fed.process_environment(self.federation, {})
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, env=environment,
            start_new_session=True,
        )  # fmt: skip
        try:
            yield
        finally:
            end_tree(process.pid)
            process.wait()

    def connected(self) -> set[str]:
        """Names of the connected hospitals; empty while the server does not answer."""
        done = self.on_lead("status", "--kit", str(self.kit_folder(LEAD)))
        line = next((line for line in done.stdout.splitlines() if line.startswith("connected: ")), "connected: none")
        return set(line.removeprefix("connected: ").split(", ")) - {"none"}

    def wait_connected(self, names: Sequence[str] = SITES) -> None:
        """Return when the hospitals are connected."""
        wait_until(lambda: set(names) <= self.connected(), f"{', '.join(names)} to be connected")

    # --- The lead's commands ---

    def lead_command(self, *arguments: str) -> list[str]:
        """A ``brats-fl`` command on the lead's host."""
        return self.hosts.command(LEAD, [str(Path(sys.executable).with_name("brats-fl")), *arguments])

    def on_lead(
        self, *arguments: str, seconds: float = WAIT_SECONDS, fault: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Run a command on the lead's host to its end."""
        environment = fed.process_environment(self.federation, {"PYTHONPATH": fault})
        return subprocess.run(
            self.lead_command(*arguments), capture_output=True, text=True, timeout=seconds, check=False, env=environment
        )

    def submission(
        self, run: Path, rounds: int, values: Mapping[str, Any] = {}, job: str = "brats_unet_fedavg", tiny: bool = True
    ) -> list[str]:
        """Arguments of ``brats-fl submit`` for a job without code, which each hospital has approved.

        With ``tiny`` each step is a matter of a moment.
        """
        settings = {**(JOB_VALUES if tiny else {}), **values}
        pairs = [part for key, value in settings.items() for part in ("--set", f"{key}={json.dumps(value)}")]
        self.approve(job, JobOptions("small", rounds, settings, preinstalled=True))
        return [
            "submit", job, "--kit", str(self.kit_folder(LEAD)), "--out", str(run), "--profile", "small",
            "--rounds", str(rounds), "--preinstalled", *pairs,
        ]  # fmt: skip

    def approve(self, job: str, options: JobOptions) -> None:
        """Have each hospital approve what ``submit`` will send, as after reading it."""
        built = build_job(job, self.hosts.files(LEAD) / "sent", options, force=True)
        for kit in self.federation.clients:
            approve_job(kit, built, hash_at_site(built, kit.name), "drill")

    def run(
        self,
        name: str,
        rounds: int = 3,
        during: Callable[[Path], None] | None = None,
        values: Mapping[str, Any] = {},
        job: str = "brats_unet_fedavg",
        tiny: bool = True,
    ) -> Outcome:
        """Run a job to its end; ``during`` is called with the run folder once the job has been submitted."""
        run = self.hosts.files(LEAD) / name
        with self.submitted(run, self.submission(run, rounds, values, job, tiny)) as process:
            wait_until(lambda: (run / "submission.json").is_file() or process.poll() is not None, "the submission")
            if during is not None:
                during(run)
            process.wait(timeout=WAIT_SECONDS)
        return self.outcome(run, process.returncode)

    @contextlib.contextmanager
    def submitted(self, run: Path, arguments: Sequence[str]) -> Iterator[subprocess.Popen[bytes]]:
        """A command on the lead's host while it runs; ended with the block."""
        log = self.hosts.folder / f"{run.name}.log"
        with log.open("ab") as output:
            process = subprocess.Popen(
                self.lead_command(*arguments),
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env=fed.process_environment(self.federation, {}),
                start_new_session=True,
            )
            try:
                yield process
            finally:
                end_tree(process.pid)
                process.wait()

    def outcome(self, run: Path, exit_code: int) -> Outcome:
        """What a run folder holds now."""
        output = (self.hosts.folder / f"{run.name}.log").read_text(encoding="utf-8", errors="replace")
        return Outcome(exit_code, output, run, read_records(run / "rounds.jsonl"))

    # --- Looking at a running job ---

    def job_id(self, run: Path) -> str:
        """Id of the job of a run folder."""
        return str(json.loads((run / "submission.json").read_text(encoding="utf-8"))["job_id"])

    def live_records(self, run: Path) -> list[dict[str, Any]]:
        """Records of a running job, as they lie at the server."""
        return read_records(self.kit_folder("server") / self.job_id(run) / "rounds.jsonl")

    def wait_round(self, run: Path, round_index: int, answers: int = 4) -> None:
        """Return when the round before this one has its answers and this one's training is under way."""
        if round_index:
            wait_until(
                lambda: sum(r["round"] == round_index - 1 for r in self.live_records(run)) >= answers,
                f"round {round_index - 1} to end",
            )
        before = self.trainer_seconds()
        wait_until(
            lambda: sum(after - before.get(pid, 0.0) > 1.5 for pid, after in self.trainer_seconds().items()) >= answers,
            f"the training of round {round_index}",
        )

    def trainer_seconds(self) -> dict[int, float]:
        """Process id -> CPU seconds, of each trainer."""
        seconds = {}
        for process in self.trainers():
            with contextlib.suppress(psutil.Error):
                seconds[process.pid] = process.cpu_times().user
        return seconds

    def trainers(self) -> list[psutil.Process]:
        """All trainer processes."""
        return [process for site in SITES for process in self.processes(f"{site} trainer")]

    def mean_of_local_models(self, outcome: Outcome, round_index: int) -> dict[str, Array]:
        """The mean, by cases, of what the accepted sites of a round had trained; each site kept its own."""
        total: dict[str, Any] = {}
        cases = {
            record["site"]: record["cases"]
            for record in outcome.records
            if record["phase"] == "train" and record["round"] == round_index and record["status"] == "ok"
        }
        study = json.loads(next((outcome.run / "job").glob("*/meta.json")).read_text(encoding="utf-8"))["study"]
        for site, count in cases.items():
            local = load(find_state_dir(site, study, self.kit_folder(site), environ={}) / LOCAL_MODEL_FILE)
            for name, value in local.items():
                total[name] = total.get(name, 0.0) + value.astype(np.float64) * count
        return {name: value / sum(cases.values()) for name, value in total.items()}

    def difference_from_mean(self, outcome: Outcome, round_index: int) -> float:
        """Largest difference between the final model and the mean of what was accepted in the last round."""
        final = load(outcome.run / "final_model.pt")
        mean = self.mean_of_local_models(outcome, round_index)
        return max(float(np.abs(final[name] - mean[name]).max()) for name in final)

    def interrupt(self, process: subprocess.Popen[bytes]) -> None:
        """Ctrl-C."""
        os.kill(process.pid, signal.SIGINT)


def participant(name: str) -> str:
    """Name in the project file."""
    return f"{name}@consortium.example" if name in (LEAD, MEMBER) else name


def provision_hosts(hosts: Hosts) -> Path:
    """Provision the project of this checkout for the hosts, with one member more."""
    project = yaml.safe_load((POC_WORKSPACE / "project.yml").read_text(encoding="utf-8"))
    project["participants"].append(
        {"name": participant(MEMBER), "type": "admin", "org": "consortium", "role": "member"}
    )
    path = hosts.folder / "project.yml"
    path.write_text(yaml.safe_dump(project), encoding="utf-8")
    return provision(path, hosts.folder / "provisioning", SERVER_NAME, PORT)


def copy_cases(datalist: Path, folder: Path) -> None:
    """Copy a site's cases and data list into a folder that only its host sees."""
    source = read_datalist(datalist)
    splits = {split: tuple(_copy(case, folder) for case in source.split(split)) for split in SPLITS}
    write_datalist(folder / DATALIST_FILE, DataList(site=source.site, **splits))


def _copy(case: Case, folder: Path) -> Case:
    target = folder / case.case
    target.mkdir(parents=True, exist_ok=True)

    def copy(scan: str) -> str:
        file, number = split_volume(scan)
        copied = Path(shutil.copy(file, target))
        return str(copied if number is None else name_volume(copied, number))

    return replace(case, image=tuple(map(copy, case.image)), label=copy(case.label) if case.label else None)


def load(path: Path) -> dict[str, Array]:
    """Parameters of a checkpoint as arrays."""
    import torch

    state = torch.load(path, map_location="cpu", weights_only=True)["model"]
    return {name: value.numpy() for name, value in state.items()}


def wait_until(condition: Callable[[], bool], what: str, seconds: float = WAIT_SECONDS) -> float:
    """Return, with the seconds it took, when a condition holds.

    Raises:
        RunError: It does not in time.
    """
    begin = time.monotonic()
    while not condition():
        if time.monotonic() - begin > seconds:
            raise RunError(f"waited {seconds:.0f} s for {what} in vain")
        time.sleep(0.3)
    return time.monotonic() - begin
