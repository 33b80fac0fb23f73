"""Who took part in a run: who was invited, who trained in which rounds, and whose cases were evaluated only."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from brats_fl.typed import typed
from brats_fl_tools.pages.formats import format_count, format_ranges, list_words, natural_key
from brats_fl_tools.report.run_folder import TEST_SPLIT, RoundRecord, RunFolder
from brats_fl_tools.withdrawn import Withdrawal


class Part(Enum):
    """What a hospital was to a run, in the words of the page."""

    TRAINED = "trained"
    FAILED = "never sent an update that could be used"
    ABSENT = "invited, never answered"
    LEFT_OUT = "left out of the training"
    EVALUATED = "not invited, evaluated only"


@dataclass(frozen=True)
class Participant:
    """A hospital and its part in a run."""

    site: str
    part: Part
    invited: bool
    rounds: tuple[int, ...]
    """Whose mean holds an update of it, ascending."""
    test_cases: int
    """Of it in the table of cases, those without a reference included."""


@dataclass(frozen=True)
class MissingUpdate:
    """A round for which an invited site sent nothing that could be used."""

    phase: str
    round: int
    site: str
    status: str


def participants(run: RunFolder) -> tuple[Participant, ...]:
    """Every hospital that a run knows of, in natural order."""
    invited = set(invited_sites(run))
    return tuple(_participant(run, site, site in invited) for site in run.sites)


def _participant(run: RunFolder, site: str, invited: bool) -> Participant:
    records = [record for record in run.records if record.site == site]
    trained = {record.round for record in records if record.phase == "train" and record.is_ok}
    rounds = tuple(sorted(trained - set(failed_rounds(run))))
    test_cases = sum(result.site == site and result.split == TEST_SPLIT for result in run.results)
    if rounds:
        part = Part.TRAINED
    elif invited:
        part = Part.FAILED if any(record.status != "missing" for record in records) else Part.ABSENT
    else:
        part = Part.LEFT_OUT if site in run.left_out else Part.EVALUATED
    return Participant(site, part, invited, rounds, test_cases)


def invited_sites(run: RunFolder) -> tuple[str, ...]:
    """The job's own list and who withdrew; of a run without it, who is in ``run.json`` or in a record of a round."""
    if run.invited is not None:
        return tuple(sorted({*run.invited, *withdrawn_sites(run)}, key=natural_key))
    named = {record.site for record in run.records if record.phase == "train"}
    return tuple(site for site in run.sites if site in named or site in run.counts)


def withdrawn_sites(run: RunFolder) -> dict[str, int]:
    """Hospital that withdrew, and whose rounds before that stay -> the first round that was done without it."""
    told = typed(tuple[Withdrawal, ...], run.info.get("withdrawals", []))
    trained = {record.site for record in run.records if record.phase == "train"}
    return {one.hospital: one.first_round for one in told if one.hospital in trained and not one.of_patients}


def train_rounds(run: RunFolder) -> tuple[int, ...]:
    """Numbers of the rounds that have a record, ascending."""
    return tuple(sorted({record.round for record in run.records if record.phase == "train"}))


def failed_rounds(run: RunFolder) -> tuple[int, ...]:
    """Rounds that left the model as it was, ascending: too few updates could be used."""
    return tuple(mean.round for mean in run.means if mean.status != "ok")


def shares_of(run: RunFolder, site: str) -> tuple[float, float] | None:
    """Smallest and largest share of a site's update in the mean of a round; None where it had none."""
    shares = [mean.shares[site] for mean in run.means if site in mean.shares]
    return (min(shares), max(shares)) if shares else None


def missing_updates(run: RunFolder) -> tuple[MissingUpdate, ...]:
    """Every round and invited site whose update is not in the model, in order; ``missing`` without a record."""
    failed = {mean.round: mean.status for mean in run.means if mean.status != "ok"}
    trained = {(record.round, record.site): record for record in run.records if record.phase == "train"}
    withdrawn, found = withdrawn_sites(run), []
    for number in train_rounds(run):
        for site in (site for site in invited_sites(run) if number < withdrawn.get(site, number + 1)):
            record = trained.get((number, site), RoundRecord("train", number, site, "missing"))
            if not record.is_ok or number in failed:
                status = failed[number] if record.is_ok else record.status
                found.append(MissingUpdate("train", number, site, status))
    found += [
        MissingUpdate("final", record.round, record.site, record.status)
        for record in run.records
        if record.phase == "final" and not record.is_ok
    ]
    return tuple(found)


def number_of_rounds(run: RunFolder) -> int:
    """Rounds that were asked for, else those that have a record."""
    asked = run.info.get("rounds")
    return asked if isinstance(asked, int) else len(train_rounds(run))


def rounds_done(run: RunFolder) -> int:
    """Rounds that made the last model; of a run that was cut, as far as is known."""
    if run.is_finished:
        return number_of_rounds(run)
    done = run.info.get("rounds_done")
    return done if isinstance(done, int) else len(train_rounds(run))


def describe_state(run: RunFolder) -> str | None:
    """How far a run got that did not finish; None of one that did."""
    if run.is_finished:
        return None
    return f"{rounds_done(run)} of {number_of_rounds(run)} rounds were done"


def summarise_participation(run: RunFolder) -> str:
    """Who trained, over how many rounds, and who did not, in a few sentences."""
    parts = {part: [p for p in participants(run) if p.part is part] for part in Part}
    trained, count = parts[Part.TRAINED], rounds_done(run)
    text = f"{format_count(len(trained), 'hospital')} trained one model together over {format_count(count, 'round')}"
    if not run.is_finished:
        text += f" of {number_of_rounds(run)}, after which the run was cut"
    text += "."
    if failed := failed_rounds(run):
        rounds = f"{'Round' if len(failed) == 1 else 'Rounds'} {format_ranges(failed)}"
        text += f" {rounds} had too few updates and left the model as it was."
    for site, number in (withdrawn := withdrawn_sites(run)).items():
        text += f" {site} withdrew, and took no part from round {number} on."
    if some := [p.site for p in trained if len(p.rounds) < len(train_rounds(run)) and p.site not in withdrawn]:
        text += f" {list_words(some)} {'was' if len(some) == 1 else 'were'} not there in every round."
    for part, singular, plural in (
        (Part.ABSENT, "was invited and never answered", "were invited and never answered"),
        (Part.FAILED, "answered, but never with an update that could be used", None),
        (Part.LEFT_OUT, "was left out of the training", "were left out of the training"),
        (
            Part.EVALUATED,
            "did not train: its cases are evaluated only",
            "did not train: their cases are evaluated only",
        ),
    ):
        if sites := [p.site for p in parts[part]]:
            text += f" {list_words(sites)} {singular if len(sites) == 1 else plural or singular}."
    return text
