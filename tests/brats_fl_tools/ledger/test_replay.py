"""The models of a run come out again from the updates that the server kept, or it is said why not."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from tests.signed_run import make_signed_run, model
from typer.testing import CliRunner

from brats_fl.digests import digest_of_model
from brats_fl.errors import LedgerError, ModelError
from brats_fl.ledger import LEDGER_FILE, read_ledger
from brats_fl_tools.cli import app
from brats_fl_tools.ledger.command import judge
from brats_fl_tools.ledger.replay import replay_run


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_signed_run(tmp_path_factory.mktemp("kept"), None, keep_updates=True)


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "run"))


def replayed(run: Path) -> list[str]:
    return list(replay_run(run, read_ledger(run / LEDGER_FILE)))


def test_models_of_both_rounds_come_out_again(run: Path) -> None:
    done = CliRunner().invoke(app, ["ledger", "replay", str(run)])

    assert done.exit_code == 0, done.output
    assert done.output.splitlines() == [
        f"round 0: 2 updates give the model {digest_of_model(model(3.5))[:16]}",
        f"round 1: 2 updates give the model {digest_of_model(model(6.0))[:16]}",
    ]
    assert judge(run).problems == ()


def test_kept_update_that_was_changed_is_named(run: Path) -> None:
    file = run / "updates/round-0001/hospital-2.pt"
    payloads = torch.load(file, weights_only=True)
    payloads["weights"]["w"][0, 0] += 1e-6
    torch.save(payloads, file)

    with pytest.raises(LedgerError, match="round 1: the kept update of hospital-2 is not the one"):
        replayed(run)


def test_kept_update_that_is_missing_is_named(run: Path) -> None:
    (run / "updates/round-0000/hospital-1.pt").unlink()

    with pytest.raises(ModelError, match=r"round-0000/hospital-1.pt: no such file"):
        replayed(run)


def test_mean_that_is_another_is_found(run: Path) -> None:
    ledger = run / LEDGER_FILE
    ledger.write_text(ledger.read_text().replace('"cases":1,', '"cases":2,'))

    with pytest.raises(LedgerError, match="round 0: change is "):
        replayed(run)


def test_run_whose_updates_were_not_kept_is_told_so(run: Path) -> None:
    shutil.rmtree(run / "updates")

    with pytest.raises(LedgerError, match="the server kept no updates, so that nothing can be computed again"):
        replayed(run)
