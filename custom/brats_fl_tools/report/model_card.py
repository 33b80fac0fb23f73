"""The model card of a run that no study judged, and what every card says; what a person must write stands empty."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

import numpy as np

from brats_fl.constants import REGIONS, SPLITS
from brats_fl_tools.pages.formats import NONE, REGION_NAMES, format_count, format_dice, format_mm
from brats_fl_tools.report.comparison import FEWEST_FOR_INTERVAL, bootstrap_interval
from brats_fl_tools.report.headline import describe_seen, describe_synthetic
from brats_fl_tools.report.metrics import COLUMNS, count_missed
from brats_fl_tools.report.participants import participants, rounds_done
from brats_fl_tools.report.run_folder import TEST_SPLIT, RunFolder

BY_A_PERSON: Final = "_to be written_"

CLAIM: Final = (
    ("Study design: goal, hypothesis", ""),
    ("Data sources, dates, consent and approval", ""),
    ("Eligibility of cases", ""),
    ("Preprocessing of the scans", "that of the bundle's configuration"),
    ("Who drew the reference, by which rules", ""),
    ("Partition of the data", "by patient into training, validation and testing, within each hospital"),
    ("Model, initialisation, training", "the bundle's network and recipe; {training}"),
    ("How the final model was chosen", "{chosen}"),
    (
        "Metrics, and how sure they are",
        "docs/metrics.md and docs/acceptance.md of brats-fl; 95 % intervals over {resampled}",
    ),
    ("Failures analysed", ""),
    ("Clinical meaning, generality, bias", ""),
    ("Registration, funding, where code and model are", ""),
)
"""Items of CLAIM in short, and what follows from any run of ours; Mongan et al. 2020, doi:10.1148/ryai.2020200029."""

LIMITS: Final = (
    "For research use only. Not a medical device, not for diagnosis or treatment.",
    "The figures hold for these hospitals, scanners and cases; their intervals speak of other patients of the same "
    "hospitals, not of other hospitals.",
    "Where people drew the reference, they differ among themselves.",
)

BY_DICE: Final = "by mean Dice on validation cases of the hospitals"

USE: Final = (
    f"- Intended use: research on federated learning; for any other use {BY_A_PERSON}",
    f"- Licence of the weights: {BY_A_PERSON}",
)
"""Lines of the head of every card."""


@dataclass(frozen=True)
class Tested:
    """Figures of a model on the test cases of its run."""

    cases: int
    dice: Mapping[str, tuple[float, tuple[float, float] | None]]
    """Region, or ``mean`` -> mean over cases and its 95 % interval; None with too few cases."""
    hd95_mm: Mapping[str, tuple[float, int]]
    """Region -> median over cases, and in how many it was missed or found where there is none."""


def why_untested(run: RunFolder, digest: str) -> str | None:
    """Why a run has no figures of a model on test cases; None where it has.

    Args:
        run: With its cases, where it has a table.
        digest: SHA-256 of the model's file.
    """
    if not run.scored(TEST_SPLIT):
        return "No test case was evaluated: `brats-fl evaluate BUNDLE --model RUN --sites SITES --out RUN` does that."
    evaluated = run.evaluation.get("model_sha256")
    if evaluated is None:
        return "A table of test cases is there, and no word on which model it is of."
    return None if evaluated == digest else f"The test cases were evaluated with another model, SHA-256 {evaluated}."


def figures_of(run: RunFolder) -> Tested:
    """Figures of the test cases of a run that has some."""
    results = run.scored(TEST_SPLIT)
    values = {name: np.array([one.value("dice", name) for one in results]) for name in COLUMNS}
    enough = len(results) >= FEWEST_FOR_INTERVAL
    return Tested(
        len(results),
        {name: (float(of.mean()), bootstrap_interval(of) if enough else None) for name, of in values.items()},
        {
            region: (median(one.value("hd95_mm", region) for one in results), count_missed(results, region))
            for region in REGIONS
        },
    )


def describe_run(run: RunFolder, digest: str, chosen: str = BY_DICE) -> str:
    """The card in Markdown of a model that no study judged.

    Args:
        run: The run that made it, with its cases where there is a table of them.
        digest: SHA-256 of the model's file.
        chosen: How the model was chosen among those of the rounds; empty where a person must tell.
    """
    info = run.info
    job = f"{info.get('job') or 'job not recorded'}, {format_count(rounds_done(run), 'round')}"
    head = [
        "# Model card\n",
        f"- Model: SHA-256 {digest}",
        f"- Bundle: {info.get('bundle') or 'not recorded'} ({info.get('profile') or 'profile not recorded'}), {job}",
        f"- Data split: SHA-256 {info.get('study_sha256') or 'not recorded'}",
        f"- Job: SHA-256 {info.get('content_hash') or 'not recorded'}",
        "- Verdict: none, no study judged the model",
        *USE,
    ]
    if synthetic := describe_synthetic(run):
        head.append(f"- {synthetic}")
    claim = describe_claim("the job has all settings", "cases", chosen)
    return "\n\n".join(("\n".join(head), _data(run), _figures(run, digest), describe_limits(), claim)) + "\n"


def describe_ensemble(digests: Sequence[str]) -> str:
    """The card of several models that are used as one, which nobody tested as one.

    Args:
        digests: SHA-256 of each model's file.
    """
    head = ["# Model card\n", f"- Model: mean probability of {len(digests)} models"]
    head += [f"  - SHA-256 {digest}" for digest in digests] + ["- Verdict: none, no study judged it", *USE]
    data = describe_table("Cases by hospital", "The runs of the models tell.", (), ())
    figures = describe_table("Figures", "The models were not tested as one.", (), ())
    claim = describe_claim("the models' jobs have all settings", "cases", "")
    return "\n\n".join(("\n".join(head), data, figures, describe_limits(), claim)) + "\n"


def _data(run: RunFolder) -> str:
    parts = {one.site: one.part.value for one in participants(run)}
    rows = [(site, *(run.counts.get(site, {}).get(split, NONE) for split in SPLITS), parts[site]) for site in run.sites]
    said = "" if run.counts else "How many cases they have is not in the run."
    return describe_table("Cases by hospital", said, ("hospital", *SPLITS, "part"), rows)


def _figures(run: RunFolder, digest: str) -> str:
    head = ("figure", "value", "interval")
    if why := why_untested(run, digest):
        return describe_table("Figures", why, head, [("mean Dice", "not tested", "")])
    found = figures_of(run)
    said = f"{format_count(found.cases, 'test case')} {describe_seen(run)}; 95 % intervals over cases."
    rows = []
    for name, (value, interval) in found.dice.items():
        sure = f"{interval[0]:.3f} to {interval[1]:.3f}" if interval else f"fewer than {FEWEST_FOR_INTERVAL} cases"
        rows.append((f"Dice, {REGION_NAMES[name]}" if name in REGIONS else "mean Dice", format_dice(value), sure))
    rows += [
        (f"HD95 in mm, median, {REGION_NAMES[region]}", format_mm(value), f"missed in {missed}")
        for region, (value, missed) in found.hd95_mm.items()
    ]
    return describe_table("Figures", said, head, rows)


def describe_table(title: str, said: str, head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A section of a card: a sentence, and a table where there are rows."""
    lines = [f"## {title}", *(["", said] if said else [])]
    if rows:
        lines += ["", *(f"| {' | '.join(map(str, row))} |" for row in (head, *rows))]
        lines.insert(-len(rows), "|" + "---|" * len(head))
    return "\n".join(lines)


def describe_limits() -> str:
    """The section on what the figures do not say."""
    return "\n".join(["## Limits", "", *(f"- {one}" for one in LIMITS)])


def describe_claim(training: str, resampled: str, chosen: str = BY_DICE) -> str:
    """The items of CLAIM.

    Args:
        training: Where its settings are.
        resampled: What the intervals are over.
        chosen: As for ``describe_run``.
    """
    known = {"training": training, "resampled": resampled, "chosen": chosen}
    rows = [(item, answer.format_map(known) or BY_A_PERSON) for item, answer in CLAIM]
    return describe_table("CLAIM (Mongan et al. 2020)", "", ("item", "answer"), rows)
