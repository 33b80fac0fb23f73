"""What there is to say of a running job at one moment: a pure function of what was seen, and of the time."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from statistics import fmean, median
from typing import Final, Literal

from brats_fl.constants import KEY_METRIC
from brats_fl_tools.pages.formats import format_duration, natural_key
from brats_fl_tools.report.page import explain_status
from brats_fl_tools.report.participants import missing_updates, number_of_rounds, rounds_done, train_rounds
from brats_fl_tools.report.run_folder import RoundRecord, RunFolder
from brats_fl_tools.report.timing import own_seconds
from brats_fl_tools.watch.sources import Seen

SLOW_RATIO: Final = 1.5
"""A hospital is slow whose rounds take longer than this many times the others'."""

ROUNDS_OF_PACE: Final = 5
"""Last rounds that a hospital's pace is taken of."""

MOST_REJECTED: Final = 20

State = Literal["answered", "working", "slow", "missing", "failed", "not connected", "done"]


@dataclass(frozen=True)
class Hospital:
    """A hospital now."""

    name: str
    state: State
    why: str
    """In words; empty where nothing is to be explained."""
    round: int | None
    """Last round that it answered."""
    dice: float | None
    """Mean Dice of the model that it was sent last, on its own validation cases."""
    loss: float | None
    seconds: float | None
    """Of its last round, by its own clock."""
    bytes_down: int
    bytes_up: int

    @property
    def needs_a_look(self) -> bool:
        """Whether somebody should do something about it."""
        return self.state in ("slow", "missing", "failed", "not connected")


@dataclass(frozen=True)
class Rejected:
    """An update that did not come into the model."""

    round: int
    site: str
    why: str


@dataclass(frozen=True)
class View:
    """A job now."""

    job: str
    mode: str
    state: str
    is_running: bool
    round: int
    """The one that goes on, from 0 as everywhere in the records; after the end the last."""
    rounds_done: int
    rounds: int | None
    """None where nobody said how many there will be."""
    answered: int
    """Hospitals that have answered in this round."""
    hospitals: tuple[Hospital, ...]
    dice: float | None
    """Mean over the hospitals of the last model that was rated."""
    seconds_a_round: float | None
    seconds_left: float | None
    rejected: tuple[Rejected, ...]
    """The last ones, latest first."""
    rejections: int
    """All of them."""
    trouble: str

    @property
    def bytes(self) -> int:
        """Both ways, all hospitals."""
        return sum(one.bytes_down + one.bytes_up for one in self.hospitals)


def view_of(seen: Seen, now: datetime) -> View:
    """What to show.

    Args:
        seen: The last look.
        now: With its time zone.
    """
    run = seen.run
    done = train_rounds(run)
    current = current_round(run) if seen.is_running else max(done, default=0)
    told = run.info.get("rounds")
    rounds = told if isinstance(told, int) else (number_of_rounds(run) if not seen.is_running else None)
    hospitals = tuple(_hospital(seen, site, current) for site in sorted(run.invited or run.sites, key=natural_key))
    missing = [update for update in missing_updates(run) if _is_over(seen, update.round, current)]
    pace = seconds_a_round(run, now if seen.is_running else None)
    left = None
    if seen.is_running and pace is not None and rounds is not None:
        left = max(0, rounds - current) * pace
    rated = [one.dice for one in hospitals if one.dice is not None]
    return View(
        job=str(run.info.get("job", run.name)),
        mode=str(run.info.get("mode", "simulator")),
        state=seen.state,
        is_running=seen.is_running,
        round=current,
        rounds_done=current if seen.is_running else rounds_done(run),
        rounds=rounds,
        answered=sum(record.is_ok for record in _of_round(run, current)),
        hospitals=hospitals,
        dice=fmean(rated) if rated else None,
        seconds_a_round=pace,
        seconds_left=left,
        rejected=tuple(
            Rejected(update.round, update.site, explain_status(update.status))
            for update in reversed(missing[-MOST_REJECTED:])
        ),
        rejections=len(missing),
        trouble=seen.trouble,
    )


def current_round(run: RunFolder) -> int:
    """The round that goes on, from 0: the last that has a record, or the next once that one has its mean."""
    last = max(train_rounds(run), default=int(run.info.get("options", {}).get("start_round", 0) or 0))
    return last + 1 if any(mean.round == last for mean in run.means) else last


def _is_over(seen: Seen, round_index: int, current: int) -> bool:
    return not seen.is_running or round_index < current or any(m.round == round_index for m in seen.run.means)


def _of_round(run: RunFolder, round_index: int) -> list[RoundRecord]:
    return [record for record in run.records if record.phase == "train" and record.round == round_index]


def _hospital(seen: Seen, site: str, current: int) -> Hospital:
    own = [record for record in seen.run.records if record.site == site]
    answers = [record for record in own if record.is_ok]
    rated = [record.metrics[KEY_METRIC] for record in answers if KEY_METRIC in record.metrics]
    losses = [record.loss for record in answers if record.loss is not None]
    trained = [record for record in answers if record.phase == "train"]
    state, why = _state(seen, site, own, current)
    return Hospital(
        name=site,
        state=state,
        why=why,
        round=trained[-1].round if trained else None,
        dice=rated[-1] if rated else None,
        loss=losses[-1] if losses else None,
        seconds=own_seconds(trained[-1]) if trained else None,
        bytes_down=sum(record.bytes_down for record in own),
        bytes_up=sum(record.bytes_up for record in own),
    )


def _state(seen: Seen, site: str, own: list[RoundRecord], current: int) -> tuple[State, str]:
    now = next((record for record in own if record.phase == "train" and record.round == current), None)
    if not seen.is_running:
        return "done", ""
    if seen.connected is not None and site not in seen.connected:
        return "not connected", "the server has no connection to it: look at its network, and whether it was started"
    if now is not None:
        return ("answered", "") if now.is_ok else ("failed", explain_status(now.status))
    before = [record for record in own if record.phase == "train" and record.round == current - 1]
    if current and not any(record.is_ok for record in before):
        answered = [record.round for record in own if record.phase == "train" and record.is_ok]
        why = f"no update since round {answered[-1]}" if answered else "no update yet"
        failed = next((explain_status(r.status) for r in before if r.status != "missing"), "")
        return "missing", f"{why}; {failed}" if failed else why
    return _pace(seen.run, site)


def _pace(run: RunFolder, site: str) -> tuple[State, str]:
    """Working, or slow beside the others."""
    paces = {}
    for one in run.sites:
        took = [own_seconds(r) for r in run.records if r.site == one and r.phase == "train" and r.is_ok]
        if took:
            paces[one] = median(took[-ROUNDS_OF_PACE:])
    others = [pace for one, pace in paces.items() if one != site]
    if site in paces and others and paces[site] > SLOW_RATIO * median(others):
        return "slow", f"{format_duration(paces[site])} a round, the others {format_duration(median(others))}"
    return "working", ""


def seconds_a_round(run: RunFolder, now: datetime | None) -> float | None:
    """Mean time of a round: of the part that goes on, by the clock; else by the slowest hospital's.

    Args:
        run: The run.
        now: None of a run that has ended.
    """
    finished = {mean.round for mean in run.means} or set(train_rounds(run))
    parts = run.info.get("parts") or ()
    first = parts[-1].get("first_round", 0) if parts else 0
    done = [index for index in finished if isinstance(first, int) and index >= first]
    if now is not None and parts and done:
        try:
            began = datetime.fromisoformat(str(parts[-1].get("started")))
            return max(0.0, (now - began).total_seconds()) / len(done)
        except (TypeError, ValueError):
            pass  # what a file says may be no time
    slowest = [max(own_seconds(record) for record in _of_round(run, index)) for index in train_rounds(run)]
    return fmean(slowest) if slowest else None
