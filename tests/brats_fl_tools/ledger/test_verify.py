"""A run's ledger holds, and whatever is changed in it or beside it is found and named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.signed_run import make_signed_run, model
from tests.tiny_kits import TinyKits, copy_tiny_kits, make_tiny_kits, sign
from typer.testing import CliRunner

from brats_fl.errors import KitError
from brats_fl.ledger import LEDGER_FILE, Line, Update, as_text, follow, read_ledger
from brats_fl_tools.cli import app
from brats_fl_tools.ledger.command import judge

Content = dict[str, Any]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TinyKits]:
    """A signed run and its kits; nobody changes them."""
    root = tmp_path_factory.mktemp("ledger")
    kits = make_tiny_kits(root / "kits")
    return make_signed_run(root, kits), kits


@pytest.fixture
def run(made: tuple[Path, TinyKits], tmp_path: Path) -> Path:
    """A copy of the run, to change."""
    return Path(shutil.copytree(made[0], tmp_path / "run"))


def root_of(kits: TinyKits) -> Path:
    return kits.hospital.authority


def contents(run: Path) -> list[Content]:
    return [json.loads(line) for line in (run / LEDGER_FILE).read_text().splitlines()]


def write(run: Path, lines: list[Content]) -> None:
    text = "".join(json.dumps(line, sort_keys=True, separators=(",", ":")) + "\n" for line in lines)
    (run / LEDGER_FILE).write_text(text)


def problems(run: Path, kits: TinyKits, *sites: Path) -> str:
    return "\n".join(judge(run, root_of(kits), sites).problems)


def test_ledger_of_two_rounds_holds(run: Path, made: tuple[Path, TinyKits]) -> None:
    kits = made[1]
    hospitals = [option for kit in kits.federation.clients for option in ("--site", str(kit.folder))]

    done = CliRunner().invoke(app, ["ledger", "verify", str(run), "--root", str(root_of(kits)), *hospitals])

    assert done.exit_code == 0, done.output
    assert done.output.splitlines() == [
        "2 rounds, 4 updates, 4 of them with a receipt that their site signed",
        "certificates are held against the authority CN=brats_federation",
        "sealed by lead@consortium.example",
        "the ledger holds",
    ]
    assert [line.kind for line in read_ledger(run / LEDGER_FILE)] == ["start", "round", "round", "end", "seal"]


def leaves(content: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where the values of a line are."""
    parts = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    if not parts or isinstance(content, str):
        yield path
    for key, part in parts if not isinstance(content, str) else ():
        yield from leaves(part, (*path, key))


def changed(value: Any) -> Any:
    """Another value of the same type: of a text with one character changed."""
    if isinstance(value, str):
        return value[:-1] + ("0" if value[-1:] != "0" else "1")
    return not value if isinstance(value, bool) else value + 1 if isinstance(value, (int, float)) else ["more"]


def test_every_changed_value_of_every_line_is_found_and_its_line_named(run: Path, made: tuple[Path, TinyKits]) -> None:
    sound = contents(run)
    (run / "job").rename(run / "hidden")  # hashing its files takes most of the time, and is another test's

    for number, line in enumerate(sound, 1):
        for path in {path[:3]: path for path in leaves(line)}.values():
            lines = json.loads(json.dumps(sound))
            place = lines[number - 1]
            for key in path[:-1]:
                place = place[key]
            place[path[-1]] = changed(place[path[-1]])
            write(run, lines)

            found = [p for p in problems(run, made[1]).splitlines() if not p.startswith("job/")]
            assert found, (number, path)
            named = f"line {number}: " in "\n".join(found) or f"{LEDGER_FILE}:{number}" in "\n".join(found)
            assert named or path[0] in ("previous", "before"), (number, path, found)


def test_changed_field_is_named(run: Path, made: tuple[Path, TinyKits]) -> None:
    lines = contents(run)
    lines[1]["invited"] = ["hospital-1"]
    write(run, lines)

    assert problems(run, made[1]) == "line 2: invited changed after line 3 was written"


def test_line_that_is_taken_out_is_missed(run: Path, made: tuple[Path, TinyKits]) -> None:
    lines = contents(run)
    write(run, lines[:1] + lines[2:])

    found = problems(run, made[1])
    assert "line 2: round is 1, expected 0" in found


def rechained(run: Path, change: Callable[[list[Line]], list[Line]]) -> None:
    """As a server would write it: every hash anew, and the lead's signature as it was."""
    lines: list[Line] = []
    for line in change(read_ledger(run / LEDGER_FILE)):
        lines.append(replace(line, **{"previous": "", "before": {}, **follow(lines[-1] if lines else None)}))
    (run / LEDGER_FILE).write_text(as_text(lines))


def test_server_that_writes_all_of_it_anew_cannot_change_an_update(run: Path, made: tuple[Path, TinyKits]) -> None:
    def change(lines: list[Line]) -> list[Line]:
        site = lines[1].updates["hospital-1"]
        assert site.receipt is not None
        forged = replace(site, digest="0" * 64, receipt=replace(site.receipt, sent="0" * 64))
        return [lines[0], replace(lines[1], updates={**lines[1].updates, "hospital-1": forged}), *lines[2:]]

    rechained(run, change)

    assert problems(run, made[1]).splitlines() == [
        "line 2: updates.hospital-1.signature: the signature is not that of the certificate's key",
        "line 5: signature: the signature is not that of the certificate's key",
    ]


def test_server_cannot_sign_for_a_hospital_with_a_certificate_of_its_own(
    run: Path, made: tuple[Path, TinyKits]
) -> None:
    from cryptography.hazmat.primitives.serialization import Encoding

    _, certificate = sign(None, "hospital-1", "")
    pem = certificate.public_bytes(Encoding.PEM).decode()
    rechained(
        run,
        lambda lines: [
            lines[0], replace(lines[1], certificates={**lines[1].certificates, "hospital-1": pem}), *lines[2:]
        ],
    )  # fmt: skip

    assert "line 2: updates.hospital-1.signature: the certificate was not signed by the authority" in problems(
        run, made[1]
    )


def test_round_of_a_hospital_that_the_server_leaves_out_is_in_the_hospitals_own_ledger(
    run: Path, made: tuple[Path, TinyKits]
) -> None:
    rechained(run, lambda lines: [lines[0], replace(lines[1], updates={}, certificates={}), *lines[2:]])

    assert "round 0: the hospital's own ledger has an update of hospital-1 that this one has not" in problems(
        run, made[1], made[1].hospital.folder
    )


def test_hospitals_own_ledger_that_was_changed_is_refused(
    run: Path, made: tuple[Path, TinyKits], tmp_path: Path
) -> None:
    kits = copy_tiny_kits(made[1], tmp_path / "kits")
    own = kits.hospital.folder / "local" / LEDGER_FILE
    own.write_text(own.read_text().replace('"cases":3', '"cases":4', 1))

    assert f"{own}:2: previous is not the hash of the line before" in problems(run, kits, kits.hospital.folder)


def test_record_that_was_changed_is_named_with_its_field(run: Path, made: tuple[Path, TinyKits]) -> None:
    records = run / "rounds.jsonl"
    records.write_text(records.read_text().replace('"loss": 0.5', '"loss": 0.25', 1))

    assert problems(run, made[1]) == ("rounds.jsonl: train of round 0 at hospital-1: loss is 0.25, the ledger has 0.5")


def test_model_of_which_one_value_was_changed_is_none_that_the_ledger_names(
    run: Path, made: tuple[Path, TinyKits]
) -> None:
    state = {name: torch.from_numpy(array) for name, array in model(6.0).items()}
    state["w"][1, 2] += 1e-6
    torch.save({"model": state}, run / "final_model.pt")

    assert problems(run, made[1]).splitlines() == [
        "final_model.pt: is none of the models that the ledger names",
        "line 5: models.final_model.pt is not the digest of final_model.pt",
    ]


def test_job_of_which_a_setting_was_changed_is_not_the_sealed_one(run: Path, made: tuple[Path, TinyKits]) -> None:
    config = run / "job/brats_unet_fedavg/app_client/config/config_fed_client.json"
    config.write_text(config.read_text().replace('"local_epochs": 1', '"local_epochs": 9'))

    assert problems(run, made[1]).startswith("job/brats_unet_fedavg: its files are not those of content hash ")


def test_list_that_was_changed_in_the_runs_facts_is_not_the_sealed_one(run: Path, made: tuple[Path, TinyKits]) -> None:
    facts = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**facts, "lists": {"a": "11"}}))

    assert problems(run, made[1]) == "run.json: lists is not what the seal says"


def test_simulated_run_says_that_nothing_of_it_is_signed(tmp_path: Path) -> None:
    verdict = judge(make_signed_run(tmp_path, None))

    assert verdict.problems == ()
    assert verdict.notes == (
        "2 rounds, 4 updates, 0 of them with a receipt that their site signed",
        "4 updates are not signed: what the server says of them is not proven",
        "not sealed by a lead: the last line is not proven",
    )


def test_receipts_that_the_server_takes_out_leave_an_update_that_nothing_proves(
    run: Path, made: tuple[Path, TinyKits]
) -> None:
    def strip(line: Line) -> Line:
        return replace(line, updates={site: Update(update.digest) for site, update in line.updates.items()})

    rechained(run, lambda lines: [*map(strip, lines[:-1]), lines[-1]])

    verdict = judge(run, root_of(made[1]), [made[1].hospital.folder])
    assert not verdict.is_proven
    assert "4 updates are not signed: what the server says of them is not proven" in verdict.notes
    assert "round 0: the hospital's own ledger has an update of hospital-1 that this one has not" in "\n".join(
        verdict.problems
    )


def test_run_without_a_ledger_is_told_so(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["ledger", "verify", str(tmp_path)])

    assert done.exit_code == 1
    assert "no such file; runs of this release have one" in str(done.exception)


SEALED = ("final_model.pt", "global_model.pt", "rounds.jsonl", "run.json", "job/brats_unet_fedavg/meta.json")


@pytest.mark.parametrize("name", [*SEALED, LEDGER_FILE])
def test_changed_byte_anywhere_in_a_file_is_found_and_the_file_named(
    name: str, run: Path, made: tuple[Path, TinyKits]
) -> None:
    content = (run / name).read_bytes()
    (run / "job/brats_unet_fedavg/app_client").rename(run / "hidden")  # hashing its files takes most of the time

    for place in range(0, len(content), max(1, len(content) // 25)):
        (run / name).write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])

        found = [p for p in problems(run, made[1]).splitlines() if not p.startswith("job/brats_unet_fedavg: ")]
        assert any(name in problem or (name == LEDGER_FILE and "line " in problem) for problem in found), (place, found)


def test_every_fact_of_the_run_is_sealed_but_the_paths_that_an_archive_leaves_out(
    run: Path, made: tuple[Path, TinyKits]
) -> None:
    facts = json.loads((run / "run.json").read_text())
    assert {"rounds", "seed", "options", "versions", "best_round", "parts"} < set(facts)

    for key in facts:
        (run / "run.json").write_text(json.dumps({**facts, key: "another"}, indent=1) + "\n")
        assert f"run.json: {key} is not what" in problems(run, made[1])
        (run / "run.json").write_text(json.dumps({k: v for k, v in facts.items() if k != key}, indent=1) + "\n")
        assert f"run.json: {key} " in problems(run, made[1])
    (run / "run.json").write_text(json.dumps({**facts, "withdrawn": []}, indent=1) + "\n")
    assert problems(run, made[1]) == "run.json: withdrawn is not what was sealed"


@pytest.mark.parametrize(
    "change",
    [
        lambda text: "\n" + text,
        lambda text: text + "\n",
        lambda text: text[:-1],
        lambda text: text.replace("\n", "\r\n"),
    ],
    ids=["blank line first", "blank line last", "no line break last", "line breaks of Windows"],
)
def test_ledger_that_is_laid_out_in_another_way_is_refused(
    change: Callable[[str], str], run: Path, made: tuple[Path, TinyKits]
) -> None:
    path = run / LEDGER_FILE
    path.write_bytes(change(path.read_text()).encode())

    assert "the ledger was changed or is damaged" in problems(run, made[1])


def test_order_of_the_records_is_sealed(run: Path, made: tuple[Path, TinyKits]) -> None:
    path = run / "rounds.jsonl"
    path.write_text("".join(reversed(path.read_text().splitlines(keepends=True))))

    assert problems(run, made[1]) == "rounds.jsonl: its bytes are not those that were sealed"


def test_kit_that_has_no_ledger_of_its_own_compares_nothing_and_is_refused(
    run: Path, made: tuple[Path, TinyKits]
) -> None:
    kits = made[1]
    for kit in (kits.federation.server, *kits.federation.admins):
        with pytest.raises(KitError, match="only a hospital's has a ledger of its own"):
            judge(run, root_of(kits), [kit.folder])


def test_hospital_that_has_no_part_in_a_run_is_told_that_nothing_was_compared(
    run: Path, made: tuple[Path, TinyKits], tmp_path: Path
) -> None:
    kits = copy_tiny_kits(made[1], tmp_path / "kits")
    config = kits.hospital.folder / "startup" / "fed_client.json"
    config.write_text(config.read_text().replace('"hospital-1"', '"hospital-3"'))
    (kits.hospital.folder / "local" / LEDGER_FILE).unlink()

    notes = judge(run, root_of(made[1]), [kits.hospital.folder]).notes

    assert "neither ledger has an update of hospital-3 in this run: there was nothing to compare" in notes


def test_hospital_compares_a_ledger_without_its_beginning(run: Path, made: tuple[Path, TinyKits]) -> None:
    write(run, contents(run)[1:])

    assert "line 1: kind must be start: the beginning is missing" in problems(run, made[1], made[1].hospital.folder)
