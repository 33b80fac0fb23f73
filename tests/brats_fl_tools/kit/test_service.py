"""``brats-fl kit setup --systemd``: what a site's service may touch and take, and whether its unit still fits."""

from __future__ import annotations

import getpass
import json
import os
import pwd
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from tests.tiny_kits import TinyKits
from typer.testing import CliRunner

from brats_fl.cases.datalists import CACHE_VARIABLE
from brats_fl.errors import KitError
from brats_fl_tools.cli import app
from brats_fl_tools.kit.kits import Kit
from brats_fl_tools.kit.service import Limits, Places, closed_lines, owner_of, places_of, quote, render_unit, unit_file
from brats_fl_tools.kit.service_check import check_service, read_unit, unreadable, words

OTHER = "daemon"
"""An unprivileged user that every Linux has."""

MOST_EXPOSED = 2.5
"""Of the 10 of `systemd-analyze security`; this unit has 2.1, one without settings 9.6."""

FACTS = {"executable": sys.executable}


def write_datalist(folder: Path, scans: Path) -> Path:
    """A list of one case whose scans lie elsewhere."""
    scans.mkdir(parents=True, exist_ok=True)
    files = [scans / f"{name}.nii.gz" for name in ("t1c", "t1n", "t2w", "t2f", "seg")]
    for file in files:
        file.touch()
    *images, label = map(str, files)
    case = {"case": "P1", "patient": "P1", "image": images, "label": label, "labels": "brats2018-2021"}
    folder.mkdir(parents=True, exist_ok=True)
    content = {"site": "hospital-1", "training": [case], "validation": [], "testing": []}
    (folder / "datalist.json").write_text(json.dumps(content))
    return folder / "datalist.json"


@pytest.fixture(autouse=True)
def cache_beside_the_list(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(CACHE_VARIABLE, raising=False)


def write_unit(kit: Kit, places: Places) -> Path:
    """The unit of a kit that ran ``kit setup --systemd``."""
    path = unit_file(kit)
    path.parent.mkdir(exist_ok=True)
    for folder in places.write:
        folder.mkdir(exist_ok=True)
    path.write_text(render_unit(kit, OTHER, places, Limits()))
    for name in ("resources.json", "authorization.json", "privacy.json"):
        (kit.folder / "local" / name).touch()
    return path


def values(text: str, key: str) -> list[str]:
    return re.findall(rf"^{key}=(.*)$", text, re.MULTILINE)


def test_scans_and_what_guards_the_site_are_read_only_and_kit_and_cache_are_written(kits: TinyKits, tmp_path: Path):
    places = places_of(write_datalist(tmp_path / "lists", tmp_path / "scans" / "P1"))

    text = render_unit(kits.hospital, OTHER, places, Limits())

    kit = kits.hospital.folder
    assert values(text, "ProtectSystem") == ["strict"]
    assert words(values(text, "ReadWritePaths")) == [str(kit), f"{tmp_path}/lists", f"{tmp_path}/lists/cache"]
    assert words(values(text, "ReadOnlyPaths")) == [
        f"{tmp_path}/scans/P1",
        f"{kit}/startup",
        *(f"{kit}/local/{name}.json" for name in ("resources", "authorization", "privacy")),
    ]


def test_folder_of_the_data_list_stays_read_only_where_scans_lie_in_it(tmp_path: Path):
    places = places_of(write_datalist(tmp_path, tmp_path))

    assert places == Places(read=(tmp_path,), write=(tmp_path / "cache",))


def test_service_has_no_rights_and_ends_the_trainer_with_it(kits: TinyKits):
    text = render_unit(kits.federation.server, OTHER, Places(), Limits("16G", "400%", 512))

    expected = {
        "User": OTHER,
        "NoNewPrivileges": "yes",
        "CapabilityBoundingSet": "",
        "KillMode": "control-group",
        "Restart": "on-failure",
        "StartLimitBurst": "5",
        "MemoryMax": "16G",
        "CPUQuota": "400%",
        "TasksMax": "512",
    }
    assert {key: values(text, key) for key in expected} == {key: [value] for key, value in expected.items()}


@pytest.mark.parametrize(
    ("place", "homes", "temporary"),
    [("/srv/kit", "yes", "yes"), ("/home/kit", "read-only", "yes"), ("/tmp/kit", "yes", "no")],
)
def test_homes_and_temporary_files_of_others_are_hidden_unless_the_kit_lies_there(place, homes, temporary):
    text = "\n".join(closed_lines([Path(place)]))

    assert (values(text, "ProtectHome"), values(text, "PrivateTmp")) == ([homes], [temporary])


def test_limits_that_are_not_given_are_left_to_systemd(kits: TinyKits):
    text = render_unit(kits.hospital, OTHER, Places(), Limits())

    assert not re.search("MemoryMax|CPUQuota|TasksMax", text)


@pytest.mark.parametrize("limits", [{"memory": "16 GB"}, {"memory": "0"}, {"cpu": "4"}, {"cpu": "400%\nUser=root"}])
def test_limit_that_systemd_would_pass_over_is_refused(limits: dict[str, str]):
    with pytest.raises(KitError, match=r"--(memory-max|cpu-quota) must be .* \(got "):
        Limits(**limits)


@pytest.mark.parametrize("user", ["root", "nobody", "", "a b", "x\nUser=root"])
def test_user_is_unprivileged(kits: TinyKits, user: str):
    with pytest.raises(KitError, match="--user must be an unprivileged user"):
        render_unit(kits.hospital, user, Places(), Limits())


@pytest.mark.skipif(getpass.getuser() != "root", reason="only root owns files of root")
def test_kit_of_root_asks_for_a_user(kits: TinyKits):
    with pytest.raises(KitError, match="belongs to root, under whom no service should run; chown"):
        owner_of(kits.hospital)

    os.chown(kits.hospital.private_key, pwd.getpwnam(OTHER).pw_uid, -1)
    assert owner_of(kits.hospital) == OTHER


def test_server_below_1024_is_refused(kits: TinyKits):
    with pytest.raises(KitError, match="port 443 is below 1024"):
        render_unit(replace(kits.federation.server, port=443), OTHER, Places(), Limits())


@pytest.mark.parametrize("name", ["two words", "100%n", 'a "quote"', "back\\slash", "dollar $HOME", "ünïcode"])
def test_odd_path_is_one_word_of_the_unit(name: str):
    assert words([quote(f"/data/{name}")]) == [f"/data/{name}"]


def test_path_with_a_line_end_is_refused():
    with pytest.raises(KitError, match="a control character cannot stand in a unit"):
        quote("/data/a\nUser=root")


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd-analyze on this machine")
def test_systemd_takes_every_line_of_the_unit_and_finds_it_closed(kits: TinyKits, tmp_path: Path):
    scans = tmp_path / 'scans of 100% "quoted" $HOME'
    path = write_unit(kits.hospital, places_of(write_datalist(tmp_path / "lists", scans)))

    verified = subprocess.run(["systemd-analyze", "verify", str(path)], capture_output=True, text=True)
    # Of the machine's own units it says much, too; of this one nothing.
    said = [line for line in verified.stderr.splitlines() if path.name in line]
    judged = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", str(path)], capture_output=True, text=True
    )

    assert said == []
    level = re.search(r"Overall exposure level for \S+: (\d+\.\d)", judged.stdout)
    assert level is not None, judged.stderr
    assert float(level[1]) <= MOST_EXPOSED


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd-analyze on this machine")
def test_systemd_finds_a_line_that_is_wrong(kits: TinyKits):
    path = write_unit(kits.hospital, Places())
    path.write_text(path.read_text().replace("Restart=on-failure", "Restart=perhaps"))

    verified = subprocess.run(["systemd-analyze", "verify", str(path)], capture_output=True, text=True)

    assert any(path.name in line and "perhaps" in line for line in verified.stderr.splitlines())


def test_unit_that_fits_is_to_be_installed_and_then_is_in_order(kits: TinyKits, tmp_path: Path):
    unit = write_unit(kits.hospital, Places())
    unit.write_text(unit.read_text().replace(f"User={OTHER}", f"User={getpass.getuser()}"))  # who owns the kit
    (there := tmp_path / "system").mkdir()

    (before,) = check_service(kits.hospital, FACTS, installed=there)
    shutil.copy(unit, there)
    (after,) = check_service(kits.hospital, FACTS, installed=there)

    assert (before.state, before.found) == ("warning", f"{unit.name} fits the kit, and is not installed")
    assert f"install -m 644 '{unit}' '{there / unit.name}'" in before.mend
    assert (after.state, after.found) == ("ok", str(there / unit.name))


def test_kit_without_a_unit_has_no_line(kits: TinyKits):
    assert check_service(kits.hospital, FACTS) == []


def test_kit_that_was_moved_is_found(kits: TinyKits, tmp_path: Path):
    write_unit(kits.hospital, Places())
    moved = replace(kits.hospital, folder=tmp_path / "moved")
    shutil.move(kits.hospital.folder, moved.folder)

    (result,) = check_service(moved, FACTS)

    assert result.state == "error"
    assert f"the kit has {moved.folder}/startup/sub_start.sh" in result.found
    assert f"{kits.hospital.folder}/startup is not there" in result.found


def test_other_python_than_the_one_that_was_checked_is_found(kits: TinyKits):
    write_unit(kits.hospital, Places())

    (result,) = check_service(kits.hospital, {"executable": "/opt/other/bin/python3"})

    assert (result.state, "the one that was checked is /opt/other/bin/python3" in result.found) == ("error", True)


def test_cache_that_is_not_there_is_found(kits: TinyKits, tmp_path: Path):
    write_unit(kits.hospital, Places(write=(tmp_path / "cache",)))
    (tmp_path / "cache").rmdir()

    (result,) = check_service(kits.hospital, FACTS)

    assert (result.state, f"{tmp_path / 'cache'} is not there" in result.found) == ("error", True)


def test_scan_that_the_user_may_not_read_is_named_by_its_mode(tmp_path: Path):
    (scan := tmp_path / "t1c.nii.gz").touch()
    mine = getpass.getuser()

    scan.chmod(0o400)
    assert unreadable(mine, [scan]) == ""
    scan.chmod(0o000)
    assert unreadable(mine, [scan]) == f"user {mine} may not read {scan}"
    scan.chmod(0o444)
    tmp_path.chmod(0o600)  # the file could be read, but its folder not be passed
    assert unreadable(mine, [scan]) == f"user {mine} may not read {scan}"
    tmp_path.chmod(0o700)


def test_user_that_is_not_there_is_named(tmp_path: Path):
    assert unreadable("no-such-user", []) == "this machine has no user 'no-such-user'"


def test_line_that_is_no_setting_is_named(tmp_path: Path):
    (path := tmp_path / "x.service").write_text("[Service]\nUser=a\nhello\n")

    with pytest.raises(KitError, match=r"x\.service, line 3: must be KEY=VALUE"):
        read_unit(path)


def test_setup_writes_the_unit_after_showing_it_and_a_second_time_changes_nothing(kits: TinyKits, tmp_path: Path):
    datalist = write_datalist(tmp_path / "lists", tmp_path / "scans")
    options = ["--policy", "strict", "--data-list", str(datalist), "--systemd", "--user", OTHER, "--memory-max", "16G"]
    command = ["kit", "setup", str(kits.hospital.folder), *options]

    first = CliRunner().invoke(app, [*command, "--yes"])
    second = CliRunner().invoke(app, command)

    assert first.exit_code == 0, first.output
    assert "+MemoryMax=16G" in first.output
    assert values(unit_file(kits.hospital).read_text(), "User") == [OTHER]
    assert second.output == "nothing to change\n"


def test_limit_without_systemd_is_refused(kits: TinyKits):
    command = ["kit", "setup", str(kits.federation.server.folder), "--policy", "strict", "--memory-max", "16G"]

    result = CliRunner().invoke(app, command)

    assert (result.exit_code, "belong to --systemd" in result.output) == (2, True)
