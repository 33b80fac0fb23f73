"""The faults: each breaks something in a running federation and says what came of it.

A fault raises ``Unexpected`` where the federation did not do what it should; else it returns what it saw, in one line.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

from brats_fl.best_model import mean_votes
from brats_fl.cases.datalists import DATALIST_FILE, read_datalist
from brats_fl.cases.scans import split_volume
from brats_fl.constants import SITES
from brats_fl_tools.drill.broken_sites import ALTERED_AFTER_SIGNING, CANARY, broken_training, write_fault
from brats_fl_tools.drill.certificates import expire, foreign_kit, new_kit
from brats_fl_tools.drill.federation import Drill, wait_until
from brats_fl_tools.drill.unapproved import job_not_approved
from brats_fl_tools.drill.verdicts import (
    SITE,
    TOLERANCE,
    Fault,
    Unexpected,
    expect,
    expect_others_finished,
    statuses,
)
from brats_fl_tools.runs.host_federation import CONSOLE_LOG

SLOW_LINK_KILOBITS_PER_S: Final = 1000


def expect_nothing_leaked(drill: Drill) -> None:
    """No file at the server or the lead holds what a broken site said."""
    for host in ("server", "lead"):
        for path in drill.hosts.files(host).rglob("*"):
            if path.is_file() and path.stat().st_size < 50_000_000 and CANARY.encode() in path.read_bytes():
                raise Unexpected(f"{path.relative_to(drill.hosts.folder)} holds text of the site")


# --- Nothing is broken ---


def unbroken(job: str) -> Callable[[Drill], str]:
    """A job with the patches and windows of its profile, so that ``--sites`` may be real hospitals."""

    def inject(drill: Drill) -> str:
        outcome = drill.run(job, 2, values={"steps_per_epoch": 10}, job=job, tiny=False)
        text = expect_others_finished(drill, outcome, 2)
        expect(statuses(outcome, 2) == "ok, ok", f"{SITE} is {statuses(outcome, 2)}")
        dice = mean_votes(outcome.records).get(("final", 2))
        return f"{text.replace('4 sites', '5 sites')}; val_mean_dice {'none' if dice is None else f'{dice:.3f}'}"

    return inject


# --- Processes that die ---


def trainer_killed(drill: Drill) -> str:
    """``kill -9`` of a trainer in mid-epoch."""

    def during(run: Path) -> None:
        drill.wait_round(run, 1)
        drill.kill(f"{SITE} trainer")

    outcome = drill.run("trainer-killed", 3, during, {"steps_per_epoch": 40})
    text = expect_others_finished(drill, outcome, 3)
    seen = statuses(outcome, 3)
    expect("TRAINER_DIED" in seen, f"{SITE} is {seen}")
    expect(outcome.status(SITE, 2) == "ok", f"{SITE} did not come back: {seen}")
    return f"{text}; {SITE}: {seen}"


def client_killed(drill: Drill) -> str:
    """``kill -9`` of a hospital's FLARE client."""

    def during(run: Path) -> None:
        drill.wait_round(run, 1)
        drill.kill(f"{SITE} parent")

    outcome = drill.run("client-killed", 3, during, {"steps_per_epoch": 40})
    text = expect_others_finished(drill, outcome, 3)
    seconds = wait_until(lambda: SITE in drill.connected(), f"{SITE} to be back")
    return f"{text}; {SITE}: {statuses(outcome, 3)}; connected again {seconds:.0f} s after the job"


def server_killed(drill: Drill) -> str:
    """``kill -9`` of the server in the middle of a round; it restarts, and the lead resumes the job."""

    def during(run: Path) -> None:
        drill.wait_round(run, 2)
        drill.kill("server parent")
        drill.kill("server job")

    lost = drill.run("server-killed", 4, during, {"steps_per_epoch": 40})
    expect(lost.exit_code == 1, f"submit ended with {lost.exit_code}")
    drill.wait_connected()
    wait_until(lambda: not drill.trainers(), "the sites to let go of the lost job")
    copy = drill.hosts.files("lead") / "server-files"  # the lead asks the server's IT for it
    shutil.copytree(drill.kit_folder("server") / drill.job_id(lost.run), copy)
    done = drill.on_lead("resume", str(lost.run), "--server-files", str(copy))
    expect(done.returncode == 0, f"resume failed: {done.stderr.strip() or done.stdout.strip()[-300:]}")
    outcome = drill.outcome(lost.run, 0)
    text = expect_others_finished(drill, outcome, 4)
    lines = sum(record["phase"] == "train" for record in outcome.records)
    expect(lines == 4 * len(SITES), f"the records hold {lines} lines, expected {4 * len(SITES)}")
    going_on = next(line for line in done.stdout.splitlines() if "going on" in line)
    return f"{text}; {going_on.split(': ')[-1]}"


# --- The network ---


def cut_for_30_seconds(drill: Drill) -> str:
    """A hospital's link is down for 30 s."""

    def during(run: Path) -> None:
        drill.wait_round(run, 1)
        drill.hosts.cut(SITE)
        time.sleep(30)
        drill.hosts.join(SITE)

    outcome = drill.run("cut-30s", 6, during, {"steps_per_epoch": 40})
    text = expect_others_finished(drill, outcome, 6)
    expect(outcome.status(SITE, 5) == "ok", f"{SITE} did not come back: {statuses(outcome, 6)}")
    return f"{text}; {SITE}: {statuses(outcome, 6)}"


def cut_for_good(drill: Drill) -> str:
    """A hospital's link is down until the job has ended."""

    def during(run: Path) -> None:
        drill.wait_round(run, 1)
        drill.hosts.cut(SITE)

    try:
        outcome = drill.run("cut", 3, during, {"steps_per_epoch": 40})
    finally:
        drill.hosts.join(SITE)
    text = expect_others_finished(drill, outcome, 3)
    seconds = wait_until(lambda: SITE in drill.connected(), f"{SITE} to be back")
    return f"{text}; {SITE}: {statuses(outcome, 3)}; connected again {seconds:.0f} s after the link"


def slow_link(drill: Drill) -> str:
    """A hospital's link carries 1 Mbit/s: the model, 19 MB, takes two and a half minutes each way."""

    def during(run: Path) -> None:
        drill.wait_round(run, 1)
        expect(SITE in drill.connected(), f"{SITE} lost its connection")

    with drill.hosts.throttled(SITE, SLOW_LINK_KILOBITS_PER_S):
        outcome = drill.run("slow-link", 2, during)
    text = expect_others_finished(drill, outcome, 2)
    expect(statuses(outcome, 2) == "missing, missing", f"{SITE} is {statuses(outcome, 2)}")
    return f"{text}; {SITE}: {statuses(outcome, 2)}, connected all the time"


# --- Sites that misbehave ---


@contextlib.contextmanager
def broken(drill: Drill, kind: str) -> Iterator[None]:
    """While the block runs, a hospital's own training is broken."""
    drill.restart(SITE, write_fault(drill.hosts.files(SITE) / "fault", broken_training(kind)))
    drill.wait_connected()
    try:
        yield
    finally:
        drill.restart(SITE)
        drill.wait_connected()


def broken_site(kind: str, *allowed: str, rounds: int = 2) -> Callable[[Drill], str]:
    """A fault in which a site is broken in a way of ``BODIES`` and should have one of the statuses in each round."""

    def inject(drill: Drill) -> str:
        with broken(drill, kind):
            outcome = drill.run(f"site-{kind}", rounds)
        text = expect_others_finished(drill, outcome, rounds)
        for index in range(rounds):
            status = outcome.status(SITE, index)
            expect(status in allowed, f"{SITE} is {status} in round {index}, expected {' or '.join(allowed)}")
        expect_nothing_leaked(drill)
        return f"{text}; {SITE}: {statuses(outcome, rounds)}"

    return inject


def corrupt_case(drill: Drill) -> str:
    """A scan of a hospital is cut short."""
    datalist = read_datalist(drill.hosts.files(SITE) / "data" / DATALIST_FILE)
    scan, _ = split_volume(datalist.training[0].image[2])
    whole = scan.read_bytes()
    scan.write_bytes(whole[: len(whole) // 2])
    try:
        outcome = drill.run("corrupt-case", 2)
    finally:
        scan.write_bytes(whole)
    text = expect_others_finished(drill, outcome, 2)
    seen = statuses(outcome, 2)
    expect(seen in ("CASE_ERROR, CASE_ERROR", "DATALIST_ERROR, DATALIST_ERROR"), f"{SITE} is {seen}")
    for record in outcome.records:
        expect(scan.name not in str(record), "the records name the case")
    return f"{text}; {SITE}: {seen}"


# --- Disks ---


@contextlib.contextmanager
def full(folder: Path) -> Iterator[None]:
    """While the block runs, the file system of a folder is full."""
    filler = folder / "filler"
    subprocess.run(["dd", "if=/dev/zero", f"of={filler}", "bs=64k"], capture_output=True, check=False)
    try:
        yield
    finally:
        filler.unlink()


def site_disk_full(drill: Drill) -> str:
    """A hospital's disk is full during a round."""
    site = "hospital-5"
    stack = contextlib.ExitStack()

    def during(run: Path) -> None:
        drill.wait_round(run, 1)
        stack.enter_context(full(drill.hosts.files(site)))
        drill.wait_round(run, 3)
        stack.close()

    with stack:
        outcome = drill.run("site-disk", 5, during, {"steps_per_epoch": 20})
    expect(outcome.exit_code == 0, f"the job did not finish: {outcome.output.strip().splitlines()[-1:]}")
    seen = statuses(outcome, 5, site)
    expect("DISK_FULL" in seen, f"{site} is {seen}")
    expect(outcome.status(site, 4) == "ok", f"{site} did not come back: {seen}")
    expect(all(outcome.status(s, r) == "ok" for s in SITES if s != site for r in range(5)), "an honest site is missing")
    difference = drill.difference_from_mean(outcome, 4)
    expect(difference <= TOLERANCE, f"the model differs from the mean of what was accepted by {difference:.1e}")
    return f"4 sites finished 5 rounds, model = mean ({difference:.0e}); {site}: {seen}"


def server_disk_full(drill: Drill) -> str:
    """The server's disk is full at the end of a round; then there is space again, and the lead resumes the job."""
    stack = contextlib.ExitStack()

    def during(run: Path) -> None:
        drill.wait_round(run, 1)
        stack.enter_context(full(drill.hosts.files("server")))

    with stack:
        lost = drill.run("server-disk", 3, during, {"steps_per_epoch": 20})
        wait_until(lambda: not drill.trainers(), "the job to end")
    expect(lost.exit_code == 1, f"submit ended with {lost.exit_code}")
    drill.wait_connected()
    collected = drill.on_lead("collect", str(lost.run))
    expect(collected.returncode == 1, f"collect ended with {collected.returncode}")
    done = drill.on_lead("resume", str(lost.run))
    expect(done.returncode == 0, f"resume failed: {done.stderr.strip() or done.stdout.strip()[-300:]}")
    return expect_others_finished(drill, drill.outcome(lost.run, 0), 3)


# --- Who may take part ---


@contextlib.contextmanager
def started(drill: Drill, kit: Path) -> Iterator[None]:
    """While the block runs, the client of a kit that is not of the five hospitals."""
    command = drill.hosts.command(SITE, ["bash", str(kit / "startup" / "sub_start.sh"), "--once"])
    with (kit / CONSOLE_LOG).open("ab") as output, drill.foreign_process(command, output):
        yield


def stranger(drill: Drill, kit: Path, name: str) -> str:
    """Start a kit that must not be let in, beside an honest hospital's; its log, which says why it was not."""
    with started(drill, kit):
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            connected = drill.connected()
            expect(name not in connected or name in SITES, f"{name} was let in")
            expect(set(SITES) <= connected, f"only {', '.join(sorted(connected))} are connected")
            time.sleep(2)
    return (kit / CONSOLE_LOG).read_text(encoding="utf-8", errors="replace")


def wrong_certificate(drill: Drill) -> str:
    """A kit of another provisioning, with the same names."""
    kit = foreign_kit(drill, drill.hosts.files(SITE) / "foreign")
    log = stranger(drill, kit, "hospital-9")
    expect("CERTIFICATE_VERIFY_FAILED" in log, "its log does not say that the certificate was the reason")
    return "not let in; the five hospitals stayed connected"


def expired_certificate(drill: Drill) -> str:
    """A kit whose certificate ran out yesterday, and one made in the same way whose has not."""
    valid = new_kit(drill, "hospital-7", drill.hosts.files(SITE) / "valid")
    with started(drill, valid):
        wait_until(lambda: "hospital-7" in drill.connected(), "a new hospital to be let in", seconds=60)
    expired = new_kit(drill, "hospital-8", drill.hosts.files(SITE) / "expired")
    expire(drill, expired)
    stranger(drill, expired, "hospital-8")
    return "not let in, as one with a valid certificate was; the five hospitals stayed connected"


def member_submits(drill: Drill) -> str:
    """An admin whose role may only look tries to submit a job."""
    run = drill.hosts.files("lead") / "member-run"
    arguments = drill.submission(run, 1)
    arguments[arguments.index("--kit") + 1] = str(drill.kit_folder("member"))
    done = drill.on_lead(*arguments)
    expect(done.returncode == 1, f"submit ended with {done.returncode}")
    expect("not allowed for this admin" in done.stderr, f"submit said {done.stderr.strip()[-200:]!r}")
    return done.stderr.strip().splitlines()[-1][:160]


def job_altered(drill: Drill) -> str:
    """A file of a job is changed after the lead has signed it."""
    run = drill.hosts.files("lead") / "altered"
    fault = write_fault(drill.hosts.files("lead") / "fault", ALTERED_AFTER_SIGNING)
    done = drill.on_lead(*drill.submission(run, 1), fault=fault)
    expect(done.returncode == 1, f"submit ended with {done.returncode}: {done.stdout[-200:]}")
    expect("signature verification" in done.stderr, f"submit said {done.stderr.strip()[-200:]!r}")
    return done.stderr.strip().splitlines()[-1][:200]


def job_with_code(drill: Drill) -> str:
    """A job that brings code meets the policy ``strict``."""
    run = drill.hosts.files("lead") / "with-code"
    arguments = [part for part in drill.submission(run, 1) if part != "--preinstalled"]
    done = drill.on_lead(*arguments)
    expect(done.returncode == 1, f"submit ended with {done.returncode}")
    expect("BYOC not permitted" in done.stderr, f"submit said {done.stderr.strip()[-200:]!r}")
    return done.stderr.strip().splitlines()[-1][:200]


def kit_started_twice(drill: Drill) -> str:
    """A hospital's start script is run again while it runs."""
    command = drill.hosts.command(SITE, ["bash", str(drill.kit_folder(SITE) / "startup" / "start.sh")])
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    expect("one instance" in done.stdout, f"it said {done.stdout.strip()!r}")
    expect(len(drill.processes(f"{SITE} parent")) == 1, "two clients run")
    outcome = drill.run("started-twice", 1)
    text = expect_others_finished(drill, outcome, 1)
    expect(outcome.status(SITE, 0) == "ok", f"{SITE} is {outcome.status(SITE, 0)}")
    return f"{text}; the second start was refused"


def submit_interrupted(drill: Drill) -> str:
    """Ctrl-C of ``submit``: the job goes on, and ``collect`` fetches it."""
    run = drill.hosts.files("lead") / "interrupted"
    with drill.submitted(run, drill.submission(run, 2, {"steps_per_epoch": 40})) as process:
        wait_until(lambda: (run / "submission.json").is_file(), "the submission")
        drill.wait_round(run, 1)
        drill.interrupt(process)
        code = process.wait(timeout=30)
    expect(code == 1, f"submit ended with {code}")
    done = drill.on_lead("collect", str(run))
    expect(done.returncode == 0, f"collect failed: {done.stderr.strip()}")
    return expect_others_finished(drill, drill.outcome(run, 0), 2) + "; collected afterwards"


FAULTS: Final[Mapping[str, Fault]] = {
    "nothing-unet": Fault("five sites finish every round", unbroken("brats_unet_fedavg")),
    "nothing-attention-unet": Fault("five sites finish every round", unbroken("brats_attention_unet_fedavg")),
    "trainer-killed": Fault("the round goes on with four; the site is back in the next", trainer_killed),
    "client-killed": Fault("the job goes on with four; the site connects again", client_killed),
    "cut-30s": Fault("rounds go on with four; the site is back afterwards", cut_for_30_seconds),
    "cut": Fault("the job goes on with four", cut_for_good),
    "slow-link": Fault("rounds do not wait for it beyond the set time; the site stays connected", slow_link),
    "slow-site": Fault("rounds do not wait for it beyond the set time", broken_site("slow", "missing", "absent", "ok")),
    "site-raises": Fault("a code and nothing else goes out", broken_site("raises", "EXECUTION_EXCEPTION")),
    "nan-update": Fault("refused by the server, recorded", broken_site("nan", "MODEL_ERROR")),
    "huge-update": Fault("refused by the server, recorded", broken_site("huge", "MODEL_ERROR")),
    "wrong-keys": Fault("refused by the server, recorded", broken_site("keys", "MODEL_ERROR")),
    "wrong-shapes": Fault("refused by the server, recorded", broken_site("shapes", "MODEL_ERROR")),
    "million-cases": Fault("refused by the server, recorded", broken_site("cases", "MODEL_ERROR")),
    "nonsense": Fault("the update counts; what it states is dropped", broken_site("nonsense", "ok")),
    "corrupt-case": Fault("a code goes out; four finish", corrupt_case),
    "site-disk-full": Fault("a code goes out; the site is back when there is space", site_disk_full),
    "server-killed": Fault("resume loses at most one round; all records are there", server_killed),
    "server-disk-full": Fault("the job ends with a message; resume finishes it", server_disk_full),
    "wrong-certificate": Fault("not let in", wrong_certificate),
    "expired-certificate": Fault("not let in", expired_certificate),
    "member-submits": Fault("refused with a message", member_submits),
    "job-altered": Fault("refused with a message", job_altered),
    "job-with-code": Fault("refused by the policy strict", job_with_code),
    "job-not-approved": Fault("refused before anything of it runs; those that approve it go on", job_not_approved),
    "kit-started-twice": Fault("the second start is refused", kit_started_twice),
    "submit-interrupted": Fault("the job goes on; collect fetches it", submit_interrupted),
}
