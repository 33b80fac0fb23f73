"""The model card of a federated run, from the study that judged it; what a person must write stands empty."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from brats_fl.constants import REGIONS
from brats_fl.files import write_whole
from brats_fl_tools.acceptance.comparing import DICE, METRICS
from brats_fl_tools.acceptance.content import Acceptance, Section
from brats_fl_tools.acceptance.evidence import READER
from brats_fl_tools.acceptance.page import format_figure, format_interval
from brats_fl_tools.pages.formats import NONE, REGION_NAMES, format_count
from brats_fl_tools.report.run_facts import EVALUATION_FACTS, read_facts
from brats_fl_tools.study.record import RunRecord
from brats_fl_tools.weights import MODEL_CARD

BY_A_PERSON: Final = "_to be written_"

CLAIM: Final = (
    ("Study design: goal, hypothesis", ""),
    ("Data sources, dates, consent and approval", ""),
    ("Eligibility of cases", ""),
    ("Preprocessing of the scans", "that of the bundle's configuration"),
    ("Who drew the reference, by which rules", ""),
    ("Partition of the data", "by patient into training, validation and testing, within each hospital"),
    ("Model, initialisation, training", "the bundle's network and recipe; the study file has all settings"),
    ("How the final model was chosen", "by mean Dice on validation cases of the hospitals"),
    (
        "Metrics, and how sure they are",
        "docs/metrics.md and docs/acceptance.md of brats-fl; 95 % intervals over patients",
    ),
    ("Failures analysed", ""),
    ("Clinical meaning, generality, bias", ""),
    ("Registration, funding, where code and model are", ""),
)
"""Items of CLAIM in short, and what follows from any study of ours; Mongan et al. 2020, doi:10.1148/ryai.2020200029."""

LIMITS: Final = (
    "For research use only. Not a medical device, not for diagnosis or treatment.",
    "The figures hold for these hospitals, scanners and cases; their intervals speak of other patients of the same "
    "hospitals, not of other hospitals.",
    "The reference was drawn by people, who differ among themselves.",
)


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
    parts = (_about(acceptance, section, run, digest), _data(section), _figures(section), _limits(), _claim())
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
        "- Intended use: research on federated learning; for any other use " + BY_A_PERSON,
    ]
    if acceptance.evidence.synthetic_cases:
        lines.append("- Synthetic cases are among those tested: the figures say nothing of patients.")
    return "\n".join(lines)


def _data(section: Section) -> str:
    rows = [
        f"| {one.site} | {' | '.join(NONE if count is None else str(count) for count in one.cases)} | {one.part} |"
        for one in section.members
    ]
    head = ["## Data", "", "| hospital | training | validation | testing | part |", "|---|---|---|---|---|"]
    return "\n".join([*head, *rows])


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


def _limits() -> str:
    return "\n".join(["## Limits", "", *(f"- {one}" for one in LIMITS)])


def _claim() -> str:
    rows = [f"| {item} | {answer or BY_A_PERSON} |" for item, answer in CLAIM]
    return "\n".join(["## CLAIM (Mongan et al. 2020)", "", "| item | answer |", "|---|---|", *rows])
