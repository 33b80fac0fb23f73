"""What a hospital's IT reads of what left, and whether its contract holds."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.tiny_kits import TinyKits
from typer.testing import CliRunner

from brats_fl.sharing.egress import CONTRACT_FILE, LOG_FILE, Sent, write_log
from brats_fl_tools.cli import app
from brats_fl_tools.kit.egress import check_egress, sum_up
from brats_fl_tools.kit.site_files import site_files, write_site_files


@pytest.fixture
def local(kits: TinyKits) -> Path:
    write_site_files(site_files(kits.hospital, "strict"))
    return kits.hospital.folder / "local"


def line(month: str, number: int, kind: str = "update", status: str = "sent") -> Sent:
    return Sent(
        f"{month}-05T10:00:00+00:00", "0f7a", "brats_unet_fedavg", number, "train", kind, bytes=600, status=status
    )


def test_what_left_is_summed_up_by_month_and_job(kits: TinyKits, local: Path) -> None:
    sent = [line("2026-01", 0), line("2026-01", 1), line("2026-01", 1, "metrics"), line("2026-02", 2)]
    for one in [*sent, line("2026-02", 3, status="EGRESS_REFUSED")]:
        write_log(local / LOG_FILE, one)

    assert sum_up(kits.hospital) == [
        ("2026-01", "brats_unet_fedavg", "2", "3", "1,800", "0", "metrics, update"),
        ("2026-02", "brats_unet_fedavg", "1", "1", "600", "1", "update"),
    ]
    done = CliRunner().invoke(app, ["kit", "egress", str(kits.hospital.folder)])
    assert done.exit_code == 0
    assert "2026-01" in done.output


def test_site_from_which_nothing_left_says_so(kits: TinyKits, local: Path) -> None:
    assert CliRunner().invoke(app, ["kit", "egress", str(kits.hospital.folder)]).output == "nothing left so far\n"


def test_check_tells_whether_what_leaves_is_held_to_a_contract(kits: TinyKits, local: Path) -> None:
    assert check_egress(kits.hospital).found.startswith("logged; no contract")

    (local / CONTRACT_FILE).write_text('{"metrics": "rounded", "fewest_cases": 20}')
    assert check_egress(kits.hospital).found == "logged, and held to egress.json"

    (local / CONTRACT_FILE).write_text('{"metrics": "round"}')
    assert check_egress(kits.hospital).state == "error"

    (local / "privacy.json").write_text("{}")
    assert "neither logged nor held" in check_egress(kits.hospital).found
