"""What the server writes down of a round, and what a site signs."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nvflare.apis.dxo import DXO, DataKind, MetaKey
from nvflare.apis.shareable import Shareable
from tests.flare import Engine
from tests.hostile import NO_COUNTS
from tests.signed_run import SITES, ServerOfTwo, make_signed_run, model, update
from tests.tiny_kits import TinyKits, make_tiny_kits

from brats_fl.components.ledger import update_of
from brats_fl.components.receipts import RECEIPT_HEADER, add_receipt
from brats_fl.digests import digest_of, digest_of_model
from brats_fl.errors import ModelError
from brats_fl.exchange import MASKED, WEIGHTS
from brats_fl.ledger import LEDGER_FILE, read_ledger, receipt_bytes
from brats_fl.own_ledger import read_receipts
from brats_fl.signatures import read_pem, why_not_signed
from brats_fl_tools.jobs.assembly import JobOptions, build_job


@pytest.fixture(scope="module")
def kits(tmp_path_factory: pytest.TempPathFactory) -> TinyKits:
    return make_tiny_kits(tmp_path_factory.mktemp("kits") / "kits")


def test_digest_goes_by_names_shapes_dtypes_and_values_and_not_by_order_or_layout() -> None:
    grid = np.arange(6, dtype=np.float32).reshape(2, 3)
    digest = digest_of_model({"a": grid, "b": grid})

    assert digest_of_model({"b": grid, "a": np.asfortranarray(grid)}) == digest
    assert digest_of_model({"a": grid.astype(">f4"), "b": grid}) == digest
    others = (
        {"a": grid, "c": grid},
        {"a": grid.reshape(3, 2), "b": grid},
        {"a": grid.astype(np.float64), "b": grid},
        {"a": grid + np.float32(1e-6), "b": grid},
    )
    assert digest not in [digest_of_model(other) for other in others]
    assert digest_of({WEIGHTS: {"a": grid}, "control": {"a": grid}}) != digest_of({WEIGHTS: {"a": grid}})


def test_server_writes_a_line_at_the_start_and_one_a_round(tmp_path: Path, kits: TinyKits) -> None:
    start, first, second, _, seal = read_ledger(make_signed_run(tmp_path, kits) / LEDGER_FILE)

    assert start.settings["num_rounds"] == 2
    assert start.settings["max_share"] == 0.5
    assert set(start.code) == {"version", "library_sha256", "bundle_sha256"}
    assert start.model == digest_of_model(model(1.0))
    assert (first.round, first.invited, first.sent) == (0, SITES, digest_of_model(model(1.0)))
    assert first.updates["hospital-1"].digest == digest_of_model(model(3))
    assert first.change == digest_of_model(model(2.5))
    assert second.model == seal.models["final_model.pt"] == digest_of_model(model(6.0))
    assert set(first.certificates) == set(SITES)
    assert second.certificates == {}  # known


def test_part_of_a_run_that_goes_on_names_the_last_line_before_it(tmp_path: Path) -> None:
    job = build_job("brats_unet_fedavg", tmp_path / "job", JobOptions("small", 1, sites=SITES, ledger_head="ab" * 32))
    server = ServerOfTwo(Engine(tmp_path / "server", "server", SITES), job, {}, head="ab" * 32)

    server.begin(1.0)

    [start] = read_ledger(server.files / LEDGER_FILE)
    assert start.previous == "ab" * 32


def test_site_keeps_what_it_signed(tmp_path: Path, kits: TinyKits) -> None:
    own = kits.hospital.folder / "local" / LEDGER_FILE
    own.unlink(missing_ok=True)

    sent = update("hospital-1", model(1.0), 4, kits.hospital)

    [receipt] = read_receipts(own)
    assert update_of(sent)[0].receipt == receipt
    assert (receipt.site, receipt.round, receipt.cases) == ("hospital-1", 4, 3)
    assert (receipt.received, receipt.sent) == (digest_of_model(model(1.0)), digest_of_model(model(3)))


def test_site_without_certificates_signs_nothing(tmp_path: Path) -> None:
    result = DXO(DataKind.WEIGHT_DIFF, data=model(1.0)).to_shareable()

    add_receipt(result, {WEIGHTS: model(1.0)}, 0, Engine(tmp_path, "hospital-1").new_context())

    assert result.get_header(RECEIPT_HEADER) is None
    assert not (tmp_path / "local" / LEDGER_FILE).exists()


@pytest.mark.parametrize("cases", NO_COUNTS)
def test_no_receipt_is_made_of_what_is_no_number_of_cases(kits: TinyKits, cases: object, tmp_path: Path) -> None:
    kit = Path(shutil.copytree(kits.hospital.folder, tmp_path / "kit", symlinks=True))
    sent = DXO(DataKind.WEIGHT_DIFF, data=model(1.0), meta={MetaKey.NUM_STEPS_CURRENT_ROUND: cases}).to_shareable()
    before = read_receipts(kit / "local" / LEDGER_FILE)

    with pytest.raises(ModelError, match="number of training cases must be a whole number"):
        add_receipt(sent, {WEIGHTS: model(1.0)}, 0, Engine(kit, "hospital-2").new_context())

    assert sent.get_header(RECEIPT_HEADER) is None
    assert read_receipts(kit / "local" / LEDGER_FILE) == before


@pytest.mark.parametrize(
    "change",
    [
        lambda signed: "signed",
        lambda signed: {**signed, "more": 1},
        lambda signed: {**signed, "signature": "x" * 20_000},
        lambda signed: {**signed, "certificate": "line\x00"},
        lambda signed: {**signed, "receipt": {**signed["receipt"], "site": "a\nb"}},
        lambda signed: {**signed, "receipt": {**signed["receipt"], "sent": "short"}},
        lambda signed: {**signed, "receipt": {**signed["receipt"], "cases": float("nan")}},
    ],
)
def test_receipt_that_is_none_costs_the_signature_and_not_the_update(kits: TinyKits, change: Any) -> None:
    sent: Shareable = update("hospital-1", model(1.0), 0, kits.hospital)
    known = update_of(sent)[0]
    sent.set_header(RECEIPT_HEADER, change(sent.get_header(RECEIPT_HEADER)))

    assert update_of(sent) == (replace(known, receipt=None, signature=""), "")


def test_masked_update_has_the_same_digest_at_the_site_and_at_the_server(kits: TinyKits) -> None:
    words, meta = np.arange(6, dtype=np.uint32), {MetaKey.NUM_STEPS_CURRENT_ROUND: 4}
    sent = DXO(DataKind.APP_DEFINED, data={MASKED: words}, meta=meta).to_shareable()
    engine = Engine(kits.hospital.folder, "hospital-1")

    add_receipt(sent, {WEIGHTS: model(1.0)}, 0, engine.new_context())

    found, certificate = update_of(sent)
    assert found.receipt is not None
    assert found.receipt.sent == found.digest == digest_of({MASKED: {"words": words}})
    assert not why_not_signed(receipt_bytes(found.receipt), found.signature, read_pem(certificate, "hospital-1"))
