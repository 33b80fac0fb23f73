"""The model card of a federated run, from the study that judged it; what a person must write stands empty."""

from __future__ import annotations

from pathlib import Path

from brats_fl.constants import REGIONS, SPLITS
from brats_fl.files import write_whole
from brats_fl_tools.acceptance.comparing import DICE, METRICS
from brats_fl_tools.acceptance.content import Acceptance, Section
from brats_fl_tools.acceptance.evidence import READER
from brats_fl_tools.acceptance.page import format_figure, format_interval
from brats_fl_tools.acceptance.spoilt import describe as describe_spoilt
from brats_fl_tools.pages.formats import NONE, REGION_NAMES, format_count
from brats_fl_tools.report.model_card import USE, describe_claim, describe_limits, describe_table
from brats_fl_tools.report.run_facts import EVALUATION_FACTS, read_facts
from brats_fl_tools.study.record import RunRecord
from brats_fl_tools.weights import MODEL_CARD


def write_cards(out: Path, acceptance: Acceptance) -> None:
    """Write ``model_card.md`` into every federated run of a study; ``brats-fl export`` takes it along.

    Args:
        out: Folder of the study.
        acceptance: What was found.
    """
    for section in acceptance.sections:
        for run in section.candidate.own_runs:
            facts = read_facts(READER, out / run.evaluation, EVALUATION_FACTS)
            text = describe_model(acceptance, section, run, str(facts.get("model_sha256") or "not recorded"))
            write_whole(out / run.folder / MODEL_CARD, text)


def describe_model(acceptance: Acceptance, section: Section, run: RunRecord, digest: str) -> str:
    """The card in Markdown.

    Args:
        acceptance: The study, judged.
        section: The run's job.
        run: The run that made the model.
        digest: SHA-256 of the model that was tested.
    """
    claim = describe_claim("the study file has all settings", "patients")
    parts = (_about(acceptance, section, run, digest), _data(section), _figures(section), describe_limits(), claim)
    return "\n\n".join(parts) + "\n"


def _about(acceptance: Acceptance, section: Section, run: RunRecord, digest: str) -> str:
    record = acceptance.record
    lines = [
        f"# {section.candidate.name}: model card\n",
        f"- Model: SHA-256 {digest}",
        f"- Bundle: {run.bundle} ({run.profile}), {format_count(run.rounds, 'round')}, seed {run.seed}",
        f"- Study: {record.name}, its file's SHA-256 {record.sha256}",
        f"- Thresholds: SHA-256 {record.thresholds.sha256 if record.thresholds else 'none'}",
        f"- Verdict on the study: {acceptance.verdict.word or 'none'}",
        *(f"  - {sentence}" for sentence in acceptance.verdict.why),
        *USE,
    ]
    lines += [f"- {describe_spoilt(one)}" for one in acceptance.spoilt if one.partition == run.partition]
    if acceptance.evidence.synthetic_cases:
        lines.append("- Synthetic cases are among those tested: the figures say nothing of patients.")
    return "\n".join(lines)


def _data(section: Section) -> str:
    rows = [(one.site, *(NONE if count is None else count for count in one.cases), one.part) for one in section.members]
    return describe_table("Cases by hospital", "", ("hospital", *SPLITS, "part"), rows)


def _figures(section: Section) -> str:
    found = section.headlines["federated"]
    seeds = format_count(len(section.spreads["federated"].values), "training")
    lines = [
        "## Figures",
        "",
        f"{format_count(found.dice.cases, 'test case')} of {format_count(found.dice.patients, 'patient')}, each with "
        f"the mean over {seeds}; 95 % intervals over patients.",
        "",
        "| figure | value | interval |",
        "|---|---|---|",
        f"| mean Dice | {format_figure(found.dice.value, DICE)} | {format_interval(found.dice)} |",
        f"| lowest hospital, {found.worst_site} | {format_figure(found.worst.value, DICE)} | "
        f"{format_interval(found.worst)} |",
    ]
    for table, metric in zip(section.tables[:2], METRICS[:2], strict=True):
        cells = table.rows[0].cells
        lines += [
            f"| {metric.title}, {REGION_NAMES[region]} | {format_figure(cells[region].here.value, metric)} | "
            f"{format_interval(cells[region].here, metric)} |"
            for region in REGIONS
        ]
    return "\n".join(lines)
