"""A provisioned federation on hosts of its own, to break things in: what its lead does, and what can be seen."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from brats_fl.constants import SITES
from brats_fl.errors import RunError
from brats_fl.round_records import read_records
from brats_fl_tools.drill.console import Console, console_command
from brats_fl_tools.drill.hosts import Hosts
from brats_fl_tools.drill.houses import LEAD, Houses
from brats_fl_tools.drill.outcome import (
    Outcome,
    accepted_cases,
    largest_difference,
    load,
    local_model_file,
    weighted_mean_of,
)
from brats_fl_tools.drill.waiting import WAIT_SECONDS, wait_until
from brats_fl_tools.jobs.assembly import JobOptions, build_job
from brats_fl_tools.jobs.built import BuiltJob, describe_job
from brats_fl_tools.jobs.description import hash_at_site
from brats_fl_tools.kit.approvals import approve_job
from brats_fl_tools.runs import host_federation as fed
from brats_fl_tools.runs.processes import end_tree

# Small enough that a round takes seconds, and the waits short enough that a drill takes minutes.
JOB_VALUES: Mapping[str, Any] = {
    "patch_size": [32, 32, 32],
    "batch_size": 1,
    "steps_per_epoch": 4,
    "wait_time_after_min_received": 20,
    "train_timeout": 300,
    "validation_timeout": 30,
}


class Drill(Houses):
    """The federation: its houses, its lead's commands, and a look at a running job.

    Args:
        hosts: Server, five hospitals and the lead.
        sites: Folder with ``SITE/datalist.json``; the cases are copied to the hospitals' hosts.
        wanted: Faults that are to be injected; those that share a job share one of these.
    """

    def __init__(self, hosts: Hosts, sites: Path, wanted: Sequence[str] = ()) -> None:
        super().__init__(hosts, sites)
        self.wanted = tuple(wanted)
        self.shared: dict[str, Any] = {}
        self.consoles: dict[str, Console] = {}

    def stop(self) -> None:
        """End everything, the consoles too."""
        for console in self.consoles.values():
            console.close()
        self.consoles = {}
        super().stop()

    # --- The lead's commands, and those of other admins ---

    def console(self, name: str = LEAD) -> Console:
        """An admin's console on the lead's host."""
        if name not in self.consoles:
            command = self.hosts.command(LEAD, console_command(self.kit_folder(name)))
            environment = fed.process_environment(self.federation, {})
            self.consoles[name] = Console(command, environment, self.hosts.folder / f"console-{name}.log")
        return self.consoles[name]

    def connected(self) -> set[str]:
        """Names of the connected hospitals; empty while the server does not answer."""
        try:
            return set(self.console().ask("connected"))
        except RunError:
            return set()

    def wait_connected(self, names: Sequence[str] = SITES) -> None:
        """Return when the hospitals are connected."""
        wait_until(lambda: set(names) <= self.connected(), f"{', '.join(names)} to be connected")

    def restart_server(self, names: Sequence[str] = SITES) -> float:
        """Seconds until the hospitals of these names were connected to the server again."""
        begin = time.monotonic()
        self.end("server")
        self.start(["server"])
        self.wait_connected(names)
        return time.monotonic() - begin

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
        trained = ["--profile", "small", "--rounds", str(rounds)] if rounds else []
        options = JobOptions("small" if rounds else "full", rounds or None, settings, preinstalled=True)
        self.approve(build_job(job, self.hosts.files(LEAD) / "sent", options, force=True))
        return [
            "submit",
            job,
            "--kit",
            str(self.kit_folder(LEAD)),
            "--out",
            str(run),
            *trained,
            "--preinstalled",
            *pairs,
        ]

    def approve(self, job: BuiltJob) -> None:
        """Have each hospital approve what ``submit`` will send, as after reading it."""
        for kit in self.federation.clients:
            approve_job(kit, job, hash_at_site(job, kit.name), "drill")

    def approve_edited(self, edits: Mapping[str, Any], job_name: str = "brats_unet_fedavg") -> None:
        """Have each hospital approve, without reading, what the lead makes of a job that was sent by editing it."""
        job = describe_job(self.hosts.files(LEAD) / "sent" / job_name)
        for path in job.folder.rglob("config_fed_client.json"):
            config = json.loads(path.read_text(encoding="utf-8"))
            config["overrides"] |= edits
            path.write_text(json.dumps(config), encoding="utf-8")
        self.approve(job)

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
            if during is not None and process.poll() is None:
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

    def server_files(self, run: Path) -> Path:
        """Folder of a run's job in the server's kit."""
        return self.kit_folder("server") / self.job_id(run)

    def copy_server_files(self, run: Path) -> Path:
        """A copy of them on the lead's host, which the lead asks the server's IT for."""
        return Path(shutil.copytree(self.server_files(run), self.hosts.files(LEAD) / f"{run.name}-server-files"))

    def live_records(self, run: Path) -> list[dict[str, Any]]:
        """Records of a running job, as they lie at the server."""
        return read_records(self.server_files(run) / "rounds.jsonl")

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

    def difference_from_mean(self, outcome: Outcome, round_index: int) -> float:
        """Largest difference between the final model and the mean, by cases, of what was accepted in the last round."""
        cases = accepted_cases(outcome.records, round_index)
        models = {site: load(local_model_file(outcome.run, site, self.kit_folder(site))) for site in cases}
        return largest_difference(load(outcome.run / "final_model.pt"), weighted_mean_of(models, cases))
