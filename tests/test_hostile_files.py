"""Whatever a file holds, who reads it gets values of their types, or one of our errors that names the file.

A few examples a reader in every run; ``make fuzz`` makes 5,000.
"""

from __future__ import annotations

import ast
import csv
import io
import json
import random
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from tests.hostile import (
    Make,
    made_by,
    odd_bytes,
    odd_content,
    odd_csv,
    odd_json,
    odd_lines,
    odd_toml,
    odd_yaml,
    one_of,
    toml_file,
)
from tests.run_folders import SITES, train, write_run
from tests.study_files import write_sites
from tests.study_folders import write_study_folder
from tests.voxel_bundle import make_voxel_bundle

import brats_fl
import brats_fl_tools
from brats_fl.approval import Approval, read_approvals
from brats_fl.bundle import profiles_of
from brats_fl.cases.cache_folder import read_strings
from brats_fl.cases.datalists import as_monai_item, parse_datalist, read_datalist, write_datalist
from brats_fl.cases.msd import read_volume_order
from brats_fl.cases.nnunet import read_cases
from brats_fl.constants import MODALITIES, REGIONS
from brats_fl.digests import canonical
from brats_fl.errors import BratsFLError
from brats_fl.gate import Finding
from brats_fl.gate.acceptance import Acceptance, mark_accepted, read_acceptances
from brats_fl.kept_updates import read_kept
from brats_fl.ledger import Line, Receipt, Update, as_content, read_ledger
from brats_fl.network.checkpoints import read_state
from brats_fl.own_ledger import read_receipts
from brats_fl.privacy.accounting import NoisedSteps
from brats_fl.privacy.budget import Budget, Spending, read_budget, read_spent, total_epsilon
from brats_fl.round_records import as_lines, read_records
from brats_fl.scoring.mask_records import Maker, MaskRecord, read_record
from brats_fl.settings import read_settings
from brats_fl.sharing.case_features import FEATURES
from brats_fl.sharing.cross_site import (
    RULES_FILE,
    Cell,
    CrossSite,
    Row,
    Scores,
    as_json,
    read_cross_site,
    read_rules,
)
from brats_fl.sharing.egress import Contract, Sent, read_contract, read_log, why_refused
from brats_fl.sharing.site_statistics import Release, read_releases
from brats_fl.site_state import read_own, write_own
from brats_fl_tools.acceptance.content import as_json as acceptance_as_json
from brats_fl_tools.acceptance.content import judge_study
from brats_fl_tools.acceptance.page import render_acceptance
from brats_fl_tools.audit.canaries import read_key
from brats_fl_tools.audit.figures import sum_up
from brats_fl_tools.audit.membership import CaseLoss, measure
from brats_fl_tools.audit.summary import STATES, Attack, Inversion
from brats_fl_tools.audit.summary import Summary as AuditSummary
from brats_fl_tools.audit.summary import read_summary as read_audit
from brats_fl_tools.data.case_table import read_case_table, write_case_table
from brats_fl_tools.data.folder_mapping import find_mapped_cases, read_mapping
from brats_fl_tools.data.institutions import read_origins
from brats_fl_tools.jobs.assembly import JobOptions, build_job, configure
from brats_fl_tools.jobs.built import describe_job
from brats_fl_tools.jobs.evaluated import read_trained
from brats_fl_tools.jobs.options import parse_values
from brats_fl_tools.jobs.source import CLIENT_CONFIG, SERVER_CONFIG, read_object, read_source
from brats_fl_tools.jobs.timeouts import limits_from
from brats_fl_tools.kit.certificates import check_certificates
from brats_fl_tools.kit.checks import check_not_running, check_rules
from brats_fl_tools.kit.egress import counts
from brats_fl_tools.kit.kits import Kit, read_kit, read_project
from brats_fl_tools.kit.machine import LIGHT_NEEDS, read_facts, read_stated_job
from brats_fl_tools.kit.site_files import site_files, write_site_files
from brats_fl_tools.ledger.chain import broken_links, broken_order
from brats_fl_tools.ledger.command import describe
from brats_fl_tools.ledger.receipts import compare_with_own, wrong_receipts, wrong_seal
from brats_fl_tools.ledger.run_files import wrong_files
from brats_fl_tools.model.documents import read_documents
from brats_fl_tools.model.ensemble import read_exported
from brats_fl_tools.model.exported import EXPORTS_FILE, read_exports
from brats_fl_tools.model.segmentation import Gatekeeper
from brats_fl_tools.model.trained import profile_in_run, tuned_settings
from brats_fl_tools.own_folders import is_ours
from brats_fl_tools.partition.manifest import read_manifest
from brats_fl_tools.partition.plan import Options, Strategy
from brats_fl_tools.report.case_results import read_evaluation
from brats_fl_tools.report.cross_site_page import count_cases, list_tables
from brats_fl_tools.report.facts import list_details, list_facts
from brats_fl_tools.report.methods import write_methods
from brats_fl_tools.report.metrics import build_metrics, score
from brats_fl_tools.report.run_folder import read_run
from brats_fl_tools.report.statistics_page import ALL, read_statistics
from brats_fl_tools.repository import JOBS, POC_WORKSPACE
from brats_fl_tools.runs.collect import count_parameters, rounds_done
from brats_fl_tools.runs.folder import invited_sites
from brats_fl_tools.runs.folder import read_state as read_run_state
from brats_fl_tools.runs.lists import SEEN_FILE, describe_lists, find_seen
from brats_fl_tools.runs.poc import read_poc
from brats_fl_tools.runs.progress import describe_record
from brats_fl_tools.runs.submission import Part, Submission, read_submission
from brats_fl_tools.stress.plan import make_plan
from brats_fl_tools.stress.records import CaseRecord, Score
from brats_fl_tools.stress.records import read_record as read_stress_record
from brats_fl_tools.stress.summary import Scored, Summary, read_summary, summarise
from brats_fl_tools.study.comparable import differences, read_basis
from brats_fl_tools.study.definition import read_study
from brats_fl_tools.study.expansion import expand
from brats_fl_tools.study.progress import describe_left, describe_run
from brats_fl_tools.study.record import StatedThresholds, StudyRecord, write_record
from brats_fl_tools.study.record import read_record as read_study_record
from brats_fl_tools.study.thresholds import Thresholds, read_thresholds
from brats_fl_tools.withdrawn import Withdrawal, read_withdrawals

EXAMPLES = 20 if settings.get_current_profile_name() == "default" else settings().max_examples

pytestmark = pytest.mark.filterwarnings("ignore")  # of torch and cryptography about what a damaged file holds


@dataclass(frozen=True)
class Hostile:
    """A file that may hold anything, and who reads it."""

    file: Path
    good: bytes
    odd: Make
    read: Callable[[], Any]
    """Reads it and uses what it got."""
    place: str = ""
    """What an error must name; by default the file."""


def json_file(file: Path, good: Any, read: Callable[[], Any], **more: Any) -> Hostile:
    return Hostile(file, json.dumps(good).encode(), odd_json(good), read, **more)


def csv_file(file: Path, rows: list[dict[str, str]], read: Callable[[], Any]) -> Hostile:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return Hostile(file, text.getvalue().encode(), odd_csv(rows), read)


def binary_file(file: Path, good: bytes, read: Callable[[], Any], **more: Any) -> Hostile:
    return Hostile(file, good, odd_bytes(good), read, **more)


def torch_file(file: Path, good: Any, read: Callable[[], Any]) -> Hostile:
    """A file of torch's: damaged bytes, or something else within."""

    def saved(content: Any) -> bytes:
        buffer = io.BytesIO()
        torch.save(content, buffer)
        return buffer.getvalue()

    odd = odd_content(good)
    return Hostile(file, saved(good), one_of(lambda rng: saved(odd(rng)), odd_bytes(saved(good))), read)


CASE = {
    "case": "a",
    "patient": "p",
    "image": ["1.nii", "2.nii", "3.nii", "4.nii#0"],
    "label": "s.nii",
    "labels": "brats2023",
}
DATALIST = {"site": "hospital-1", "training": [CASE], "validation": [CASE | {"case": "b"}], "testing": []}
RECORD = train(0, "hospital-1")
CONFIG = JOBS / "brats_unet_fedavg"
SENT = Sent("2026-02-01T10:00:00+00:00", "j", "brats_unet_fedavg", 1, "train", "update", ("weights",), 1, 9, ("a",), 3)
RECEIPT = Receipt("j", "hospital-1", 1, "0f" * 32, "1f" * 32, 3, "2026-02-01T10:00:00+00:00")


def datalist(folder: Path) -> Hostile:
    def read() -> None:
        content = parse_datalist(file)
        for name in ("training", "validation", "testing"):
            [as_monai_item(case) for case in content.split(name)]
        write_datalist(folder / "copy.json", content)

    file = folder / "datalist.json"
    return json_file(file, DATALIST, read)


def datalist_that_is_whole(folder: Path) -> Hostile:
    file = folder / "datalist.json"
    return json_file(file, DATALIST | {"validation": []}, lambda: read_datalist(file))


def decathlon(folder: Path) -> Hostile:
    labels = {"0": "background", "1": "edema", "2": "non-enhancing tumor", "3": "enhancing tumour"}
    good = {"modality": {"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w"}, "labels": labels}
    return json_file(folder / "dataset.json", good, lambda: read_volume_order(folder))


def nnunet(folder: Path) -> Hostile:
    (folder / "imagesTr").mkdir()
    for number in range(4):
        (folder / "imagesTr" / f"a_{number:04d}.nii.gz").touch()
    channels = {"0": "T1c", "1": "T1n", "2": "T2w", "3": "FLAIR"}
    labels = {"background": 0, "whole tumor": [1, 2, 3], "tumor core": [2, 3], "enhancing tumor": 3}
    good = {"channel_names": channels, "labels": labels, "numTraining": 1}
    return json_file(folder / "dataset.json", good, lambda: read_cases(folder))


def acceptances(folder: Path) -> Hostile:
    def read() -> None:
        mark_accepted([finding], read_acceptances(folder / "datalist.json"))

    finding = Finding("G33-brains-differ", "3 of 4 agree", "a", "t1c", "hospital-1")
    good = {"accepted": [asdict(Acceptance("G33-brains-differ", "a", "t1c", "found 3", "Dr A", "2026-02-01"))]}
    return json_file(folder / "accepted.json", good, read)


def approvals(folder: Path) -> Hostile:
    good = {"approved": [asdict(Approval("0f" * 32, "brats_unet_fedavg", "3c", "it", "2026-02-01T10:00:00+00:00"))]}
    return json_file(folder / "approved_jobs.json", good, lambda: read_approvals(folder / "approved_jobs.json"))


def exports(folder: Path) -> Hostile:
    return json_file(folder / EXPORTS_FILE, {"model.pt": "0f" * 32}, lambda: read_exports(folder))


def withdrawals(folder: Path) -> Hostile:
    one = Withdrawal("hospital-2", False, 1, 1, "2026-02-03T10:00:00+00:00", "0f", "without")
    return json_file(folder / "withdrawn.json", {"withdrawals": [asdict(one)]}, lambda: read_withdrawals(folder))


def releases(folder: Path) -> Hostile:
    def read() -> None:
        for release in read_releases(folder / "statistics_releases.json"):
            float(release.count), [float(value) for values in release.histograms.values() for value in values]

    good = [asdict(Release("0f", "2026-02-01", 9.0, 5, 20.5, {f.name: [1.0] * f.bins for f in FEATURES}))]
    return json_file(folder / "statistics_releases.json", good, read)


def cross_site(folder: Path) -> Hostile:
    def read() -> None:
        matrix = read_cross_site(file)
        list_tables(matrix, matrix.sites), count_cases(matrix)

    scores = Scores(2, dict.fromkeys(REGIONS, 0.5))
    cells = {"hospital-1": Cell("ok", scores), "hospital-2": Cell("CASE_ERROR")}
    file, rows = folder / "cross_site.json", (Row("global", "final", "ok", cells), Row("local", "a", "NOT_SHARED"))
    return json_file(file, as_json(CrossSite("validation", rows)), read)


def cross_site_rules(folder: Path) -> Hostile:
    (folder / "local").mkdir()
    good = {"send_local_model": False, "score_test_cases": True}
    return json_file(folder / "local" / RULES_FILE, good, lambda: read_rules("hospital-1", folder, {}))


def trained_run(folder: Path) -> Hostile:
    """What a job that evaluates a run is told of it; the file that its sites were told it by."""
    (folder / "run.json").write_text(json.dumps({"job": "trained"}))
    (folder / "final_model.pt").touch()
    config = folder / "job" / "trained" / CLIENT_CONFIG
    config.parent.mkdir(parents=True)
    good = read_object(JOBS.parent / CLIENT_CONFIG)
    return json_file(config, good, lambda: read_trained(folder))


def mask_record(folder: Path) -> Hostile:
    def read() -> None:
        if record := read_record(folder / "a_seg.nii.gz"):
            Gatekeeper({}, ()).recall("a", record.judgement)

    judgement = json.dumps([asdict(Finding("G33-brains-differ", "3 of 4 agree", "a", "t1c", "hospital-1"))])
    good = asdict(MaskRecord(Maker("00", "11"), "22", "33", judgement))
    return json_file(folder / "a_seg.json", good, read, place="record of the mask of a")


def judgement(folder: Path) -> Hostile:
    """What a mask's record remembers of the gate, which is JSON within JSON."""
    file = folder / "judgement"
    good = [asdict(Finding("G33-brains-differ", "3 of 4 agree", "a", "t1c", "hospital-1"))]
    read = lambda: Gatekeeper({}, ()).recall("a", file.read_text("utf-8", errors="surrogateescape"))  # noqa: E731
    return json_file(file, good, read, place="record of the mask of a")


def hashes(folder: Path) -> Hostile:
    return json_file(folder / "h.json", {"0 10 20 30": "ab"}, lambda: "".join(read_strings(folder / "h.json").values()))


def settings_table(folder: Path) -> Hostile:
    def read() -> None:
        for setting in read_settings(file, {"rate": 0.5, "size": [32, 32], "mode": "a"}).values():
            setting.rule, setting.allows(64), setting.allows("a"), setting.allows([32, 64])

    file = folder / "settings.json"
    bounds = {"meaning": "how fast", "unit": "1", "above": 0, "maximum": 1.0}
    size = {"meaning": "how large", "multiple_of": 16, "length": 2, "minimum": 16}
    return json_file(file, {"rate": bounds, "size": size, "mode": {"meaning": "how", "words": ["a", "b"]}}, read)


def profile(folder: Path) -> Hostile:
    (folder / "configs").mkdir()
    return json_file(folder / "configs" / "small.json", {"epochs": 2, "size": [1, 2]}, lambda: profiles_of(folder))


def records(folder: Path) -> Hostile:
    def read() -> None:
        for record in read_records(file):
            describe_record(record)
        as_lines(read_records(file))

    file = folder / "rounds.jsonl"
    good = {**RECORD, "shares": {"hospital-1": 0.5}, "epsilon": 1.0, "dropped": 2}
    return Hostile(file, json.dumps(good).encode() + b"\n", odd_lines(good), read)


def records_that_tell_time_limits(folder: Path) -> Hostile:
    return Hostile(
        folder / "rounds.jsonl", json.dumps(RECORD).encode() + b"\n", odd_lines(RECORD), lambda: limits_from(folder)
    )


def run_ledger(folder: Path) -> Hostile:
    """The last line: what is odd in one before it is found by the next as well."""

    def read() -> None:
        lines = read_ledger(file)
        [*broken_links(lines), *broken_order(lines), *wrong_receipts(lines, None)]
        [*compare_with_own(lines, [RECEIPT], "hospital-1"), *wrong_files(folder, lines)] if lines else ()
        [wrong_seal(line, None) for line in lines], describe(lines, None)

    file, signed = folder / "ledger.jsonl", Update("00", RECEIPT, "AA==")
    parts = {"updates": {"hospital-1": signed}, "certificates": {"hospital-1": "x"}, "records": (RECORD,)}
    good = json.loads(canonical(as_content(Line("round", "", round=1, **parts))))
    odd = odd_content(good)

    def as_the_ledger_writes(rng: random.Random) -> bytes:
        content = odd(rng)
        try:
            return canonical(content) + b"\n"
        except (ValueError, TypeError):  # a number that it does not write, keys that have no order
            return json.dumps(content).encode() + b"\n"

    content = one_of(odd_lines(good), as_the_ledger_writes, as_the_ledger_writes)
    return Hostile(file, canonical(good) + b"\n", content, read)


def own_ledger(folder: Path) -> Hostile:
    file = folder / "ledger.jsonl"
    good = {"receipt": asdict(RECEIPT), "previous": ""}
    return Hostile(file, json.dumps(good).encode() + b"\n", odd_lines(good), lambda: read_receipts(file))


def kept_update(folder: Path) -> Hostile:
    return torch_file(folder / "a.pt", {"weights": {"w": torch.ones(2)}}, lambda: read_kept(folder / "a.pt"))


def egress_contract(folder: Path) -> Hostile:
    def read() -> None:
        if contract := read_contract(file):
            why_refused(contract, SENT, ["w"], [SENT])

    file = folder / "egress.json"
    return json_file(file, asdict(Contract(most_bytes_a_round=9, most_rounds_a_month=1, jobs=("j",))), read)


def egress_log(folder: Path) -> Hostile:
    file = folder / "egress.jsonl"
    read = lambda: (counts(log := read_log(file)), why_refused(Contract(), SENT, [], log))  # noqa: E731
    return Hostile(file, json.dumps(asdict(SENT)).encode() + b"\n", odd_lines(asdict(SENT)), read)


def privacy_budget(folder: Path) -> Hostile:
    file = folder / "privacy_budget.json"
    return json_file(file, asdict(Budget(8.0, 0.001)), lambda: read_budget(file))


def privacy_spent(folder: Path) -> Hostile:
    file = folder / "privacy_spent.jsonl"
    begun, good = {"begun": "2026-02-01"}, asdict(Spending("0f", 1, ("ab",), NoisedSteps(2.0, 1.0, 4)))
    read = lambda: [total_epsilon([one], 0.5) for one in read_spent(file) if one.noise is None]  # noqa: E731
    first, second = (json.dumps(line).encode() + b"\n" for line in (begun, good))
    begins, goes_on = odd_json(begun), odd_lines(good)
    odd = lambda rng: begins(rng) + b"\n" + second if rng.random() < 0.3 else first + goes_on(rng)  # noqa: E731
    return Hostile(file, first + second, odd, read)


def local_state(folder: Path) -> Hostile:
    write_own(folder, 3, {"control": {"w": np.ones(2, np.float32)}})
    return torch_file(folder / "round-0003.pt", {"control": {"w": torch.ones(2)}}, lambda: read_own(folder, 4))


def checkpoint(folder: Path) -> Hostile:
    return torch_file(folder / "m.pt", {"model": {"w": torch.ones(2)}}, lambda: read_state(folder / "m.pt"))


def global_model(folder: Path) -> Hostile:
    def read() -> None:
        rounds_done(file), count_parameters(file)

    file = folder / "m.pt"
    return torch_file(file, {"model": {"w": torch.ones(2)}, "rounds_done": 3}, read)


def case_table(folder: Path) -> Hostile:
    def read() -> None:
        write_case_table(folder / "copy.csv", read_case_table(file), force=True)

    file = folder / "cases.csv"
    row = {"case": "a", "patient": "p", "time_point": "1", "institution": "x", "grade": "HGG", "labels": "brats2023"}
    row |= {name: f"{name}.nii" for name in (*MODALITIES, "seg")}
    return csv_file(file, [row | {"tumour_ml": "1.5", "shape": "240x240x155", "spacing_mm": "1x1x1"}], read)


def origins(folder: Path) -> Hostile:
    file = folder / "t.csv"
    rows = [{"case": "a", "institution": "x", "hospital": "h"}, {"case": "b", "institution": "y", "hospital": ""}]
    return csv_file(file, rows, lambda: read_origins(file))


def name_mapping(folder: Path) -> Hostile:
    file = folder / "t.csv"
    row = {
        "Grade": "HGG",
        "BraTS_2019_subject_ID": "BraTS19_TCIA01_231_1",
        "BraTS_2020_subject_ID": "BraTS20_Training_001",
    }
    return csv_file(file, [row], lambda: read_origins(file))


def mapping(folder: Path) -> Hostile:
    file = folder / "m.json"
    (folder / "scans" / "p1").mkdir(parents=True)
    for kind in (*MODALITIES, "seg"):
        (folder / "scans" / "p1" / f"p1_{kind}.nii.gz").touch()
    good = {kind: f"{{patient}}/{{patient}}*{kind}.nii.gz" for kind in (*MODALITIES, "seg")} | {"labels": "brats2023"}
    return json_file(file, good, lambda: find_mapped_cases(folder / "scans", read_mapping(file)))


def manifest(folder: Path) -> Hostile:
    file = folder / "partition.json"
    options = {**asdict(Options(Strategy.SIZE)), "strategy": "size"}
    good = {
        "study_sha256": "00",
        "options": options,
        "inputs": {"cases": "c.csv", "institutions": None, "sha256": "11"},
    }
    return json_file(file, good, lambda: read_manifest(file))


def partition_beside_lists(folder: Path) -> Hostile:
    write_datalist(
        folder / "hospital-1" / "datalist.json", parse_datalist(write(folder / "d.json", DATALIST | {"validation": []}))
    )
    good = {"study_sha256": "00", "sites": {"hospital-1": {"sha256": "11", "shift": 0.5, "left_out": False}}}
    return json_file(folder / "partition.json", good, lambda: describe_lists(folder, ["hospital-1"]))


def seen_cases(folder: Path) -> Hostile:
    write_datalist(
        folder / "hospital-1" / "datalist.json", parse_datalist(write(folder / "d.json", DATALIST | {"validation": []}))
    )
    read = lambda: find_seen(folder / "final_model.pt", folder, ["hospital-1"], "training")  # noqa: E731
    return json_file(folder / SEEN_FILE, {"key": "00", "cases": ["11", "22"]}, read)


def write(path: Path, content: Any) -> Path:
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def run_facts(folder: Path) -> Hostile:
    """``run.json`` as the report's tables and sentences use it."""
    machine = {"processor": "x", "cores": 2, "memory_gib": 4.0, "gpus": ["A, 40 GiB"]}
    run = write_run(folder / "run", started="2026-02-01T10:00:00+00:00", seconds=3.5, machine=machine, mode="simulator",
                    parts=[asdict(Part("2026", 1.0, 0)), asdict(Part("2026", 1.0, 2))], options={"algorithm": "fedavg"},
                    versions={"brats_fl": "1", "monai": "2"}, invited=list(SITES), left_out=[], local_epochs=1, seed=0,
                    parameters=100, state="interrupted", rounds_done=2, commit="ab-dirty", best_round=1,
                    synthetic=[], profile="small", content_hash="00")  # fmt: skip

    def read() -> None:
        found = read_run(run)
        scores = score(found)
        json.dumps(build_metrics(found, scores), allow_nan=False)
        list_facts(found, "m", 3), list_details(found), write_methods(found, scores), found.sites
        read_run_state(run), profile_in_run(run / "final_model.pt"), invited_sites(run, found.info)

    return json_file(run / "run.json", json.loads((run / "run.json").read_text(encoding="utf-8")), read)


def evaluation_facts(folder: Path) -> Hostile:
    run = write_run(folder / "run")
    (run / "run.json").unlink()
    good = {"bundle": "b", "model": "m", "model_sha256": "00", "profile": "small", "split": "testing", "cases": 2,
            "models_sha256": {"x/m": "00"},
            "reliability": {"a": {"wt": [{"voxels": 1, "mean_probability": 0.5, "share": 1.0}] * 10}},
            "masks_dir": "/m", "masks_sha256": "00",
            "synthetic_cases": 0, "seen_in_training": ["a/b"], "seconds_per_case": 1.5, "finished": "2026",
            "versions": {"brats_fl": "1"}, "machine": {"processor": "x", "cores": 2}}  # fmt: skip

    def read() -> None:
        found = read_run(run)
        scores = score(found)
        json.dumps(build_metrics(found, scores), allow_nan=False)
        list_facts(found, "m", 3), list_details(found), write_methods(found, scores)

    return json_file(run / "evaluation.json", good, read, place="evaluat")  # the case table may be what does not fit


def evaluation_table(folder: Path) -> Hostile:
    file = folder / "evaluation.csv"
    figures = {"dice": "0.5", "hd95_mm": "3.0", "volume_ml": "1", "reference_volume_ml": "2"}
    figures |= {"nsd_1mm": "0.5", "lesions_false": "3", "ece": ""}
    rows = [{"case": "a", "site": "h", "split": "testing", "region": region, **figures} for region in REGIONS]
    return csv_file(file, rows, lambda: read_evaluation(file))


def statistics(folder: Path) -> Hostile:
    def read() -> None:
        for column in read_statistics(file):
            column.is_noise, [float(value) for value in (*column.means.values(), *column.deviations.values())]

    file = folder / "statistics.json"
    bins = {f.name: [[float(i), float(i + 1), 2.0] for i in range(f.bins)] for f in FEATURES}
    good = {
        f.name: {
            statistic: {site: {"cases": value} for site in ("hospital-1", ALL)}
            for statistic, value in (("count", 3), ("mean", 1.5), ("stddev", 0.5), ("histogram", bins[f.name]))
        }
        for f in FEATURES
    }
    return json_file(file, good, read)


def submission(folder: Path) -> Hostile:
    def read() -> None:
        found = read_submission(folder)
        found.first_round, found.part(3.0), describe_options(found.options)

    options, began = JobOptions("small", 4, {"start_round": 2}), "2026-11-24T20:00:00+00:00"
    begun = Submission("j", "j", began, options, {"mode": "poc"}, "k", "0f", (Part(began, 70.5, 0, "9854"),), "ab")
    return json_file(folder / "submission.json", asdict(begun), read)


def describe_options(options: JobOptions) -> str:
    return f"{options.profile.upper()} {options.rounds or 0:d} {sorted(options.values)} {options.gpus:d}"


def poc_workspace(folder: Path) -> Hostile:
    copy_kits(folder / "kits")
    return json_file(
        folder / "poc.json", {"kits": "kits", "port": 1, "sites": None}, lambda: read_poc(folder), place="/"
    )


def copy_kits(folder: Path) -> None:
    for name, file, content in (
        ("server", "fed_server.json", SERVER_KIT),
        ("hospital-1", "fed_client.json", CLIENT_KIT),
    ):
        (folder / name / "startup").mkdir(parents=True)
        write(folder / name / "startup" / file, content)


SERVER_KIT = {"servers": [{"name": "x", "service": {"target": "localhost:8002", "scheme": "grpc"}}]}
CLIENT_KIT = {**SERVER_KIT, "client": {"fqsn": "hospital-1"}}
ADMIN_KIT = {"admin": {"username": "lead@x.org", "host": "localhost", "port": 8002}}


def kit_of(folder: Path, file: str, content: Any) -> Hostile:
    def read() -> str:
        kit = read_kit(folder)
        return f"{kit.name.upper()} {kit.host.upper()} {kit.port:d}"

    (folder / "startup").mkdir()
    return json_file(folder / "startup" / file, content, read)


def study_file(folder: Path) -> Hostile:
    def read() -> None:
        study = read_study(file)
        for run in expand(study, file, folder / "out"):
            str(run.parts), str(run.log)

    write_sites(folder / "sites")
    good = {"name": "s", "profile": "small", "rounds": 3, "partitions": {"a": "sites"}, "baselines": ["local"],
            "seeds": [0, 1], "folds": 2, "set": {"steps_per_epoch": 10},
            "jobs": {"plain": {"job": "brats_unet_fedavg", "set": {"patch_size": [32, 32, 32]}}}}  # fmt: skip
    file = folder / "study.toml"
    return Hostile(file, toml_file(good), odd_toml(good), read, place="/")  # a folder of sites is named by itself


def thresholds(folder: Path) -> Hostile:
    file, good = folder / "thresholds.toml", {"least_mean_dice": 0.5, "above_local": True, "most_hd95_mm": 20}
    return Hostile(file, toml_file(good), odd_toml(good), lambda: read_thresholds(file))


def study_record(folder: Path) -> Hostile:
    def read() -> None:
        record = read_study_record(folder)
        describe_left(record.runs), [(run.parts, run.table, describe_run(run)) for run in record.runs]
        write_record(folder / "copy", record)

    (folder / "copy").mkdir()
    facts = {"kind": "local", "label": "a", "job": "j", "bundle": "b", "profile": "small", "rounds": 3, "seed": 0,
             "partition": "sites", "fold": 1, "sites_dir": "/sites", "hospitals": ["h"], "values": {"seed": 0},
             "steps": 30, "recipe_sha256": "00", "state": "finished", "seconds": 3.5, "error": ""}  # fmt: skip
    stated = StatedThresholds("t.toml", "11", "2026", Thresholds(least_mean_dice=0.5), ("22",))
    record = StudyRecord(
        "s", "s.toml", "33", "name = 1", "2026", (), (), stated, "rule", {"monai": "1"}, "ab", {"cores": 2}
    )
    good = {**asdict(record), "runs": [{**facts, "name": name} for name in ("one", "two")]}
    return json_file(folder / "study.json", good, read)


def acceptance(folder: Path) -> Hostile:
    out = write_study_folder(folder / "study", thresholds=Thresholds(least_mean_dice=0.5))
    good = json.loads((out / "study.json").read_text(encoding="utf-8"))
    read = lambda: (render_acceptance(out, judged := judge_study(out)), acceptance_as_json(judged))  # noqa: E731
    return json_file(out / "study.json", good, read, place="/")  # a run's own folder is named by itself


def basis(folder: Path) -> Hostile:
    run = write_run(folder / "run")
    (run / "evaluation.json").write_text(json.dumps({"bundle": "b", "profile": "small"}), encoding="utf-8")
    good = {"lists": {"hospital-1": {"training": "00"}}}
    read = lambda: differences(read_basis(run), read_basis(run))  # noqa: E731
    return json_file(run / "baseline.json", good, read)


def hospital_kit(folder: Path) -> Hostile:
    return kit_of(folder, "fed_client.json", CLIENT_KIT)


def server_kit(folder: Path) -> Hostile:
    return kit_of(folder, "fed_server.json", SERVER_KIT)


def admin_kit(folder: Path) -> Hostile:
    return kit_of(folder, "fed_admin.json", ADMIN_KIT)


def project(folder: Path) -> Hostile:
    file, good = folder / "project.yml", yaml.safe_load((POC_WORKSPACE / "project.yml").read_text(encoding="utf-8"))
    return Hostile(file, yaml.safe_dump(good).encode(), odd_yaml(good), lambda: read_project(file))


def hospital(folder: Path) -> Kit:
    (folder / "startup").mkdir()
    (folder / "local").mkdir()
    return Kit(folder, "client", "hospital-1", "localhost", 8002)


RESOURCES = {
    "format_version": 2,
    "client": {"retry_timeout": 30},
    "components": [
        {"id": "resource_manager", "path": "a.B", "args": {"num_of_gpus": 0, "mem_per_gpu_in_GiB": 0}},
        {"id": "job_manager", "path": "a.B", "args": {"uri_root": "/tmp"}},
        {"id": "site_log_streamer", "path": "a.B"},
    ],
    "snapshot_persistor": {"path": "a.B", "args": {"storage": {"path": "a.B", "args": {"root_dir": "/tmp"}}}},
}


def default_resources(folder: Path) -> Hostile:
    kit = hospital(folder)
    file = folder / "local" / "resources.json.default"
    return json_file(file, RESOURCES, lambda: write_site_files(site_files(kit, "strict", gpus=1)))


def site_resources(folder: Path) -> Hostile:
    kit = hospital(folder)
    write(folder / "local" / "authorization.json", {"permissions": {"lead": {"byoc": "none"}}})
    read = lambda: refused(check_rules(kit, None, None, LIGHT_NEEDS))  # noqa: E731
    return json_file(folder / "local" / "resources.json", RESOURCES, read)


def site_authorization(folder: Path) -> Hostile:
    kit = hospital(folder)
    write(folder / "local" / "resources.json", RESOURCES)
    good = {"format_version": "1.0", "permissions": {"lead": {"byoc": "none", "submit_job": "any"}, "member": "none"}}
    read = lambda: refused(check_rules(kit, None, None, LIGHT_NEEDS))  # noqa: E731
    return json_file(folder / "local" / "authorization.json", good, read)


def refused(results: Any) -> None:
    """A check of a kit says what is wrong in a row of its table."""
    for result in results:
        if result.state == "error" and ".json" in result.found:
            raise BratsFLError(result.found)


def daemon_pid(folder: Path) -> Hostile:
    kit = hospital(folder)
    return binary_file(folder / "daemon_pid.fl", b"4711\n", lambda: check_not_running(kit, []))


def certificate(folder: Path) -> Hostile:
    kit = hospital(folder)
    from cryptography.hazmat.primitives.serialization import Encoding
    from tests.tiny_kits import sign

    _, own = sign(None, "hospital-1", "localhost")
    kit.authority.write_bytes(own.public_bytes(Encoding.PEM))
    return binary_file(kit.certificate, own.public_bytes(Encoding.PEM), lambda: check_certificates(kit))


def marker(folder: Path) -> Hostile:
    return binary_file(folder / ".brats-fl", b"run\n", lambda: is_ours(folder, "run"))


def tuned(folder: Path) -> Hostile:
    from brats_fl.provenance import hash_file

    (folder / "m.pt").write_bytes(b"weights")
    good = {"thresholds": [0.4, 0.5, 0.6], "smallest_wt_share": 0.1, "smallest_et_ml": 0.2}
    good |= {"tuned": {"model_sha256": hash_file(folder / "m.pt"), "cases": 3}}
    return json_file(folder / "postprocessing.json", good, lambda: tuned_settings(folder / "m.pt"))


def ensemble(folder: Path) -> Hostile:
    network = {"_target_": "torch.nn.Conv3d", "in_channels": 4, "out_channels": 3, "kernel_size": 1}
    good = {
        "network_def": {"_target_": "brats_fl.network.ensembles.Ensemble", "members": [network, network]},
        "inferer": {"_target_": "brats_fl.network.ensembles.EnsembleInferer", "windows": [[32, 32, 32], [48, 48, 48]]},
        "spacing_mm": [2.0, 2.0, 2.0],
        "checkpointloader#load_path": ["$@ckpt_dir + '/model-1.pt'", "$@ckpt_dir + '/model-2.pt'"],
    }
    bundle = make_voxel_bundle(folder / "voxel")
    return json_file(bundle / "models" / "ensemble.json", good, lambda: read_exported(bundle))


def bundle_metadata(folder: Path) -> Hostile:
    bundle = make_voxel_bundle(folder / "voxel")
    good = {"version": "0.1.0", "eval_metrics": {"mean_dice": 0.7}, "weights_licence": "CC-BY-4.0"}
    return json_file(bundle / "configs" / "metadata.json", good, lambda: read_documents(bundle))


def stress_record(folder: Path) -> Hostile:
    score = Score("noise", "0.5", dict.fromkeys(REGIONS, 0.5), dict.fromkeys(REGIONS, 3.0))
    file = folder / "a.json"
    return json_file(file, asdict(CaseRecord("00", "11", (score,))), lambda: read_stress_record(file))


def stress_summary(folder: Path) -> Hostile:
    plan, figures = make_plan(grades=["missing=t1c"]), dict.fromkeys(REGIONS, 0.5)
    scored = [Scored("h", "a", Score(*grade, figures, figures)) for grade in plan]
    good = Summary(model="m", models_sha256={"m": "00"}, bundle="b", profile="small", postprocessing={}, split="test",
                   sites={"h": 1}, cases=1, synthetic_cases=0, seen_in_training=None, grades=summarise(scored, plan),
                   finished="2026", versions={"brats_fl": "1"}, machine={"cores": 2}, commit=None)  # fmt: skip
    file = folder / "stress.json"
    return json_file(file, json.loads(json.dumps(asdict(good))), lambda: read_summary(file))


def audit_summary(folder: Path) -> Hostile:
    figures = dict.fromkeys(MODALITIES, 0.5)
    titles = {"step": "one step", "round": "a round", "mean": "mean of 5", "other": "control"}
    attacks = tuple(Attack(state, name, figures, figures, 0.1, 2.0) for state in STATES for name in titles)
    inversion = Inversion(32, 300, 1, 0, titles, figures, attacks)
    some = [CaseLoss(f"p{number}", number / 10) for number in range(12)]
    good = AuditSummary(model="m", model_sha256="00", reference_sha256=None, bundle="b", profile="small",
                        sites={"h": 1}, synthetic_cases=0, secure_aggregation=None, seen_checked=True,
                        inversion=inversion, membership=measure(some, some), finished="2026",
                        versions={"brats_fl": "1"}, machine={"cores": 2}, commit=None)  # fmt: skip
    file = folder / "audit.json"
    return json_file(file, json.loads(json.dumps(asdict(good))), lambda: sum_up(read_audit(file)))


def canary_key(folder: Path) -> Hostile:
    file = folder / "key.json"
    return json_file(file, {"planted": {"a": True, "b": False}}, lambda: read_key(file))


def job_as_written(folder: Path) -> Hostile:
    shutil.copytree(CONFIG, folder / "j")
    good = {
        **json.loads((CONFIG / "job.json").read_text(encoding="utf-8")),
        "components": {"aggregator": {"args": {"max_share": 0.4}}, "model_selector": None},
        "client_filters": [{"id": "f", "path": "nvflare.app_common.filters.exclude_vars.ExcludeVars", "args": {}}],
        "add": {"variables": {"extra": 1}},
    }
    return json_file(
        folder / "j" / "job.json", good, lambda: configure(read_source(folder / "j"), JobOptions()), place="j"
    )


def job_meta(folder: Path) -> Hostile:
    shutil.copytree(CONFIG, folder / "j")
    good = json.loads((CONFIG / "meta.json").read_text(encoding="utf-8"))
    return json_file(
        folder / "j" / "meta.json", good, lambda: configure(read_source(folder / "j"), JobOptions()), place="j"
    )


def built(folder: Path, file: Path) -> Hostile:
    job = build_job("brats_unet_fedavg", folder, JobOptions(preinstalled=True)).folder

    def read() -> None:
        found = read_stated_job(job)
        found.job.total_rounds + found.job.gpus, [site.upper() for site in found.job.sites]
        describe_job(job)

    good = json.loads((job / file).read_text(encoding="utf-8"))
    return json_file(job / file, good, read, place="j" if file.name == "meta.json" else "")


def built_meta(folder: Path) -> Hostile:
    return built(folder, Path("meta.json"))


def built_client(folder: Path) -> Hostile:
    return built(folder, CLIENT_CONFIG)


def built_server(folder: Path) -> Hostile:
    return built(folder, SERVER_CONFIG)


def environment(folder: Path) -> Hostile:
    file = folder / "said"
    good = {"executable": "/p", "python": "3.11", "failed": {}, "optional": [], "versions": {"monai": "1", "x": None},
            "code": {"b": {"version": "1"}}, "gpus_gib": [40.0]}  # fmt: skip
    return json_file(file, good, lambda: read_facts(file.read_text("utf-8", errors="replace")))


def set_option(folder: Path) -> Hostile:
    file = folder / "said"
    read = lambda: parse_values([f"a={file.read_text('utf-8', errors='replace')}"])  # noqa: E731
    return json_file(file, {"a": [1, 2.5]}, read)


READERS: Mapping[str, Callable[[Path], Hostile]] = {
    one.__name__: one
    for one in (
        *(
            datalist,
            datalist_that_is_whole,
            decathlon,
            nnunet,
            acceptances,
            approvals,
            withdrawals,
            exports,
            releases,
            mask_record,
            judgement,
            hashes,
        ),
        *(
            settings_table,
            profile,
            records,
            records_that_tell_time_limits,
            run_ledger,
            own_ledger,
            kept_update,
            egress_contract,
            egress_log,
            privacy_budget,
            privacy_spent,
            local_state,
            checkpoint,
            global_model,
        ),
        *(case_table, origins, name_mapping, mapping, manifest, partition_beside_lists, seen_cases, run_facts),
        *(
            evaluation_facts,
            evaluation_table,
            statistics,
            cross_site,
            cross_site_rules,
            trained_run,
            submission,
            poc_workspace,
            hospital_kit,
            server_kit,
            admin_kit,
        ),
        *(
            project,
            default_resources,
            site_resources,
            site_authorization,
            daemon_pid,
            certificate,
            marker,
            tuned,
            ensemble,
            bundle_metadata,
        ),
        *(study_file, thresholds, study_record, acceptance, basis),
        *(stress_record, stress_summary, audit_summary, canary_key),
        *(job_as_written, job_meta, built_meta, built_client, built_server, environment, set_option),
    )
}


@pytest.mark.parametrize("name", READERS)
def test_good_file_is_read(name: str, tmp_path: Path):
    hostile = READERS[name](tmp_path)
    hostile.file.write_bytes(hostile.good)

    hostile.read()


@pytest.mark.parametrize("name", READERS)
def test_odd_file_is_read_or_refused_by_its_name(name: str, tmp_path: Path):
    hostile = READERS[name](tmp_path)

    @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
    @given(content=made_by(hostile.odd))
    def read(content: bytes) -> None:
        hostile.file.write_bytes(content)
        try:
            hostile.read()
        except BratsFLError as error:
            words = str(error)
            assert (hostile.place or hostile.file.name) in words
            assert len(words) < 4000
            words.encode()

    read()


ONE_HOME = {
    "json.load": {"brats_fl/reading.py", "brats_fl/bundle.py", "brats_fl/cases/cache.py"},
    "json.loads": {"brats_fl/reading.py", "brats_fl/bundle.py", "brats_fl/cases/cache.py", "brats_fl/approval.py"},
    "csv.reader": {"brats_fl/reading.py"},
    "csv.DictReader": set(),
    "yaml.safe_load": {"brats_fl_tools/kit/kits.py"},
    "yaml.load": set(),
    "tomllib.load": set(),
    "tomllib.loads": {"brats_fl/reading.py"},
}
"""What parses -> the modules that may call it: the one home, who reads what the same process wrote, who hashes it."""


def test_nothing_is_parsed_outside_the_one_home():
    """Who needs a new reader uses ``brats_fl.reading``, and adds its file to ``READERS``."""
    calls = set()
    for package in (Path(brats_fl.__file__).parent, Path(brats_fl_tools.__file__).parent):
        for path in package.rglob("*.py"):
            module = path.relative_to(package.parent).as_posix()
            if module.startswith("brats_fl_tools/drill/"):
                continue  # reads what it wrote itself
            source = path.read_text(encoding="utf-8")
            if any(call in source for call in ONE_HOME):
                nodes = (node.func for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call))
                calls |= {(ast.unparse(node), module) for node in nodes if ast.unparse(node) in ONE_HOME}

    assert calls <= {(call, module) for call, modules in ONE_HOME.items() for module in modules}
