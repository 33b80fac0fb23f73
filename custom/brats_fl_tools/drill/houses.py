"""The houses of a federation: a kit on each host, under the strict policy, and what runs there."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import psutil
import yaml

from brats_fl.cases.datalists import DATALIST_FILE, Case, DataList, read_datalist, write_datalist
from brats_fl.cases.scans import name_volume, split_volume
from brats_fl.constants import SITES, SPLITS
from brats_fl.errors import RunError
from brats_fl.sharing.site_statistics import MIN_CASES_VARIABLE
from brats_fl_tools.drill.broken_sites import remove_plan, write_harness, write_plan
from brats_fl_tools.drill.hosts import Hosts
from brats_fl_tools.drill.waiting import wait_until
from brats_fl_tools.kit.kits import Federation, Kit, provision, read_kit
from brats_fl_tools.kit.site_files import site_files, write_site_files
from brats_fl_tools.repository import POC_WORKSPACE
from brats_fl_tools.runs import host_federation as fed
from brats_fl_tools.runs.processes import end_tree

SERVER_NAME = "fl.consortium.example"
LEAD, MEMBER, ADMIN = "lead", "member", "admin"
HOSTS = ("server", *SITES, LEAD)
PORT = 8002
HOST_ENVIRONMENT: Mapping[str, str] = {
    "OMP_NUM_THREADS": "1",
    MIN_CASES_VARIABLE: "2",  # a drill's hospitals have three cases each; by default statistics ask for more
    "NVFLARE_CLIENT_OUTCOME_WAIT_TIMEOUT": "15",  # s, at a job's end for a site that was lost: it does not come
}


class Houses:
    """Server, hospitals and lead, each on its host, and what can be done to them.

    Args:
        hosts: Server, five hospitals and the lead.
        sites: Folder with ``SITE/datalist.json``; the cases are copied to the hospitals' hosts.
    """

    def __init__(self, hosts: Hosts, sites: Path) -> None:
        self.hosts = hosts
        self.provisioned = provision_hosts(hosts)
        for site in SITES:
            copy_cases(sites / site / DATALIST_FILE, hosts.files(site) / "data")
        for name in HOSTS:
            write_harness(self.fault_folder(name))
        self.federation = self._install_kits()

    def _install_kits(self) -> Federation:
        for name in (*HOSTS, MEMBER, ADMIN):
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
        """Where a participant's kit lies; the other admins' are on the lead's host."""
        if name in (MEMBER, ADMIN):
            return self.hosts.files(LEAD) / f"{name}-kit"
        return self.hosts.files(name) / "kit"

    def fault_folder(self, name: str) -> Path:
        """Where a host's processes look for what is to be broken in them."""
        return self.hosts.files(name) / "fault"

    @contextlib.contextmanager
    def broken(self, plans: Mapping[str, Mapping[str, Any]]) -> Iterator[None]:
        """While the block runs, processes that are started on a host are broken as its plan says; see ``injected``.

        Args:
            plans: Host -> plan.
        """
        for name, plan in plans.items():
            write_plan(self.fault_folder(name), plan)
        try:
            yield
        finally:
            for name in plans:
                remove_plan(self.fault_folder(name))

    def mend(self) -> None:
        """Break nothing any more, on no host."""
        for name in HOSTS:
            remove_plan(self.fault_folder(name))

    # --- Processes ---

    def start(self, names: Sequence[str] = ("server", *SITES)) -> None:
        """Start server and hospitals as their houses would, with FLARE's watchdog."""
        for name in names:
            kit = self.federation.server if name == "server" else self.kit_of(name)
            environment = {**HOST_ENVIRONMENT, "PYTHONPATH": str(self.fault_folder(name))}
            fed.start_kit(self.federation, kit, environment, True, lambda k, c: self.hosts.command(k.name, c))

    def kit_of(self, site: str) -> Kit:
        """A hospital's kit."""
        return next(kit for kit in self.federation.clients if kit.name == site)

    def processes(self, role: str) -> list[psutil.Process]:
        """Living processes of a role, such as ``hospital-2 trainer``; see ``role_of``."""
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

    def trainer_seconds(self) -> dict[int, float]:
        """Process id -> CPU seconds, of each trainer."""
        seconds = {}
        for process in self.trainers():
            with contextlib.suppress(psutil.Error):
                seconds[process.pid] = process.cpu_times().user
        return seconds

    def trainers(self) -> list[psutil.Process]:
        """All trainer processes."""
        roles = {f"{site} trainer" for site in SITES}
        return [process for process in fed.processes(self.federation) if self.role_of(process) in roles]

    def interrupt(self, process: subprocess.Popen[bytes]) -> None:
        """Ctrl-C."""
        os.kill(process.pid, signal.SIGINT)


def participant(name: str) -> str:
    """Name in the project file."""
    return f"{name}@consortium.example" if name in (LEAD, MEMBER, ADMIN) else name


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
