"""A bundle's own inference in this process, on cases that the data gate judges before they are segmented."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from brats_fl.cases.datalists import Case, as_monai_item, scans_of
from brats_fl.constants import SPLITS
from brats_fl.errors import CaseError, ModelError
from brats_fl.failures import explain
from brats_fl.gate import RULES, Finding, errors_of, mark_accepted, read_acceptances
from brats_fl.gate.acceptance import Acceptance
from brats_fl.gate.lists import Entry, find_copies, find_repeats
from brats_fl.reading import Reader
from brats_fl.settings import SETTINGS_FILE, read_settings
from brats_fl.typed import shorten
from brats_fl_tools.check.verdict import check_case_safely
from brats_fl_tools.data.given_cases import GivenCases
from brats_fl_tools.model.ensemble import ensemble_parts, inference_files
from brats_fl_tools.model.trained import TrainedModel

if TYPE_CHECKING:
    from brats_fl.segmenting import SegmentingEvaluator

NOT_SETTINGS = ("imports", "bundle_root", "ckpt_dir", "output_dir", "dataset_dir", "load_pretrain")
"""Variables of the configuration that the command sets itself."""

READER = Reader(CaseError, "remove it and the mask, and segment the case again")

OF_EACH_MODEL = ("patch_size",)
"""Variables that each of several models has of its own."""

NO_VARIABLES = ("network", "handlers", "initialize", "run", "finalize")
"""Of the other keys those that are parts, and no variables."""


@dataclass
class Gatekeeper:
    """Judges case after case by its scans; what it found stays known."""

    cases: Mapping[str, Case]
    acceptances: Sequence[Acceptance]
    repeats: Sequence[Finding] = ()
    """Scans that are listed in more than one place."""
    findings: dict[str, list[Finding]] = field(default_factory=dict)
    looks: dict[tuple[str, str], Mapping[str, bytes]] = field(default_factory=dict)

    def judge(self, item: Mapping[str, Any]) -> str:
        """What the gate found in a case, as text to remember; ``recall`` reads it.

        Raises:
            CaseError: There is an error among it that nobody accepted.
        """
        case = self.cases[item["case"]]
        verdict = check_case_safely(case)
        self.looks["", case.case] = verdict.looks
        repeats = [*self.repeats, *find_copies(entries_of(self.cases[name] for _, name in self.looks), self.looks)]
        # A copy would count twice in training; its mask is right, and somebody should look whose scan it is.
        own = [replace(repeat, doubtful=True) for repeat in repeats if repeat.case == case.case]
        findings = mark_accepted([*verdict.findings, *own], self.acceptances)
        self.findings[case.case] = findings
        if errors := errors_of(findings):
            raise CaseError("; ".join(describe(finding, case) for finding in errors))
        return json.dumps([asdict(finding) for finding in findings])

    def recall(self, case: str, judgement: str) -> list[Finding]:
        """What the gate found in a case, now or, where that is all there is, when its mask was made."""
        if case in self.findings:
            return self.findings[case]
        place = f"the record of the mask of {case}"
        remembered = READER.typed(list[Finding], READER.parse(place, judgement or "[]"), place)
        return mark_accepted(remembered, self.acceptances)


def describe(finding: Finding, case: Case) -> str:
    """A finding of a case that is named before it: scan, rule, what was found, the file and the mend."""
    scan = f"{finding.scan}: " if finding.scan else ""
    file = scans_of(case).get(finding.scan, "")
    where = f" ({file})" if file and file.partition("#")[0] not in finding.found else ""
    return f"{scan}{finding.rule}: {finding.said}{where}; {RULES[finding.rule].mend}"


def make_gatekeeper(given: GivenCases) -> Gatekeeper:
    """A gatekeeper for the given cases; it looks at scans alone, whatever their labels are like.

    Raises:
        CaseError: Two cases have one name, which their masks would have, too.
    """
    cases = [replace(case, label=None) for split in SPLITS for case in given.datalist.split(split)]
    repeats = find_repeats(entries_of(cases))
    if namesakes := [str(finding) for finding in repeats if finding.rule == "G11-case-twice"]:
        raise CaseError("\n".join(namesakes))
    return Gatekeeper({case.case: case for case in cases}, read_acceptances(given.beside), repeats)


def entries_of(cases: Iterable[Case]) -> list[Entry]:
    """Cases as the gate's rules about lists take them: which split and site they are of does not matter here."""
    return [Entry("", SPLITS[-1], case) for case in cases]


def as_items(given: GivenCases, gatekeeper: Gatekeeper) -> list[dict[str, Any]]:
    """Items of the bundle's dataset, by name; those that cannot be used say why."""
    from brats_fl.cases.folders import FAULT

    items: Iterable[dict[str, Any]] = [
        *(as_monai_item(case) for case in gatekeeper.cases.values()),
        *({"case": case, FAULT: why} for case, why in given.faults),
    ]
    return sorted(items, key=lambda item: str(item["case"]))


def make_evaluator(
    models: Sequence[TrainedModel],
    items: Sequence[Mapping[str, Any]],
    out: Path,
    settings: Mapping[str, Any],
    of_engine: Mapping[str, str] = MappingProxyType({}),
) -> SegmentingEvaluator:
    """The evaluator of a bundle's inference, with the weights loaded.

    Args:
        models: Bundle, weights and profile of one; of several the mean of the probabilities is taken.
        items: The cases.
        out: Where masks go.
        settings: Variables of ``inference.json`` to set, such as ``mirror_axes``.
        of_engine: What the engine sets, see ``engine_settings``.

    Raises:
        ModelError: The bundle has no inference, no such variable, or a value that it cannot have.
    """
    from monai.bundle import ConfigParser

    from brats_fl.network.checkpoints import WeightsLoader

    model = models[0]
    logging.getLogger("brats_fl.segmenting").addHandler(logging.NullHandler())  # the command tells of each case itself
    # By name in the expressions: a path may hold what MONAI takes for a reference, as in lead@consortium.example.
    parser = ConfigParser(globals={"given_items": [dict(item) for item in items], "given_out": out})
    parser.read_config(inference_files(model))
    check_settings(settings, parser.get(), models)
    if len(models) > 1:
        parser.update(ensemble_parts(models, "inferer"))
    given = {"bundle_root": str(model.bundle), "output_dir": "$given_out", "load_pretrain": False}
    for key, value in {**given, **settings, **of_engine, "dataset#data": "$given_items"}.items():
        parser[key] = value
    try:
        evaluator: SegmentingEvaluator = parser.get_parsed_content("evaluator")
    except RuntimeError as error:  # MONAI's, about a part that could not be made
        raise ModelError(f"{model.bundle.name}: its inference cannot be made: {explain(error)}") from error
    WeightsLoader([one.weights for one in models], evaluator.network)(evaluator)
    return evaluator


def check_settings(settings: Mapping[str, Any], config: Mapping[str, Any], models: Sequence[TrainedModel]) -> None:
    """Raise ``ModelError`` for a variable that the inference does not have, or that several models each have, or a
    value against the rule that the bundle's table of settings has for it."""
    ours = (*NOT_SETTINGS, *NO_VARIABLES, *(OF_EACH_MODEL if len(models) > 1 else ()))
    known = [key for key, value in config.items() if key not in ours and not isinstance(value, dict)]
    for key in settings:
        if key not in known:
            raise ModelError(f"--set {key}: {models[0].bundle.name} has no such variable; there are {', '.join(known)}")
    rules = read_settings(
        models[0].bundle / "configs" / SETTINGS_FILE, {key: config[key] for key in known}, has_others=True
    )
    for key, value in settings.items():
        if key in rules and not rules[key].allows(value):
            raise ModelError(f"--set {key}: must be {rules[key].rule} (got {shorten(value)})")
