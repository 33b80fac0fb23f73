"""Kits: provisioning, again with one more hospital, and what a kit says of itself."""

from __future__ import annotations

import json
import re
import stat
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.tiny_kits import KEPT, TinyKits, sign, write_project
from typer.testing import CliRunner, Result

from brats_fl.errors import KitError, SiteNameError
from brats_fl_tools.cli import app
from brats_fl_tools.kit.certificates import fingerprint, read_certificate, server_names, startup_digest
from brats_fl_tools.kit.kits import check_host, provision, read_federation, read_kit, read_project


def run_provision(project: Path, out: Path, *more: str) -> Result:
    return CliRunner().invoke(app, ["kit", "provision", str(project), "--out", str(out), *more])


def test_kit_says_who_it_is_for_and_where_the_server_is(provisioned: TinyKits) -> None:
    federation = provisioned.federation

    assert [kit.name for kit in federation.clients] == ["hospital-1", "hospital-2"]
    assert [kit.name for kit in federation.admins] == ["lead@consortium.example"]
    for kit in (*federation.clients, *federation.admins):
        assert (kit.host, kit.port) == ("localhost", 18700)
    assert federation.server.port == 18700


def test_authority_and_keys_can_be_read_by_their_owner_only(provisioned: TinyKits) -> None:
    state = provisioned.out / "brats_federation" / "state" / "cert.json"

    for secret in (state, provisioned.hospital.private_key, provisioned.federation.server.private_key):
        assert stat.S_IMODE(secret.stat().st_mode) == 0o600


def test_one_more_hospital_leaves_the_kits_of_the_others_as_they_are(kits: TinyKits) -> None:
    project = write_project(kits.out / "project.yml", (*KEPT, "hospital-3"))

    result = run_provision(project, kits.out, "--host", "localhost", "--port", "18700")

    assert result.exit_code == 0, result.output
    after = read_federation(kits.out / "brats_federation" / "prod_01")
    for kit in (kits.federation.server, *kits.federation.clients, *kits.federation.admins):
        assert startup_digest(read_kit(after.folder / kit.folder.name)) == startup_digest(kit)
    lines = {line.split()[0]: line for line in result.output.splitlines() if line}
    assert lines["hospital-1"].endswith("hospital_1, as in prod_00: nothing to send")
    assert lines["hospital-3"].endswith("hospital_3, new: send it")
    assert fingerprint(read_certificate(after.clients[2], authority=True)) in result.output


def test_kits_for_another_port_are_to_be_sent_again(kits: TinyKits) -> None:
    project = write_project(kits.out / "project.yml")

    result = run_provision(project, kits.out, "--host", "localhost", "--port", "18701")

    assert result.exit_code == 0, result.output
    assert "hospital_1, changed: send it again" in result.output


@pytest.mark.parametrize(
    "host",
    [
        *("", " ", "a b", "a_b", "a..b", "-a", "a-", "http://a", "a:80", "::1", "localhost\n", "999.1.1.1", "1.2.3"),
        *("ü.de", "a" * 64, ".".join(["a" * 60] * 5), None, 5),
    ],
)
def test_host_that_no_server_can_have_is_refused_before_anything_is_written(host: Any, tmp_path: Path) -> None:
    project = yaml.safe_load(write_project(tmp_path / "project.yml").read_text())
    project["participants"][0]["default_host"] = host
    (tmp_path / "project.yml").write_text(yaml.safe_dump(project))
    by_option = (host,) if isinstance(host, str) else ()

    for option in ((), *((one,) for one in by_option)):
        with pytest.raises(KitError, match="the server's host must be a name"):
            provision(tmp_path / "project.yml", tmp_path / "out", *option)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("host", ["localhost", "fl.hospital.example", "10.0.0.7", "xn--mnchen-3ya.de", "a" * 63])
def test_host_that_a_server_can_have_is_taken(host: str) -> None:
    check_host(host, "--host")


def test_another_host_is_refused_since_the_server_keeps_its_certificate(kits: TinyKits) -> None:
    project = write_project(kits.out / "project.yml")

    result = run_provision(project, kits.out, "--host", "fl.elsewhere.example")

    assert isinstance(result.exception, KitError)
    assert "the server's certificate is for localhost, not for fl.elsewhere.example; keep the host" in str(
        result.exception
    )
    assert not (kits.out / "brats_federation" / "prod_01").exists()


def test_project_file_that_cannot_be_used_names_file_and_mend(tmp_path: Path) -> None:
    project = tmp_path / "project.yml"
    with pytest.raises(KitError, match=r"project\.yml: no such project file; start from poc_workspace/project\.yml"):
        read_project(project)
    project.write_text("participants: [", encoding="utf-8")
    with pytest.raises(KitError, match=r"project\.yml: cannot be read as YAML"):
        read_project(project)
    project.write_text("name: x", encoding="utf-8")
    with pytest.raises(KitError, match=r"project\.yml: must hold `name` and a list of `participants`"):
        read_project(project)


SERVER = {"name": "server", "type": "server", "org": "a", "default_host": "localhost"}
CLIENT = {"name": "hospital-1", "type": "client", "org": "b"}


@pytest.mark.parametrize(
    ("participants", "said"),
    [
        ([CLIENT], r"participants must hold one server and at least one client \(got client\)"),
        ([SERVER], r"participants must hold one server and at least one client \(got server\)"),
        (["hospital-1"], r"each participant must have a name, a type and an org \(got 'hospital-1'\)"),
        (
            [SERVER, CLIENT, {"name": "x", "type": "pirate", "org": "c"}],
            r"x: type must be server, client, admin \(got 'pirate'\)",
        ),
        ([SERVER, CLIENT, CLIENT], "hospital 'hospital-1' stands twice"),
        ([SERVER, {**CLIENT, "name": "hospital 1/.."}], "FLARE does not bear the name 'hospital 1/..'"),
        ([SERVER, {**CLIENT, "org": "hospital 1"}], "cannot be provisioned: "),
    ],
    ids=["no-server", "no-hospital", "names-only", "unknown-type", "twice", "no-site-name", "no-org-name"],
)
def test_participants_that_make_no_federation_are_refused(
    tmp_path: Path, participants: list[object], said: str
) -> None:
    project = write_project(tmp_path / "project.yml")
    content = read_project(project) | {"participants": participants}
    project.write_text(json.dumps(content), encoding="utf-8")  # JSON is YAML

    result = run_provision(project, tmp_path / "out")

    assert isinstance(result.exception, (KitError, SiteNameError)), result.output
    assert re.search(rf"project\.yml: {said}", str(result.exception))


def test_folder_that_is_no_kit_says_what_a_kit_holds(tmp_path: Path) -> None:
    with pytest.raises(KitError, match=r"no startup kit there; it must hold startup/ with one of fed_server\.json"):
        read_kit(tmp_path)
    with pytest.raises(KitError, match="holds 0 server kits and 0 hospitals' kits"):
        read_federation(tmp_path)


def test_damaged_kit_is_refused_with_the_file(kits: TinyKits) -> None:
    path = kits.hospital.folder / "startup" / "fed_client.json"
    path.write_text("{}", encoding="utf-8")

    with pytest.raises(KitError, match=r"fed_client\.json: has no client\.fqsn; ask for the kit again"):
        read_kit(kits.hospital.folder)


def test_provisioning_says_what_was_written_and_what_is_secret(tmp_path: Path) -> None:
    folder = provision(write_project(tmp_path / "project.yml"), tmp_path / "out")

    assert folder == tmp_path / "out" / "brats_federation" / "prod_00"
    assert sorted(path.name for path in folder.iterdir()) == sorted(KEPT)


def test_certificate_that_names_no_host_is_valid_for_none() -> None:
    assert server_names(sign(None, "server", host="localhost")[1]) == ["localhost"]
    assert server_names(sign(None, "server", host="")[1]) == []
