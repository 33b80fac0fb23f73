"""All that the acceptance report says, before it is a page or a file."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from brats_fl.errors import RunError
from brats_fl.scoring.calibration import Reliability
from brats_fl_tools.acceptance.accounts import Cost, Member, costs, members, read_folders
from brats_fl_tools.acceptance.comparing import (
    Comparison,
    Headline,
    Table,
    compare_all,
    count_tests,
    headline,
    models_of,
    own_tables,
)
from brats_fl_tools.acceptance.evidence import READER, Candidate, Evidence, gather_evidence
from brats_fl_tools.acceptance.gate import GateFindings, check_study
from brats_fl_tools.acceptance.hospitals import Contribution, Gain, contributions, gains, suspects
from brats_fl_tools.acceptance.judging import Judgement, Verdict, judge_thresholds, pass_verdict
from brats_fl_tools.acceptance.spoilt import Spoilt, find_spoilt
from brats_fl_tools.acceptance.statistics import Spread
from brats_fl_tools.acceptance.validation import validations
from brats_fl_tools.audit import summary as audits
from brats_fl_tools.pages.formats import natural_key
from brats_fl_tools.report.groups import Grouping, group_cases
from brats_fl_tools.report.groups import as_json as groups_as_json
from brats_fl_tools.report.reliability import pool_reliability
from brats_fl_tools.report.run_facts import EVALUATION_FACTS, read_facts
from brats_fl_tools.report.run_folder import RunFolder
from brats_fl_tools.stress.command import DEFAULT_FOLDER
from brats_fl_tools.stress.summary import SUMMARY_FILE, Summary, read_summary
from brats_fl_tools.study.expansion import FEDERATED
from brats_fl_tools.study.record import StudyRecord, read_record


@dataclass(frozen=True)
class Section:
    """A federated job on one partition."""

    candidate: Candidate
    headlines: Mapping[str, Headline]
    """``federated`` or a baseline -> its figures in short."""
    spreads: Mapping[str, Spread]
    """The same -> mean Dice of each seed."""
    tables: tuple[Table, ...]
    groupings: tuple[Grouping, ...]
    """Its test cases by size of the tumour and by institution."""
    reliability: Mapping[str, Mapping[str, Reliability]]
    """``federated`` or a baseline -> region -> voxels of all its runs by their probability, if they were counted."""
    comparisons: tuple[Comparison, ...]
    gains: tuple[Gain, ...]
    contributions: tuple[Contribution, ...]
    members: tuple[Member, ...]
    stress: Mapping[str, Summary]
    """Run -> what ``brats-fl stress`` wrote into it."""
    audits: Mapping[str, audits.Summary]
    """Run -> the figures that ``brats-fl audit --figures-to-run`` put into it."""

    @property
    def tests(self) -> int:
        """Tests that were corrected together."""
        return count_tests(self.comparisons)


@dataclass(frozen=True)
class Acceptance:
    """A study, judged."""

    record: StudyRecord
    evidence: Evidence
    verdict: Verdict
    sections: tuple[Section, ...]
    costs: tuple[Cost, ...]
    sound: tuple[str, ...]
    """Hospitals whose labels someone looked at and found sound: they are not named."""
    spoilt: tuple[Spoilt, ...]
    """Hospitals whose labels the study spoilt on purpose."""
    gate: tuple[GateFindings, ...]
    """Of each partition, where the data gate was run."""


def judge_study(
    out: Path,
    sound: Collection[str] = (),
    institutions: Mapping[str, str] = MappingProxyType({}),
    sites: Path | None = None,
    with_gate: bool = False,
) -> Acceptance:
    """Read a folder of a study and judge it.

    Args:
        out: The folder.
        sound: Hospitals whose labels were looked at and found sound.
        institutions: Case -> institution, where a case table names it.
        sites: Where the data lists are, if not where the runs say.
        with_gate: Whether the data gate reads the cases of the lists that are at hand.

    Raises:
        RunError: It has no federated run to report, a file of it is damaged, or ``sound`` names no hospital of it.
    """
    record = read_record(out)
    evidence = gather_evidence(out, record)
    known = sorted({site for one in evidence.candidates for site in one.federated.sites}, key=natural_key)
    if unknown := [site for site in sound if site not in known]:
        raise RunError(f"--sound {unknown[0]}: the study was tested at no such hospital; it has {', '.join(known)}")
    folders = {run.name: read_folders(out, run) for one in evidence.candidates for run in one.runs}
    judgements = [_judge(record, one, folders, sound) for one in evidence.candidates]
    left_out = [one.name for one in evidence.left_out]
    used = {run.name: run for one in evidence.candidates for run in one.runs}
    return Acceptance(
        record=record,
        evidence=evidence,
        verdict=pass_verdict(judgements, record.thresholds is not None, left_out),
        sections=tuple(_section(out, one, folders, institutions) for one in evidence.candidates),
        costs=costs(tuple(used.values()), folders),
        sound=tuple(sound),
        spoilt=find_spoilt(
            record.spoilt,
            [(one, judged.suspects) for one, judged in zip(evidence.candidates, judgements, strict=True)],
        ),
        gate=check_study(evidence.candidates, sites) if with_gate else (),
    )


def _judge(
    record: StudyRecord, candidate: Candidate, folders: Mapping[str, tuple[RunFolder, ...]], sound: Collection[str]
) -> Judgement:
    findings = judge_thresholds(record.thresholds.asked, candidate) if record.thresholds else ()
    validated = validations([(run.seed, folders[run.name][0]) for run in candidate.own_runs])
    named = tuple(one for one in suspects(candidate, validated) if one.site not in sound)
    return Judgement(candidate.label, candidate.name, findings, named)


def _section(
    out: Path,
    candidate: Candidate,
    folders: Mapping[str, tuple[RunFolder, ...]],
    institutions: Mapping[str, str],
) -> Section:
    return Section(
        candidate=candidate,
        headlines={kind: headline(figures) for kind, figures in models_of(candidate).items()},
        spreads={kind: Spread(tuple(seeds.values())) for kind, seeds in candidate.by_seed.items()},
        tables=own_tables(candidate.federated),
        groupings=group_cases(candidate.federated.averaged, institutions),
        reliability=_read_reliability(out, candidate),
        comparisons=compare_all(candidate),
        gains=gains(candidate),
        contributions=contributions(candidate),
        members=members(candidate, folders),
        stress=_read_stress(out, candidate),
        audits=_read_audits(out, candidate),
    )


def _read_reliability(out: Path, candidate: Candidate) -> dict[str, dict[str, Reliability]]:
    paths: dict[str, list[Path]] = {}
    for run in candidate.runs:
        paths.setdefault(run.kind, []).append(out / run.evaluation)
    found = {
        kind: pool_reliability((path, read_facts(READER, path, EVALUATION_FACTS)) for path in of_kind)
        for kind, of_kind in paths.items()
    }
    return {kind: pooled for kind, pooled in found.items() if pooled}


def _read_stress(out: Path, candidate: Candidate) -> dict[str, Summary]:
    paths = {run.name: out / run.folder / DEFAULT_FOLDER / SUMMARY_FILE for run in candidate.own_runs}
    return {name: read_summary(path) for name, path in paths.items() if path.is_file()}


def _read_audits(out: Path, candidate: Candidate) -> dict[str, audits.Summary]:
    paths = {run.name: out / run.folder / audits.SUMMARY_FILE for run in candidate.own_runs}
    return {name: audits.read_summary(path) for name, path in paths.items() if path.is_file()}


def as_json(acceptance: Acceptance) -> dict[str, Any]:
    """Content of ``acceptance.json``."""
    record, verdict = acceptance.record, acceptance.verdict
    return {
        "study": {
            "name": record.name,
            "sha256": record.sha256,
            "started": record.started,
            "versions": dict(record.versions),
            "commit": record.commit,
        },
        "thresholds": asdict(record.thresholds) if record.thresholds else None,
        "verdict": verdict.word,
        "why": list(verdict.why),
        "named_hospitals": sorted({one.site for judged in verdict.judgements for one in judged.suspects}),
        "labels_found_sound": list(acceptance.sound),
        "labels_spoilt_on_purpose": [asdict(one) for one in acceptance.spoilt],
        "left_out": [asdict(one) for one in acceptance.evidence.left_out],
        "synthetic_cases": acceptance.evidence.synthetic_cases,
        "judgements": [
            {
                "job": one.job,
                "name": one.name,
                "verdict": one.word if record.thresholds else None,
                "thresholds": [{**asdict(finding), "state": finding.state} for finding in one.findings],
                "named_hospitals": [asdict(suspect) for suspect in one.suspects],
            }
            for one in verdict.judgements
        ],
        "jobs": [_section_as_json(one) for one in acceptance.sections],
        "costs": [asdict(one) for one in acceptance.costs],
        "gate": [asdict(one) for one in acceptance.gate],
    }


def _section_as_json(section: Section) -> dict[str, Any]:
    candidate = section.candidate
    bins = {
        kind: {region: one.as_table() for region, one in pooled.items()} for kind, pooled in section.reliability.items()
    }
    return {
        "job": candidate.label,
        "partition": candidate.partition,
        "bundle": candidate.bundle,
        "runs": [run.name for run in candidate.runs],
        "headlines": {kind: asdict(one) for kind, one in section.headlines.items()},
        "seeds": {
            kind: {"mean": one.mean, "sd": one.sd, "values": one.values} for kind, one in section.spreads.items()
        },
        "figures": {table.metric.name: _table_as_json(table) for table in section.tables},
        **groups_as_json(section.groupings),
        "reliability": bins.pop(FEDERATED, {}),
        "reliability_of_baselines": bins,
        "against": {
            one.baseline: {
                "cases": one.cases,
                "only_one": one.only_one,
                **{table.metric.name: _table_as_json(table) for table in one.tables},
            }
            for one in section.comparisons
        },
        "gains": {one.site: asdict(one.difference) for one in section.gains},
        "contributions": {one.site: asdict(one.difference) for one in section.contributions},
        "members": [asdict(one) for one in section.members],
        "audits": {
            run: {"inversion": asdict(one.inversion), "membership": one.membership and asdict(one.membership)}
            for run, one in section.audits.items()
        },
    }


def _table_as_json(table: Table) -> dict[str, Any]:
    return {row.label: {column: asdict(cell) for column, cell in row.cells.items()} for row in table.rows}
