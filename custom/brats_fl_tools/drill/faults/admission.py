"""Who may take part: kits that must not be let in, and a kit that is started twice."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Final

from brats_fl.constants import SITES
from brats_fl_tools.drill.certificates import expire, foreign_kit, new_kit, renew
from brats_fl_tools.drill.faults.verdicts import SITE, Fault, expect, expect_others_finished, statuses
from brats_fl_tools.drill.federation import Drill
from brats_fl_tools.drill.outcome import means
from brats_fl_tools.drill.waiting import wait_until
from brats_fl_tools.runs.host_federation import CONSOLE_LOG

SHORTEST_LIFE_S, RESTARTS_OF_A_LIFE = 90.0, 12
"""How long the server's certificate is valid: it takes a job half of that to its second round, idle or busy."""

MOST_ROUNDS, ROUNDS_AFTER = 100, 2

TRY_SECONDS: Final = 12.0
"""A hospital with a valid certificate is connected within 3 s on two idle cores."""


@contextlib.contextmanager
def started(drill: Drill, kit: Path) -> Iterator[None]:
    """While the block runs, the client of a kit that is not of the five hospitals."""
    command = drill.hosts.command(SITE, ["bash", str(kit / "startup" / "sub_start.sh"), "--once"])
    with (kit / CONSOLE_LOG).open("ab") as output, drill.foreign_process(command, output):
        yield


def stranger(drill: Drill, kit: Path, name: str, seconds: float) -> str:
    """Start a kit that must not be let in, beside an honest hospital's; its log, which says why it was not.

    Args:
        drill: The federation.
        kit: Of the stranger.
        name: That it must not be connected by.
        seconds: How long it tries.
    """
    with started(drill, kit):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            connected = drill.connected()
            expect(name not in connected or name in SITES, f"{name} was let in")
            expect(set(SITES) <= connected, f"only {', '.join(sorted(connected))} are connected")
            time.sleep(0.5)
    return (kit / CONSOLE_LOG).read_text(encoding="utf-8", errors="replace")


def wrong_certificate(drill: Drill) -> str:
    """A kit of another provisioning, with the same names."""
    kit = foreign_kit(drill, drill.hosts.files(SITE) / "foreign")
    log = stranger(drill, kit, "hospital-9", TRY_SECONDS)
    expect("CERTIFICATE_VERIFY_FAILED" in log, "its log does not say that the certificate was the reason")
    return "not let in; the five hospitals stayed connected"


def expired_certificate(drill: Drill) -> str:
    """A kit whose certificate ran out yesterday, and one made in the same way whose has not."""
    valid = new_kit(drill, "hospital-7", drill.hosts.files(SITE) / "valid")
    with started(drill, valid):
        took = wait_until(lambda: "hospital-7" in drill.connected(), "a new hospital to be let in", seconds=60)
    expired = new_kit(drill, "hospital-8", drill.hosts.files(SITE) / "expired")
    expire(drill, expired)
    stranger(drill, expired, "hospital-8", max(TRY_SECONDS, 3 * took))
    drill.restart_server()  # it would count on hospital-7 in every job for ten minutes
    return "not let in, as one with a valid certificate was; the five hospitals stayed connected"


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


def server_certificate_expires(drill: Drill) -> str:
    """The server's certificate runs out while a job runs; the lead ends the job two rounds later."""
    certificate = drill.federation.server.certificate
    valid = certificate.read_bytes()
    try:
        now = datetime.now(timezone.utc)
        end = now + timedelta(seconds=max(SHORTEST_LIFE_S, RESTARTS_OF_A_LIFE * drill.restart_server()))
        renew(drill, certificate, now - timedelta(days=1), end)
        drill.restart_server()
        outcome = drill.run("certificate", MOST_ROUNDS, lambda run: outlive(drill, run, end))
    finally:
        certificate.write_bytes(valid)
        drill.restart_server()
    done = len(means(outcome.records))
    for site in SITES:
        seen = statuses(outcome, done, site)
        expect(set(seen.split(", ")) == {"ok"}, f"{site} is {seen}")
    return (
        f"five sites did all {done} rounds, {ROUNDS_AFTER} after it ran out; new sessions refused until it was renewed"
    )


def outlive(drill: Drill, run: Path, end: datetime) -> None:
    """See rounds go on after the end of the certificate, a new session refused, and the job ended on an old one."""
    drill.wait_round(run, 1)
    expect(datetime.now(timezone.utc) < end, "the certificate had run out before the second round")
    wait_until(lambda: datetime.now(timezone.utc) > end + timedelta(seconds=2), "the certificate to run out")
    before = len(means(drill.live_records(run)))
    said = drill.on_lead("status", "--kit", str(drill.kit_folder("lead")))
    expect(said.returncode == 1, "a new session was let in by a certificate that has run out")
    wait_until(lambda: len(means(drill.live_records(run))) >= before + ROUNDS_AFTER, "rounds after the certificate")
    drill.console().ask("abort", drill.job_id(run))


FAULTS: Final[Mapping[str, Fault]] = {
    "wrong-certificate": Fault("not let in", wrong_certificate),
    "expired-certificate": Fault("not let in", expired_certificate),
    "server-certificate-expires": Fault(
        "the job goes on; new sessions are refused until it is renewed", server_certificate_expires
    ),
    "kit-started-twice": Fault("the second start is refused", kit_started_twice),
}
