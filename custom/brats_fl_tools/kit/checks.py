"""All checks of a kit, and those of the site's own files: policy, log streaming, data list, processes."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from brats_fl.approval import read_approvals
from brats_fl.cases.cache_folder import cache_limit
from brats_fl.cases.datalists import DataList, default_cache_dir, find_datalist, read_datalist
from brats_fl.constants import SPLITS
from brats_fl.errors import CacheError, DataListError, FolderError, KitError
from brats_fl.names import check_folder
from brats_fl_tools.kit import machine
from brats_fl_tools.kit.certificates import check_certificates
from brats_fl_tools.kit.egress import check_egress
from brats_fl_tools.kit.kits import Kind, Kit
from brats_fl_tools.kit.machine import Needs, StatedJob
from brats_fl_tools.kit.privacy_budget import check_budget
from brats_fl_tools.kit.results import CheckResult, fail, passed, warn
from brats_fl_tools.kit.server import check_server
from brats_fl_tools.kit.service_check import check_unit
from brats_fl_tools.kit.site_disk import check_on_disk
from brats_fl_tools.kit.site_files import (
    APPROVED_JOBS,
    DOOR,
    approvals_file,
    policy_names,
    read_policy,
    read_rules_file,
    rules_file,
)

START_SCRIPT: Mapping[Kind, str] = {"server": "start.sh", "client": "start.sh", "admin": "fl_admin.sh"}

SLURM_SCRIPT, CHART = "start_slurm.sh", "helm_chart/Chart.yaml"
"""What starts a kit that ``kit deploy`` prepared, in the place of its own script."""

SHOWN = 3
"""Findings of the data gate in one line of the table."""


class LocalRules(NamedTuple):
    """What a site's ``local`` folder says, FLARE's defaults where the site has not written its own."""

    resources: Mapping[str, Any]
    authorization: Mapping[str, Any]
    own: bool
    """Both files are the site's own."""

    def component(self, name: str) -> Mapping[str, Any] | None:
        """A component of ``resources.json``."""
        return next((part for part in self.resources.get("components", []) if part.get("id") == name), None)

    @property
    def must_approve(self) -> bool:
        """Whether no job runs here that the hospital has not approved."""
        return self.component(str(APPROVED_JOBS["id"])) == APPROVED_JOBS

    @property
    def may_bring_code(self) -> bool:
        """Whether a job of the lead may bring code."""
        rules = self.authorization.get("permissions", {}).get("lead", {})
        return rules != "none" and (rules == "any" or rules.get("byoc") not in (None, "none"))


def check_kit(kit: Kit, job: StatedJob | None = None) -> list[CheckResult]:
    """Everything that can be known of a kit before it is started; nothing is changed and nobody logs in.

    Args:
        kit: Of the server, a hospital or an admin.
        job: What the site is asked to run.
    """
    if kit.kind == "admin":
        return [check_scripts(kit), *check_on_disk(kit), *check_certificates(kit), *check_server(kit)]
    running = running_processes(kit)
    facts, needs = machine.probe_environment(kit), machine.needs_of(kit, job)
    listens = kit.kind == "server" and bool(running)
    return [
        check_not_running(kit, running),
        check_path(kit, facts),
        check_scripts(kit),
        *check_on_disk(kit),
        *check_certificates(kit),
        *([] if listens else check_server(kit)),
        machine.check_environment(facts),
        *check_rules(kit, job, facts, needs),
        machine.check_memory(needs),
        *(machine.check_shared_memory(needs) if kit.kind == "client" else []),
        machine.check_disk("disk", kit.folder, machine.SPARE_GB),
        *(check_cases(kit, needs) if kit.kind == "client" else []),
        *check_unit(kit, facts),
    ]


def running_processes(kit: Kit) -> list[psutil.Process]:
    """Processes of this machine that were started with this kit: FLARE's, and the loop that restarts it."""
    return [process for process in psutil.process_iter() if _belongs(process, kit.folder.resolve())]


def _belongs(process: psutil.Process, folder: Path) -> bool:
    with contextlib.suppress(psutil.Error, OSError, ValueError):
        line = process.cmdline()
        if process.status() == psutil.STATUS_ZOMBIE or not any(
            "nvflare" in word or "start.sh" in word for word in line
        ):
            return False
        places = [Path(word).resolve() for word in line if word.startswith("/")]
        return any(place == folder or place == folder / "startup" / "sub_start.sh" for place in places)
    return False


def check_not_running(kit: Kit, running: Sequence[psutil.Process]) -> CheckResult:
    """Nothing runs with this kit: a second login would shut the site out."""
    name = "not running"
    if running:
        numbers = ", ".join(str(process.pid) for process in running)
        return fail(name, f"{kit.name} runs (process {numbers})", "leave it; to check everything, stop it first")
    stale = kit.folder / "daemon_pid.fl"
    if stale.is_file() and _alive(stale):
        return fail(name, f"{stale} names another living process; start.sh will not start", f"rm '{stale}'")
    return passed(name, "no process of this kit on this machine")


def check_path(kit: Kit, facts: Mapping[str, Any] | None = None) -> CheckResult:
    """FLARE can start its processes where the kit and its Python lie."""
    try:
        check_folder(kit.folder, "kit")
        if facts is not None:
            check_folder(Path(facts["executable"]), "Python environment")
    except FolderError as error:
        found, _, mend = str(error).rpartition("; ")
        return fail("path", found, mend)
    return passed("path", str(kit.folder.absolute()))


def check_scripts(kit: Kit) -> CheckResult:
    """The kit's scripts can be run: a copy through a ZIP, Windows or a network folder may lose that, without a word."""
    folder = kit.folder / "startup"
    scripts = sorted(folder.glob("*.sh"))
    if (kit.folder / CHART).is_file():
        return passed("scripts", f"prepared for Kubernetes: {CHART}")
    if not any(script.name in (START_SCRIPT[kit.kind], SLURM_SCRIPT) for script in scripts):
        return fail("scripts", f"{folder} has no {START_SCRIPT[kit.kind]}", "ask the lead for this kit again")
    if from_windows := [script.name for script in scripts if b"\r\n" in script.read_bytes()]:
        found = f"{', '.join(from_windows)} of {folder} have the line ends of Windows, with which no shell runs them"
        return fail("scripts", found, f"sed -i 's/\\r$//' '{folder}'/*.sh")
    if os.statvfs(folder).f_flag & os.ST_NOEXEC:
        found = f"{folder} is on a disk from which nothing may be run (mounted noexec)"
        return fail("scripts", found, "move the kit to another disk, or have it mounted without noexec")
    if not_run := [script.name for script in scripts if not os.access(script, os.X_OK)]:
        return fail("scripts", f"{', '.join(not_run)} of {folder} may not be run", f"chmod u+x '{folder}'/*.sh")
    return passed("scripts", "may be run")


def _alive(pid_file: Path) -> bool:
    text = pid_file.read_text(encoding="utf-8", errors="replace").strip()
    return bool(re.fullmatch("[0-9]{1,9}", text)) and psutil.pid_exists(int(text))


def read_rules(kit: Kit) -> LocalRules:
    """The rules in a kit's ``local`` folder.

    Raises:
        KitError: A file is missing or damaged.
    """
    files = [kit.folder / "local" / name for name in ("resources.json", "authorization.json")]
    resources, authorization = (read_rules_file(rules_file(file)) for file in files)
    return LocalRules(resources, authorization, all(file.is_file() for file in files))


def check_rules(kit: Kit, job: StatedJob | None, facts: Mapping[str, Any] | None, needs: Needs) -> list[CheckResult]:
    """Policy, log streaming, the job's code and the GPUs that are offered."""
    try:
        rules = read_rules(kit)
    except KitError as error:
        return [fail("policy", str(error), "run brats-fl kit setup")]
    results = [check_policy(rules, kit)]
    if job is not None:
        results += [machine.check_code(job, facts, rules.may_bring_code), *machine.check_member(kit, job)]
        results += machine.check_trackers(kit, job, facts)
    if kit.kind == "client":
        offered = (rules.component("resource_manager") or {}).get("args", {}).get("num_of_gpus", 0)
        if not isinstance(offered, int):
            return [*results, fail("GPU", f"resources.json offers {offered!r} GPUs", "run brats-fl kit setup")]
        asked = job.job.gpus if job else 0
        results += [check_approval(kit, rules, job)] if job and job.approval else []
        results += [
            check_door(rules),
            check_egress(kit),
            check_budget(kit),
            check_log_streaming(rules),
            machine.check_gpu(offered, needs, facts, asked),
        ]
    return results


def check_policy(rules: LocalRules, kit: Kit) -> CheckResult:
    """The site has chosen a policy."""
    name = "policy"
    if not rules.own:
        found = "none chosen: by FLARE's default jobs bring code and the project's admin reads files of this site"
        return warn(name, found, "run brats-fl kit setup with --policy strict")
    for policy in policy_names():
        wanted = read_policy(policy)
        same = all(rules.resources.get(key) == value for key, value in wanted["resources"].items())
        same &= kit.kind == "server" or rules.must_approve == wanted["approve_jobs"]
        if same and rules.authorization == wanted["authorization"]:
            return passed(name, policy)
    found = "neither of this release's (strict, open): changed by hand, or written by another release"
    return warn(name, found, "run brats-fl kit setup again, unless it is meant")


def check_approval(kit: Kit, rules: LocalRules, job: StatedJob) -> CheckResult:
    """The hospital has agreed to run the job, or its policy asks for no such word."""
    name, short = "job's approval", job.approval[:12]
    if not rules.must_approve:
        return passed(name, f"{short}; this site's policy does not ask for one")
    try:
        known = next((one for one in read_approvals(approvals_file(kit)) if one.hash == job.approval), None)
    except KitError as error:
        return fail(name, str(error).rpartition("; ")[0], f"rm '{approvals_file(kit)}', and approve each job again")
    if known is None:
        mend = f"read what it runs (above); then brats-fl kit approve '{kit.folder}' '{job.job.folder}'"
        return warn(name, f"{short} is not approved: this site refuses it", mend)
    return passed(name, f"{short}, by {known.by} on {known.when[:10]}")


def check_door(rules: LocalRules) -> CheckResult:
    """Other hospitals cannot reach the site through the server, and nobody reads its files."""
    name = "door"
    if rules.component(str(DOOR["id"])) != DOOR:
        found = "open: FLARE carries out what other hospitals ask of this site, and shows them its files"
        return fail(name, found, "run brats-fl kit setup")
    return passed(name, "requests of other hospitals, commands and file reads are refused")


def check_log_streaming(rules: LocalRules) -> CheckResult:
    """The site's logs, which may name cases, are not sent to the server."""
    name = "log streaming"
    if rules.resources.get("allow_log_streaming", True) or rules.component("site_log_streamer"):
        return fail(name, "on: logs of this site, which may name cases, go to the server", "run brats-fl kit setup")
    return passed(name, "off")


def check_cases(kit: Kit, needs: Needs) -> list[CheckResult]:
    """The data list passes the cheap part of the data gate, and the cache of its cases has room."""
    try:
        path = find_datalist(kit.name, kit.folder)
        datalist = read_datalist(path)
    except DataListError as error:
        return [fail("data list", str(error), "run brats-fl kit setup with --data-list")]
    cases = sum(len(datalist.split(split)) for split in SPLITS)
    return [check_datalist(kit, datalist, path), check_cache(path, cases, needs)]


def check_cache(datalist: Path, cases: int, needs: Needs) -> CheckResult:
    """The cache of preprocessed cases has room for all of them, or up to its limit."""
    name, folder = "disk for the cache", Path(default_cache_dir(datalist))
    try:
        limit_gb = cache_limit() / 1e9
    except CacheError as error:
        return fail(name, str(error), "do so where start.sh is called")
    still = max(0.0, min(cases * needs.cache_mb_per_case / 1000, limit_gb) - machine.size_gb(folder))
    return machine.check_disk(name, folder, still)


def check_datalist(kit: Kit, datalist: DataList, path: Path) -> CheckResult:
    """The gate's findings that need no voxel."""
    name = "data list"
    counts = {split: len(datalist.split(split)) for split in SPLITS}
    found = f"{path}: " + ", ".join(f"{count} {split}" for split, count in counts.items())
    if not datalist.training:
        return fail(name, found, "a site without a training case cannot take part; add cases")
    errors, warnings = gate_findings(datalist, path)
    if datalist.site != kit.name:
        warnings.insert(
            0, f"its `site` is {datalist.site}, the kit is {kit.name}'s; if the list is yours, correct `site`"
        )
    lines = [*errors, *warnings]
    if not lines:
        return passed(name, found)
    more = [f"and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else []
    text = "\n".join([found, *lines[:SHOWN], *more])
    return (fail if errors else warn)(name, text, "`brats-fl check` on the list tells all")


def gate_findings(datalist: DataList, path: Path) -> tuple[list[str], list[str]]:
    """Errors and warnings of the data gate that need no voxel, a line each; what was accepted is a warning."""
    from brats_fl.gate import check_headers, errors_of, mark_accepted, read_acceptances

    findings = mark_accepted(check_headers(datalist), read_acceptances(path))
    errors = errors_of(findings)
    return [str(finding) for finding in errors], [str(f) for f in findings if f not in errors]
