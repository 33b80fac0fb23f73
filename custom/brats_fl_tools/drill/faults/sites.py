"""Sites that misbehave: each in a round of its own of one job, which all of them share.

A job costs most of a minute before its first round, and the same whatever goes wrong in it. So the first of these
faults that is injected runs the job for all that are wanted, and each is judged by its own round: what the records say
of it, and the global model after it against what the hospitals trained in it.
"""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any, Final

from brats_fl.best_model import vote
from brats_fl.constants import SITES
from brats_fl.errors import RunError
from brats_fl_tools.drill.faults.searching import expect_nothing_leaked
from brats_fl_tools.drill.faults.verdicts import (
    SITE,
    TOLERANCE,
    Fault,
    Unexpected,
    expect,
    expect_finished,
    expect_resumed,
    statuses,
)
from brats_fl_tools.drill.federation import Drill
from brats_fl_tools.drill.outcome import (
    Model,
    Outcome,
    Records,
    accepted_cases,
    largest_difference,
    load,
    local_model_file,
    means,
    weighted_mean_of,
)
from brats_fl_tools.drill.waiting import WAIT_SECONDS, wait_until
from brats_fl_tools.runs.collect import model_of, rounds_done
from brats_fl_tools.runs.folder import SERVER_FILES

HONEST_ROUNDS_BEFORE, HONEST_ROUNDS_AFTER = 1, 2
"""Before: there is a global model to compare with. After: a site that is late misses the round after, too."""


@dataclass(frozen=True)
class Round:
    """A round of the shared job that is over."""

    index: int
    records: Records
    difference: float
    """Largest difference of the model after it from what it should be: the mean of what was accepted, or no change."""
    log: str
    """Of the server."""

    @property
    def mean(self) -> Mapping[str, Any]:
        """The server's own line."""
        return next(r for r in means(self.records) if r["round"] == self.index)

    def record(self, site: str) -> Mapping[str, Any]:
        """A site's line."""
        return next(r for r in self.records if r["phase"] == "train" and r["site"] == site and r["round"] == self.index)


@dataclass(frozen=True)
class Misbehaviour:
    """What is wrong in a round."""

    kind: str
    """Of ``injected.TRAININGS``, or of ``injected.METRICS``."""
    status: str
    """That the records should give the site in that round."""
    expected: str
    sites: tuple[str, ...] = (SITE,)
    where: str = "train"
    check: Callable[[Round], str] = field(default=lambda _: "")


@dataclass
class SharedJob:
    """The job, and what was seen of it."""

    names: Sequence[str]
    outcome: Outcome
    differences: Mapping[int, float]
    leak: str

    def round_of(self, name: str) -> Round:
        """The round of a misbehaviour."""
        index = HONEST_ROUNDS_BEFORE + self.names.index(name)
        log = (self.outcome.run / SERVER_FILES / "log.txt").read_text(encoding="utf-8", errors="replace")
        return Round(index, self.outcome.records, self.differences[index], log)


def casts_no_vote(seen: Round) -> str:
    """What the site called its Dice was dropped, and the choice of the best model went by the others'."""
    record = seen.record(SITE)
    expect(vote(record.get("metrics")) is None, f"its vote {record.get('metrics')} is in the records")
    expect(record.get("dropped", 0) >= 1, "the records do not say that something was dropped")
    votes = [vote(seen.record(site).get("metrics")) for site in SITES if site != SITE]
    mean = fmean(value for value in votes if value is not None)
    words = f"the model that round {seen.index} began with is the best so far: "
    for line in seen.log.splitlines():
        if words in line:
            expect(line.endswith(f"{words}{mean:.4f}"), f"the best model was chosen by another mean than {mean:.4f}")
    return f"; {record['dropped']} entries dropped, best model by the others' mean {mean:.4f}"


def has_a_bounded_share(seen: Round) -> str:
    """The update counts, by no more than its share: nothing tells it from one of a site whose patients differ."""
    shares = seen.mean["shares"]
    expect(SITE in shares and shares[SITE] <= 0.5, f"its share is {shares.get(SITE)}")
    return f"; the update against the model counted, with a share of {shares[SITE]}"


def was_repeated(seen: Round) -> str:
    """The round failed, the model stayed, and the next one had enough updates again."""
    expect(seen.mean["status"] == "TOO_FEW_UPDATES", f"the round is {seen.mean['status']}")
    after = next(r for r in means(seen.records) if r["round"] == seen.index + 1)
    expect(after["status"] == "ok", f"the next round is {after['status']}")
    return "; TOO_FEW_UPDATES, the next round went on"


REFUSED: Final = "refused by the server, recorded"
DROPPED: Final = "the update counts; what it states is dropped"

MISBEHAVIOURS: Final[Mapping[str, Misbehaviour]] = {
    "site-raises": Misbehaviour("raises", "EXECUTION_EXCEPTION", "a code and nothing else goes out"),
    "nan-update": Misbehaviour("nan", "MODEL_ERROR", REFUSED),
    "huge-update": Misbehaviour("huge", "MODEL_ERROR", REFUSED),
    "wrong-keys": Misbehaviour("keys", "MODEL_ERROR", REFUSED),
    "wrong-shapes": Misbehaviour("shapes", "MODEL_ERROR", REFUSED),
    "million-cases": Misbehaviour("cases", "MODEL_ERROR", REFUSED),
    "endless-cases": Misbehaviour("overflow", "MODEL_ERROR", REFUSED),
    "nonsense": Misbehaviour("nonsense", "ok", DROPPED, check=casts_no_vote),
    "text-metrics": Misbehaviour("text", "ok", DROPPED, where="metrics", check=casts_no_vote),
    "huge-metrics": Misbehaviour("huge", "ok", DROPPED, where="metrics", check=casts_no_vote),
    "million-vote": Misbehaviour("vote", "ok", "the update counts; the vote does not", check=casts_no_vote),
    "sign-flip": Misbehaviour(
        "flipped", "ok", "not told apart; counts by its bounded share, recorded", check=has_a_bounded_share
    ),
    "two-sites-fail": Misbehaviour(
        "raises",
        "EXECUTION_EXCEPTION",
        "the round fails, the model stays, the next round goes on",
        (SITE, "hospital-3"),
        check=was_repeated,
    ),
    "slow-site": Misbehaviour("slow", "missing", "rounds do not wait for it beyond the set time"),
}
"""In the order of the rounds: the slow site comes last, since it misses the next round as well."""


def misbehaving(name: str) -> Callable[[Drill], str]:
    """A fault that is one round of the shared job."""
    return lambda drill: judge(MISBEHAVIOURS[name], shared_job(drill, name).round_of(name), drill.shared["sites"])


def judge(wrong: Misbehaviour, seen: Round, job: SharedJob) -> str:
    """What came of a misbehaviour."""
    expect_finished(job.outcome)
    for site in SITES:
        should = wrong.status if site in wrong.sites else "ok"
        status = job.outcome.status(site, seen.index)
        expect(status == should, f"{site} is {status} in round {seen.index}, expected {should}")
        last = job.outcome.status(site, max(job.differences))
        expect(last == "ok", f"{site} is {last} in the last round, in which nothing is broken")
    expect(seen.difference <= TOLERANCE, f"the model is {seen.difference:.1e} away from what it should be")
    expect(not job.leak, job.leak)
    text = f"{', '.join(wrong.sites)}: {wrong.status}, the others ok"
    return f"{text}{wrong.check(seen)}; model as it should be ({seen.difference:.0e})"


def shared_job(drill: Drill, name: str) -> SharedJob:
    """The job of all misbehaviours that are wanted; run at most once."""
    if "sites" not in drill.shared:
        names = [other for other in MISBEHAVIOURS if other in drill.wanted or other == name]
        try:
            drill.shared["sites"] = run_shared_job(drill, names)
        except (Unexpected, RunError, subprocess.TimeoutExpired) as error:
            drill.shared["sites"] = error
    if isinstance(drill.shared["sites"], Exception):
        raise drill.shared["sites"]
    job: SharedJob = drill.shared["sites"]
    return job


def plans_of(names: Sequence[str]) -> dict[str, dict[str, dict[str, str]]]:
    """Site -> its plan, see ``injected.break_process``: each misbehaviour has a round of its own."""
    plans: dict[str, dict[str, dict[str, str]]] = {}
    for round_index, name in enumerate(names, HONEST_ROUNDS_BEFORE):
        wrong = MISBEHAVIOURS[name]
        for site in wrong.sites:
            plans.setdefault(site, {}).setdefault(wrong.where, {})[str(round_index)] = wrong.kind
    return plans


def run_shared_job(drill: Drill, names: Sequence[str]) -> SharedJob:
    """Run the job to its end, and compare the model after each round with what it should be."""
    run = drill.hosts.files("lead") / "broken-sites"
    rounds = HONEST_ROUNDS_BEFORE + len(names) + HONEST_ROUNDS_AFTER
    flipped = {round_index for round_index, name in enumerate(names, HONEST_ROUNDS_BEFORE) if name == "sign-flip"}
    differences: dict[int, float] = {}
    with drill.broken(plans_of(names)), drill.submitted(run, drill.submission(run, rounds)) as process:
        before: Model = {}
        for round_index in range(rounds):
            if not wait_for_mean(drill, run, round_index, process):
                break
            before, difference = compare(drill, run, round_index, before, flipped)
            differences[round_index] = difference
        process.wait(timeout=WAIT_SECONDS)
    outcome = drill.outcome(run, process.returncode)
    expect(len(differences) == rounds, f"the job ended in round {len(differences)}: {outcome.output[-300:]}")
    leak = ""
    try:
        expect_nothing_leaked(drill)
    except Unexpected as error:
        leak = str(error)
    return SharedJob(names, outcome, differences, leak)


def wait_for_mean(drill: Drill, run: Path, round_index: int, process: subprocess.Popen[bytes]) -> bool:
    """Return when a round is over; False where the job ended before."""

    def is_over() -> bool:
        if not (run / "submission.json").is_file():
            return False
        return any(r["round"] == round_index for r in means(drill.live_records(run)))

    wait_until(lambda: is_over() or process.poll() is not None, f"round {round_index} to end", poll_seconds=0.1)
    return is_over()


def compare(
    drill: Drill, run: Path, round_index: int, before: Model, flipped: set[int]
) -> tuple[dict[str, Any], float]:
    """The model after a round, and its largest difference from what it should be.

    Args:
        drill: The federation.
        run: Of the shared job.
        round_index: A round that has just ended; the sites' models are those of this round until they have trained
            in the next.
        before: The model that the round began with.
        flipped: Rounds in which ``SITE`` sent the opposite of what it had trained.
    """
    records = drill.live_records(run)
    cases = accepted_cases(records, round_index)
    with contextlib.ExitStack() as stack:  # an open file stays what it is when another takes its name
        files = {
            site: stack.enter_context(local_model_file(run, site, drill.kit_folder(site)).open("rb")) for site in cases
        }
        trained = {site: load(file) for site, file in files.items()}
    model_file = model_of(drill.server_files(run))
    wait_until(
        lambda: model_file.is_file() and rounds_done(model_file) > round_index, f"the model of round {round_index}"
    )
    done = rounds_done(model_file)
    expect(done == round_index + 1, f"the drill was too slow for round {round_index}: the server has made {done}")
    model = load(model_file)
    if round_index in flipped and SITE in trained:
        trained[SITE] = {name: 2 * before[name] - value for name, value in trained[SITE].items()}
    status = next(r["status"] for r in means(records) if r["round"] == round_index)
    should = weighted_mean_of(trained, cases) if status == "ok" else before
    return model, largest_difference(model, should)


def weights_then_resume(drill: Drill) -> str:
    """A hospital states more cases than there are, the lead aborts the job in the round after, and resumes it."""
    run = drill.hosts.files("lead") / "weights"
    plan = {SITE: {"train": {"1": "cases", "2": "overflow"}}}
    with drill.broken(plan), drill.submitted(run, drill.submission(run, 4)) as process:
        expect(wait_for_mean(drill, run, 2, process), "the job ended before its third round was over")
        drill.console().ask("abort", drill.job_id(run))
        process.wait(timeout=WAIT_SECONDS)
    expect(process.returncode == 1, f"submit ended with {process.returncode}")
    drill.wait_connected()
    text, outcome = expect_resumed(drill, run, 4)
    seen = statuses(outcome, 4)
    expect(seen == "ok, MODEL_ERROR, MODEL_ERROR, ok", f"{SITE} is {seen}")
    return f"{text}; {SITE}: {seen}"


FAULTS: Final[Mapping[str, Fault]] = {
    **{name: Fault(wrong.expected, misbehaving(name)) for name, wrong in MISBEHAVIOURS.items()},
    "weights-then-resume": Fault("refused by the server; resume finishes the job", weights_then_resume),
}
