"""Hosts that a kit meets: ports, proxies, copies that lost something, disks; each is named at once, with its mend."""

from __future__ import annotations

import codecs
import socket
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from tests.tiny_kits import TinyKits, write_project
from typer.testing import CliRunner

from brats_fl.errors import KitError, RunError
from brats_fl_tools.cli import app
from brats_fl_tools.kit import machine
from brats_fl_tools.kit.checks import check_scripts
from brats_fl_tools.kit.kits import read_federation, read_project
from brats_fl_tools.kit.server import check_port_free, check_proxy, without_proxy
from brats_fl_tools.kit.site_disk import check_on_disk
from brats_fl_tools.runs.host_federation import refuse_unfit


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("", 0))
        return int(listener.getsockname()[1])


@pytest.mark.parametrize(("family", "address"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_port_that_is_taken_on_either_kind_of_address_is_found(family: socket.AddressFamily, address: str):
    try:
        listener = socket.create_server((address, 0), family=family)
    except OSError as error:
        pytest.skip(f"no such address here: {error}")
    with listener:
        port = listener.getsockname()[1]
        taken = check_port_free(port)

    assert (taken.state, taken.found) == ("error", f"port {port} cannot be opened (Address already in use)")
    assert taken.mend == f"ss -ltnp 'sport = {port}' tells who has it; end that, or take another port"


def test_port_of_a_connection_that_has_just_ended_is_free():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as client:
            served, _ = listener.accept()
            served.close()  # who closes first waits in TIME_WAIT
            assert client.recv(1) == b""

    assert check_port_free(port).state == "ok"


@pytest.mark.parametrize("port", ["0", "70000", "-1", "eight"])
def test_port_that_is_none_is_refused_by_the_command_and_in_a_project(port: str, tmp_path: Path):
    done = CliRunner().invoke(app, ["poc", "prepare", "--workspace", str(tmp_path / "w"), "--port", port])
    assert done.exit_code == 2

    project = write_project(tmp_path / "project.yml")
    text = project.read_text(encoding="utf-8")
    project.write_text(text.replace("fed_learn_port: 8002", f"fed_learn_port: {port}"), encoding="utf-8")
    with pytest.raises(KitError, match=r"project\.yml: fed_learn_port must be a whole number, 1 to 65535 \(got"):
        read_project(project)


@pytest.mark.parametrize(
    ("environ", "warned"),
    [
        ({"https_proxy": "http://p:3128"}, True),
        ({"http_proxy": "http://p:3128", "no_proxy": "other.org"}, True),
        ({"https_proxy": "http://p:3128", "no_proxy": "localhost,.consortium.example"}, False),
        ({"https_proxy": "http://p:3128", "no_proxy": "consortium.example"}, False),
        ({"https_proxy": "http://p:3128", "no_proxy": "FL.Consortium.Example"}, False),
        ({"https_proxy": "http://p:3128", "no_proxy": "consortium.example", "no_grpc_proxy": "x.org"}, True),
        ({"HTTPS_PROXY": "http://p:3128", "HTTP_PROXY": "http://p:3128", "ALL_PROXY": "socks5://p"}, False),
        ({"https_proxy": ""}, False),
    ],
)
def test_proxy_is_told_where_grpc_would_go_through_it(environ: dict[str, str], warned: bool):
    """gRPC reads names in small letters only, and no_grpc_proxy in place of no_proxy."""
    assert bool(check_proxy("fl.consortium.example", environ)) is warned


def test_way_to_this_machine_leads_past_a_proxy_whichever_list_grpc_reads():
    assert without_proxy("localhost", {}) == {"no_proxy": "localhost"}
    environ = {"no_proxy": "a", "no_grpc_proxy": "b"}
    assert without_proxy("localhost", environ) == {"no_proxy": "a,localhost", "no_grpc_proxy": "b,localhost"}


def test_scripts_that_came_through_windows_a_zip_or_not_at_all_are_named_with_the_mend(kits: TinyKits):
    kit = kits.hospital
    start, stop = kit.folder / "startup" / "start.sh", kit.folder / "startup" / "stop_fl.sh"
    assert check_scripts(kit).state == "ok"

    stop.chmod(0o644)
    assert check_scripts(kit).mend == f"chmod u+x '{start.parent}'/*.sh"
    stop.chmod(0o755)
    start.write_bytes(start.read_bytes().replace(b"\n", b"\r\n"))
    found = check_scripts(kit)
    assert "start.sh" in found.found
    assert "the line ends of Windows" in found.found
    subprocess.run(["bash", "-c", found.mend], check=True)
    assert check_scripts(kit).state == "ok"
    start.unlink()
    assert check_scripts(kit).found == f"{start.parent} has no start.sh"


@pytest.mark.parametrize(
    ("name", "is_read_by_flare"),
    [("startup/fed_client.json", True), ("local/resources.json.default", True), ("local/egress.json", False)],
)
def test_byte_order_mark_that_flare_gives_up_at_is_named_with_the_mend(
    name: str, is_read_by_flare: bool, kits: TinyKits
):
    file = kits.hospital.folder / name
    content = file.read_bytes() if file.exists() else b"{}"
    file.write_bytes(codecs.BOM_UTF8 + content)

    found = check_on_disk(kits.hospital)

    assert [(one.check, one.state) for one in found] == [("configuration", "error")] * is_read_by_flare
    for one in found:
        assert f"{name} of {kits.hospital.folder} begin with a byte order mark" in one.found
        subprocess.run(["bash", "-c", one.mend], check=True)
        assert file.read_bytes() == content


def test_rules_that_everybody_on_the_machine_may_change_are_named_with_the_mend(kits: TinyKits):
    kit = kits.hospital
    assert check_on_disk(kit) == []
    (kit.folder / "local").chmod(0o777)
    (kit.folder / "local" / "resources.json.default").chmod(0o666)
    (kit.folder / "local" / "datalist.json").symlink_to("/nonexistent")

    (found,) = check_on_disk(kit)

    assert (found.check, found.state) == ("rights", "warning")
    assert "everybody on this machine may change local, local/resources.json.default of" in found.found
    subprocess.run(["bash", "-c", found.mend], check=True)
    assert check_on_disk(kit) == []


def test_kit_on_a_disk_from_which_nothing_may_be_run_is_named(kits: TinyKits, tmp_path: Path):
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "noexec", "tmpfs", str(place)], check=False)
    if mounted.returncode:
        pytest.skip("no disk can be mounted here")
    try:
        subprocess.run(["cp", "-r", str(kits.hospital.folder), str(place / "kit")], check=True)
        found = check_scripts(replace(kits.hospital, folder=place / "kit"))
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)

    assert "(mounted noexec)" in found.found
    assert found.mend == "move the kit to another disk, or have it mounted without noexec"


def test_one_kit_in_a_folder_with_a_space_is_named_before_anything_is_started(kits: TinyKits):
    """It would end the jobs of all hospitals."""
    folder = kits.federation.folder
    (folder / "hospital-2").rename(folder / "hospital-2 (1)")
    moved = read_federation(folder)
    moved = replace(moved, server=replace(moved.server, port=free_port()))

    with pytest.raises(RunError, match=r"nothing was started: .*hospital-2 \(1\): the path of the kit holds a space"):
        refuse_unfit(moved)


def test_little_shared_memory_is_a_warning_for_the_full_profile(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(machine, "shared_memory_fault", lambda workers: f"/dev/shm is too small for {workers}")

    (found,) = machine.check_shared_memory(machine.NEEDS["full"])
    assert (found.state, found.mend) == ("warning", "give it more memory (docker run --shm-size=2g, or --ipc=host)")
    assert "/dev/shm is too small for 4" in found.found
    assert machine.check_shared_memory(machine.NEEDS["small"]) == []
