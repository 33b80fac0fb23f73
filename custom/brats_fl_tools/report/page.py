"""The report's page: everything worked out here, so that the template only places it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from brats_fl.constants import MISSED_HD95_MM, REGIONS
from brats_fl.files import CASE_TABLE_FILE
from brats_fl_tools.pages import formats
from brats_fl_tools.pages.formats import REGION_NAMES
from brats_fl_tools.pages.pictures import AGREEMENT_COLOURS, AGREEMENT_MEANINGS
from brats_fl_tools.pages.templates import page_environment
from brats_fl_tools.report.comparison import FEWEST_FOR_INTERVAL, Comparison
from brats_fl_tools.report.evaluated_model import FINAL, name_evaluated_model
from brats_fl_tools.report.facts import count_cases, list_details, list_facts, written_by
from brats_fl_tools.report.figures import case_strips, cost_diagrams, learning_curves
from brats_fl_tools.report.groups import SIZE_LIMITS_ML, group_cases
from brats_fl_tools.report.headline import list_warnings, say_why_no_rank, summarise_in_words
from brats_fl_tools.report.methods import write_methods
from brats_fl_tools.report.metrics import COLUMNS, METRICS, Reported, Scores, other_splits
from brats_fl_tools.report.overlays import draw_overlays
from brats_fl_tools.report.participants import (
    missing_updates,
    participants,
    shares_of,
    summarise_participation,
    train_rounds,
)
from brats_fl_tools.report.privacy import spent_by_hospital
from brats_fl_tools.report.ranking import FEWEST_FOR_RANK
from brats_fl_tools.report.reliability import draw_reliability, pool_reliability
from brats_fl_tools.report.run_folder import RunFolder
from brats_fl_tools.report.timing import WORK, own_seconds, round_times
from brats_fl_tools.report.viewer import Viewer, Wanted, build_viewer
from brats_fl_tools.runs.folder import EVALUATION_FILE

METRIC_NAMES = {"dice": "Dice", "hd95_mm": "HD95 in mm"}

STATUS_MEANINGS = {
    "missing": "no answer in time",
    "CASE_ERROR": "a scan or label could not be used",
    "DATALIST_ERROR": "the data list could not be used",
    "MODEL_ERROR": "the weights did not fit the network or were not finite",
    "LATE": "the update came when its round was over",
    "TRAINER_DIED": "the site's training process died, perhaps for lack of memory",
    "OUT_OF_MEMORY": "memory ran out at the site",
    "DISK_FULL": "the site's disk is full",
    "CACHE_ERROR": "the site's cache of cases could not be used",
    "FOLDER_ERROR": "a folder of the site could not be written to",
    "KIT_ERROR": "the site's kit is set up wrongly",
    "PRIVACY_ERROR": "a privacy setting of the site is missing or too weak: nothing was sent",
    "LEDGER_ERROR": "a record of rounds could not be read, or was changed",
    "PRIVACY_BUDGET": "the hospital's privacy budget does not allow it, or could not be read: nothing was computed",
    "EGRESS_REFUSED": "the hospital's contract on what leaves does not let it out",
    "MASKING_ERROR": "secure aggregation could not go on with the site: no update was shown",
    "NOT_UNMASKED": "the masks could not be taken off the sum: the model stayed as it was, and no update was shown",
    "TOO_FEW_CASES": "the site has fewer cases than its own rule asks for",
    "NO_LOCAL_MODEL": "the hospital has no model of its own of the study",
    "NOT_SHARED": "the hospital keeps it to itself, by its own rules or the algorithm's",
    "BAD_MODEL": "the model that the hospital sent was refused by the server",
    "BAD_RESULT": "what the hospital sent was refused by the server",
    "SITE_NAME_ERROR": "the site's name cannot be used",
    "UNKNOWN_ERROR": "the site's code for it is none of ours",
    "STATISTICS_ERROR": "what the site released is no statistics",
    "NOT_APPROVED": "the hospital has not approved the job",
    "CODE_MISMATCH": "another version of the software is installed at the site",
    "EXECUTION_EXCEPTION": "an error in the site's training",
    "JOB_ERROR": "the job's settings could not be used",
    "BAD_UPDATE": "the update was refused by the server",
    "RUN_ERROR": "a process of the run failed",
    "TOO_FEW_UPDATES": "too few updates of the round could be used: the model stayed as it was",
    "ERROR": "an error that the site does not explain outside",
}
"""What a status says to a reader who has not written the code; others are shown as they are."""


@dataclass(frozen=True)
class Page:
    """The page's text, and a line on everything that was left out."""

    html: str
    notes: tuple[str, ...]
    in_3d: str | None = None
    """The same page with the cases in 3-D; None where nobody asked for it, or no case can be shown."""


def render_page(
    run: RunFolder,
    scores: Scores,
    comparisons: Sequence[Comparison],
    sites: Path | None = None,
    institutions: Mapping[str, str] = MappingProxyType({}),
    wanted: Wanted | None = None,
) -> Page:
    """Page of a run, or of an evaluation alone: one HTML text that needs no other file.

    Args:
        run: The run.
        scores: Figures of its split.
        comparisons: The run against others, in the order of the tables.
        sites: Where the data lists are, if not where the run says.
        institutions: Case -> institution, where a case table names it.
        wanted: For the page with cases in 3-D.
    """
    overlays = draw_overlays(run, sites)
    viewer = build_viewer(wanted, {"": run}, sites) if wanted else None
    return as_page(
        "page.html",
        overlays.notes,
        viewer,
        **_what_was_run(run, scores),
        scores=scores,
        site_mean=scores.site_mean("dice"),
        site_sd=scores.site_sd(),
        hospitals_scored=sum(summary.cases > 0 for summary in scores.sites.values()),
        comparisons=comparisons,
        overlays=overlays,
        facts=list_facts(run, name_evaluated_model(run), scores.overall.cases),
        summary=summarise_in_words(run, scores),
        cases=run.scored(run.split),
        unscored=[result for result in run.results if result.split == run.split and not result.is_scored],
        other_splits=other_splits(run),
        groupings=group_cases(run.scored(run.split), institutions),
        size_limits_ml=[f"{limit:g}" for limit in SIZE_LIMITS_ML],
        strips=case_strips(run),
        reliability=draw_reliability("reliability", pool_reliability([(run.path / EVALUATION_FILE, run.evaluation)])),
        agreement_colours={name: "#{:02x}{:02x}{:02x}".format(*rgb) for name, rgb in AGREEMENT_COLOURS.items()},
        agreement_meanings=AGREEMENT_MEANINGS,
        metrics=METRICS,
        metric_names=METRIC_NAMES,
        fewest_for_interval=FEWEST_FOR_INTERVAL,
    )


def as_page(template: str, notes: Iterable[str], viewer: Viewer | None, **content: Any) -> Page:
    """The page of a template and its content, and where a viewer has a case to show, the same with it."""
    page = page_environment().get_template(template)
    in_3d = page.render(**content, viewer=viewer) if viewer and viewer.cases else None
    return Page(page.render(**content, viewer=None), (*notes, *(viewer.notes if viewer else ())), in_3d)


def render_reported(run: RunFolder, reported: Reported) -> Page:
    """Page of a run whose tables of cases stayed at the hospitals."""
    html = (
        page_environment()
        .get_template("page.html")
        .render(
            **_what_was_run(run, None),
            scores=None,
            comparisons=(),
            facts=list_facts(run, FINAL, None),
            reported=reported,
            participation=summarise_participation(run),
            viewer=None,
        )
    )
    note = (
        f"no {CASE_TABLE_FILE} there: the report shows what hospitals reported on their validation cases; "
        "`brats-fl evaluate BUNDLE --model M --sites SITES --out RUN --masks` makes it one of test cases, with pictures"
    )
    return Page(html, (note,))


def _what_was_run(run: RunFolder, scores: Scores | None) -> dict[str, Any]:
    """What the page says of any run."""
    return {
        "run": run,
        "title": str(run.info.get("job") or run.evaluation.get("bundle") or run.name),
        "version": written_by(run),
        "details": list_details(run),
        "site_cases": count_cases(run),
        "curves": learning_curves(run),
        "costs": cost_diagrams(run),
        "cost_rows": list_costs(run),
        "cost_totals": sum_costs(run),
        "warnings": list_warnings(run),
        "methods": write_methods(run, scores),
        "participants": list_participants(run),
        "missing": list_missing(run),
        "spent": spent_by_hospital(run),
        "with_shares": any(mean.shares for mean in run.means),
        "why_no_rank": say_why_no_rank(),
        "rounds_recorded": len(train_rounds(run)),
        "regions": REGIONS,
        "columns": COLUMNS,
        "columns_of": {"dice": COLUMNS, "hd95_mm": REGIONS},
        "fewest_for_rank": FEWEST_FOR_RANK,
        "region_names": REGION_NAMES,
        "missed_hd95_mm": MISSED_HD95_MM,
    }


def list_participants(run: RunFolder) -> list[tuple[str, str, str, str, int]]:
    """Hospital, what it was to the run, the rounds and its share in their means, its test cases in the table."""
    return [
        (p.site, p.part.value, formats.format_ranges(p.rounds), _write_shares(run, p.site), p.test_cases)
        for p in participants(run)
    ]


def _write_shares(run: RunFolder, site: str) -> str:
    """Such as ``12 to 15 %``."""
    shares = shares_of(run, site)
    if shares is None:
        return "none"
    low, high = (f"{100 * share:.0f}" for share in shares)
    return f"{low} %" if low == high else f"{low} to {high} %"


@dataclass(frozen=True)
class MissingRow:
    """A hospital's part in the rounds."""

    site: str
    updates: int
    rounds: str
    reasons: str


def list_missing(run: RunFolder) -> list[MissingRow]:
    """One row for each hospital that missed a round or the final evaluation."""
    updates = {one.site: len(one.rounds) for one in participants(run)}
    rows = []
    for site in run.sites:
        found = [update for update in missing_updates(run) if update.site == site]
        if not found:
            continue
        rounds = formats.format_ranges(update.round for update in found if update.phase == "train")
        final = ["final evaluation"] if any(update.phase == "final" for update in found) else []
        statuses = dict.fromkeys(update.status for update in found)
        rows.append(
            MissingRow(
                site=site,
                updates=updates[site],
                rounds=", ".join([rounds] * bool(rounds) + final),
                reasons="; ".join(explain_status(status) for status in statuses),
            )
        )
    return rows


def explain_status(status: str) -> str:
    """A code with what it means, where that is known."""
    meaning = STATUS_MEANINGS.get(status)
    return f"{status} ({meaning})" if meaning else status


@dataclass(frozen=True)
class CostRow:
    """What one round of training took."""

    round: int
    sites: int
    """Sites that answered."""
    slowest_seconds: float
    bytes_down: int
    bytes_up: int


def list_costs(run: RunFolder) -> list[CostRow]:
    """What each round of training took."""
    rows = []
    for number in train_rounds(run):
        records = [record for record in run.records if record.phase == "train" and record.round == number]
        done = [record for record in records if record.is_ok]
        rows.append(
            CostRow(
                round=number,
                sites=len(done),
                slowest_seconds=max((own_seconds(record) for record in done), default=0.0),
                bytes_down=sum(record.bytes_down for record in records),
                bytes_up=sum(record.bytes_up for record in records),
            )
        )
    return rows


def sum_costs(run: RunFolder) -> list[tuple[str, str]]:
    """Name and value of what all rounds took together, and how the hospitals' time was spent."""
    rows, times = list_costs(run), round_times(run)
    slowest = sum(row.slowest_seconds for row in rows)
    spent = {part: sum(getattr(time, part) for time in times) for part in WORK}
    whole = sum(spent.values())
    totals = []
    if whole:
        totals.append(("Slowest hospital of each round, added up", formats.format_duration(slowest)))
        totals += [(f"Share of the hospitals' time: {WORK[part]}", f"{spent[part] / whole:.0%}") for part in WORK]
    moved = (("Sent to the hospitals", "bytes_down"), ("Sent by the hospitals", "bytes_up"))
    totals += [(name, f"{sum(getattr(row, field) for row in rows) / 1e6:,.1f} MB") for name, field in moved]
    return totals
