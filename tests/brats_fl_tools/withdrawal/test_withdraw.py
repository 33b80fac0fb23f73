"""A study goes on without a hospital from the last model that it did not touch, and the run with it says so."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.run_folders import train, write_rounds, write_run
from tests.signed_run import make_signed_run, model
from tests.tiny_sites import make_tiny_sites
from typer.testing import CliRunner

from brats_fl.digests import digest_of_model
from brats_fl.errors import JobError, RunError
from brats_fl.kept_updates import ALGORITHM_STATE, ROUNDS_DONE
from brats_fl.ledger import LEDGER_FILE, hash_of, read_ledger
from brats_fl.provenance import hash_file
from brats_fl.round_records import RECORDS_FILE, read_records
from brats_fl_tools.cli import app
from brats_fl_tools.jobs.assembly import JobOptions, build_job
from brats_fl_tools.jobs.built import BuiltJob, describe_job
from brats_fl_tools.jobs.source import read_source
from brats_fl_tools.jobs.start import find_start
from brats_fl_tools.model.export import export_ensemble, export_model
from brats_fl_tools.report.facts import list_facts
from brats_fl_tools.report.headline import list_warnings
from brats_fl_tools.report.participants import missing_updates, summarise_participation
from brats_fl_tools.report.run_folder import read_run
from brats_fl_tools.repository import BUNDLES
from brats_fl_tools.runs.lists import describe_lists
from brats_fl_tools.runs.seal import seal
from brats_fl_tools.runs.submission import Submission, begin
from brats_fl_tools.withdrawal import command
from brats_fl_tools.withdrawal.command import Asked, withdraw_from, write_difference
from brats_fl_tools.withdrawal.rewind import rewind
from brats_fl_tools.withdrawn import Withdrawal, note_withdrawal, read_withdrawals

JOB = "brats_unet_fedavg"
OPTIONS = JobOptions("small", 2, sites=("hospital-1", "hospital-2"))


def digest_in(path: Path) -> str:
    """Of the model in a checkpoint."""
    state = torch.load(path, weights_only=True)["model"]
    return digest_of_model({name: value.numpy() for name, value in state.items()})


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Two rounds of hospital-1 and hospital-2, whose models were 1.0, 3.5 and 6.0, with all updates kept."""
    run = make_signed_run(tmp_path / "kept", None, keep_updates=True)
    begin(run, describe_job(run / "job" / JOB), Submission(JOB, JOB, "2026-02-01T10:00:00+00:00", OPTIONS))
    return run


@pytest.fixture
def carried_out(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Path, BuiltJob, Submission]]:
    """What would be given to FLARE."""
    got: list[tuple[Path, BuiltJob, Submission]] = []
    monkeypatch.setattr(command.simulator, "carry_out", lambda *given: got.append(given))
    monkeypatch.setattr(command, "write_difference", lambda *_: ())
    return got


def records_of(run: Path) -> list[dict[str, Any]]:
    return read_records(run / RECORDS_FILE)


def withdrawal(**changed: Any) -> Withdrawal:
    return replace(Withdrawal("hospital-2", False, 1, 1, "2026-02-03T10:00:00+00:00", "0f", "without"), **changed)


def test_model_before_a_round_comes_out_of_the_updates_with_what_was_recorded_until_then(run: Path, tmp_path: Path):
    folder = tmp_path / "before"
    folder.mkdir()

    rewind(run, records_of(run), 1, False, folder)

    kept = torch.load(folder / "last_model.pt", weights_only=True)
    assert (kept[ROUNDS_DONE], kept[ALGORITHM_STATE]) == (1, {})
    assert digest_in(folder / "last_model.pt") == digest_of_model(model(3.5))
    assert [line.kind for line in read_ledger(folder / LEDGER_FILE)] == ["start", "round"]
    assert {record["round"] for record in read_records(folder / RECORDS_FILE)} == {0}


def test_best_model_until_then_is_kept_where_the_run_began_with_a_given_one(run: Path, tmp_path: Path):
    voted = [
        {**line, "metrics": {"val_mean_dice": 0.4}} if line["phase"] == "train" else line for line in records_of(run)
    ]
    (folder := tmp_path / "before").mkdir()

    rewind(run, voted, 1, True, folder)

    assert digest_in(folder / "best_FL_global_model.pt") == digest_of_model(model(1.0))


def test_study_goes_on_without_the_hospital_from_the_last_model_that_it_did_not_touch(run, tmp_path, carried_out):
    out = tmp_path / "without"

    withdraw_from(Asked(run, "hospital-2", from_round=1), out)

    [(folder, job, later)] = carried_out
    assert (folder, job.sites, later.first_round) == (out, ("hospital-1",), 1)
    assert (job.variables["start_round"], job.variables["num_rounds"]) == (1, 1)
    assert digest_in(job.folder / "app_server" / "start_from.pt") == digest_of_model(model(3.5))
    assert later.options.ledger_head == hash_of(read_ledger(run / LEDGER_FILE)[1])
    assert later.facts["left_out"] == ["hospital-2"]
    assert job.study != describe_job(run / "job" / JOB).study
    assert not (out / "updates/round-0001").exists()
    assert (out / "updates/round-0000/hospital-2.pt").is_file()
    [noted] = read_withdrawals(run)
    assert later.facts["withdrawals"] == [asdict(noted)]
    assert (noted.hospital, noted.first_round, noted.run) == ("hospital-2", 1, "without")
    assert noted.ledger_head == hash_of(read_ledger(run / LEDGER_FILE)[-1])


def test_lead_signs_in_the_seal_who_withdrew(run: Path):
    job, last = describe_job(run / "job" / JOB), read_ledger(run / LEDGER_FILE)[-2]
    submission = Submission(JOB, JOB, "", facts={"withdrawals": [asdict(withdrawal())]})

    assert seal(run, last, job, submission, "finished").lists["withdrawals"][0]["hospital"] == "hospital-2"


def test_study_of_which_nothing_was_kept_begins_anew(run, tmp_path, carried_out, capsys):
    (run / "updates/start.pt").unlink()

    withdraw_from(Asked(run, "hospital-2", from_round=1), tmp_path / "without")

    [(_, job, later)] = carried_out
    assert (job.variables["start_round"], job.variables["num_rounds"], later.earlier) == (0, 2, ())
    assert not (tmp_path / "without" / "earlier").exists()
    assert "the models of single rounds were not kept" in capsys.readouterr().out


def test_study_whose_kept_updates_were_changed_begins_anew_and_says_why(run, tmp_path, carried_out, capsys):
    (run / "updates/round-0000/hospital-1.pt").write_bytes(b"half a file")

    withdraw_from(Asked(run, "hospital-2", from_round=1), tmp_path / "without")

    assert carried_out[0][2].first_round == 0
    assert "hospital-1.pt: is damaged" in capsys.readouterr().out


def test_study_that_began_with_a_given_model_begins_with_it_again(run, tmp_path, carried_out):
    state = {"w": torch.ones(1)}
    torch.save(state, tmp_path / "start.pt")
    digest = hash_file(tmp_path / "start.pt")
    options = replace(OPTIONS, checkpoint=tmp_path / "start.pt", start_sha256=digest)
    begin(run, describe_job(run / "job" / JOB), Submission(JOB, JOB, "2026-02-01T10:00:00+00:00", options))

    withdraw_from(Asked(run, "hospital-1"), tmp_path / "without")

    assert hash_file(carried_out[0][1].folder / "app_server/start_from.pt") == digest
    (tmp_path / "start.pt").unlink()
    with pytest.raises(RunError, match=f"SHA-256 {digest}, is not at .*start.pt any more; put it there again"):
        withdraw_from(Asked(run, "hospital-1"), tmp_path / "again")
    assert not (tmp_path / "again").exists()


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (
            {"hospital": "hospital-7"},
            "no update of hospital-7 is in it; hospitals with updates: hospital-1",
        ),
        ({"hospital": "hospital-2", "from_round": 5}, "the last update of hospital-2 was in round 1"),
    ],
)
def test_hospital_without_an_update_to_withdraw_is_named(asked, words, run, tmp_path, carried_out):
    with pytest.raises(RunError, match=words):
        withdraw_from(Asked(run, **asked), tmp_path / "without")

    assert (carried_out, read_withdrawals(run), (tmp_path / "without").exists()) == ([], (), False)


def test_study_of_one_hospital_is_none_without_it(tmp_path, carried_out):
    run = tmp_path / "alone"
    run.mkdir()
    options = JobOptions("small", 1, sites=("hospital-1",), values={"min_clients": 1})
    job = build_job(JOB, run / "job", options)
    begin(run, job, Submission(JOB, JOB, "2026-02-01T10:00:00+00:00", options))
    (run / RECORDS_FILE).write_text('{"phase": "train", "round": 0, "site": "hospital-1", "status": "ok"}\n')

    with pytest.raises(JobError, match="hospital-1 is the only hospital of"):
        withdraw_from(Asked(run, "hospital-1"), tmp_path / "without")


def test_patients_withdraw_once_the_hospitals_list_is_another(tmp_path, carried_out):
    sites = make_tiny_sites(tmp_path / "sites", {"hospital-1": (2, 1, 1), "hospital-2": (2, 1, 1)})
    run, names = tmp_path / "run", ("hospital-1", "hospital-2")
    run.mkdir()
    options = JobOptions("small", 2, sites=names)
    job = build_job(JOB, run / "job", options)
    facts = {"mode": "simulator", "sites_dir": str(sites), **describe_lists(sites, names)}
    begin(run, job, Submission(JOB, JOB, "2026-02-01T10:00:00+00:00", options, facts))
    lines = [{"phase": "train", "round": 0, "site": name, "status": "ok"} for name in names]
    (run / RECORDS_FILE).write_text("".join(json.dumps(line) + "\n" for line in lines))
    asked, out = Asked(run, "hospital-2", of_patients=True), tmp_path / "without"

    with pytest.raises(RunError, match=r"hospital-2/datalist\.json: is the list that the run was made with"):
        withdraw_from(asked, out)
    datalist = sites / "hospital-2/datalist.json"
    content = json.loads(datalist.read_text())
    content["training"].pop()
    datalist.write_text(json.dumps(content))
    withdraw_from(asked, out)

    [(_, job, later)] = carried_out
    assert (job.sites, later.facts["sites"]["hospital-2"]["training"]) == (names, 1)
    assert (out / "seen_cases.json").is_file()


def test_difference_is_said_by_hospital_and_written(tmp_path: Path):
    for name, dice, value in (("run", {"a": 0.7, "b": 0.6}, 3.0), ("without", {"a": 0.65}, 4.5)):
        (tmp_path / name).mkdir()
        lines = [
            {"phase": "final", "round": 2, "site": site, "status": "ok", "metrics": {"val_mean_dice": vote}}
            for site, vote in dice.items()
        ]
        (tmp_path / name / RECORDS_FILE).write_text("".join(json.dumps(line) + "\n" for line in lines))
        torch.save({"model": {"w": torch.tensor([value])}}, tmp_path / name / "final_model.pt")

    said = list(write_difference(tmp_path / "run", tmp_path / "without", withdrawal(hospital="b")))

    assert said[0] == "a: mean Dice 0.700 with b, 0.650 without (own validation cases, last model)"
    assert said[1] == "the last models differ by 50.0% of the norm of the weights"
    content = json.loads((tmp_path / "without/withdrawal.json").read_text())
    assert (content["validation_dice"], content["distance"]) == ({"a": {"with": 0.7, "without": 0.65}}, 0.5)


def test_model_that_was_withdrawn_from_is_neither_exported_nor_started_from(tmp_path: Path):
    torch.save({"w": torch.ones(1)}, tmp_path / "global_model.pt")
    note_withdrawal(tmp_path, withdrawal())
    words = "hospital-2 withdrew from this run on 2026-02-03; hand on the model of without"

    with pytest.raises(RunError, match=words):
        export_model(tmp_path / "global_model.pt", BUNDLES / "brats_unet")
    with pytest.raises(RunError, match=words):
        export_ensemble([tmp_path / "global_model.pt"], BUNDLES / "brats_unet")
    with pytest.raises(RunError, match=words):
        find_start(tmp_path, read_source(JOB), "small")


def test_several_withdraw_from_a_run_and_one_that_is_said_twice_is_noted_once(tmp_path: Path):
    note_withdrawal(tmp_path, withdrawal())
    note_withdrawal(tmp_path, withdrawal(hospital="hospital-3", of_patients=True))
    note_withdrawal(tmp_path, withdrawal(time="2026-02-04T10:00:00+00:00"))

    found = read_withdrawals(tmp_path)
    assert [(one.who, one.time[:10]) for one in found] == [
        ("patients of hospital-3", "2026-02-03"),
        ("hospital-2", "2026-02-04"),
    ]


def test_run_that_is_still_simulated_is_not_withdrawn_from(run, tmp_path, monkeypatch):
    monkeypatch.setattr(command.simulator, "is_simulating", lambda _: True)

    done = CliRunner().invoke(app, ["withdraw", "hospital-2", "--run", str(run), "--out", str(tmp_path / "without")])

    assert isinstance(done.exception, RunError)
    assert "is still being simulated by another process" in str(done.exception)


def test_damaged_note_of_a_withdrawal_is_no_permission(tmp_path: Path):
    torch.save({"w": torch.ones(1)}, tmp_path / "global_model.pt")
    (tmp_path / "withdrawn.json").write_text("{}")

    with pytest.raises(RunError, match=r"withdrawn\.json: has no withdrawals"):
        export_model(tmp_path / "global_model.pt", BUNDLES / "brats_unet")


def test_report_of_the_study_without_a_hospital_tells_until_when_it_took_part(tmp_path: Path):
    facts = {"invited": ["hospital-1"], "withdrawals": [asdict(withdrawal(first_round=2))]}
    folder = write_run(tmp_path / "without", rounds=3, **facts)
    write_rounds(
        folder, [train(0, "hospital-1"), train(0, "hospital-2"), train(1, "hospital-1"), train(2, "hospital-1")]
    )

    run = read_run(folder)

    assert [(missing.round, missing.site) for missing in missing_updates(run)] == [(1, "hospital-2")]
    words = summarise_participation(run)
    assert "2 hospitals trained one model together over 3 rounds." in words
    assert "hospital-2 withdrew, and took no part from round 2 on." in words
    facts_shown = dict(list_facts(run, "final model", None))
    assert (facts_shown["Hospitals"], facts_shown["Done again without"]) == (
        "2",
        "hospital-2, from round 2 on, what it gave before round 1 stays",
    )


def test_report_of_a_run_that_was_withdrawn_from_says_so_first(tmp_path: Path):
    folder = write_run(tmp_path / "with")
    note_withdrawal(folder, withdrawal())

    first = list_warnings(read_run(folder))[0]

    assert first.startswith("Withdrawn from this run: hospital-2 on 2026-02-03 (the study without: without).")


def test_second_hospital_that_withdraws_does_not_make_the_first_forgotten(run, tmp_path, carried_out):
    first = asdict(withdrawal(hospital="hospital-9"))
    begin(
        run,
        describe_job(run / "job" / JOB),
        Submission(JOB, JOB, "2026-02-01T10:00:00+00:00", OPTIONS, {"withdrawals": [first]}),
    )

    withdraw_from(Asked(run, "hospital-2", from_round=1), tmp_path / "without")

    told = carried_out[0][2].facts["withdrawals"]
    assert [one["hospital"] for one in told] == ["hospital-9", "hospital-2"]


def test_hospital_of_whom_nothing_is_left_in_the_run_is_not_counted_as_invited(tmp_path: Path):
    gone = asdict(withdrawal(hospital="hospital-9", first_round=0))
    folder = write_run(tmp_path / "without", invited=list(OPTIONS.sites or ()), withdrawals=[gone])

    assert dict(list_facts(read_run(folder), "final model", None))["Hospitals"] == "2"
