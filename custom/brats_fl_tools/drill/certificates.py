"""Kits that must not be let in: of another authority, or out of date."""

from __future__ import annotations

import datetime
import json
import shutil
from pathlib import Path
from typing import Any

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from brats_fl_tools.drill.federation import PORT, SERVER_NAME, Drill
from brats_fl_tools.kit.kits import provision


def foreign_kit(drill: Drill, folder: Path) -> Path:
    """Kit of ``hospital-9`` from a provisioning of its own, so signed by another authority."""
    return _kit(drill.hosts.folder / "project.yml", drill.hosts.folder / "other-provisioning", "hospital-9", folder)


def new_kit(drill: Drill, name: str, folder: Path) -> Path:
    """Kit of one hospital more, added to the federation by its own authority."""
    return _kit(drill.hosts.folder / "project.yml", drill.hosts.folder / "provisioning", name, folder)


def expire(drill: Drill, kit: Path) -> None:
    """Replace a kit's certificate by one of the federation's own authority that ran out yesterday."""
    provisioning = drill.hosts.folder / "provisioning"
    state = json.loads(next(provisioning.glob("*/state/cert.json")).read_text(encoding="utf-8"))
    certificate = kit / "startup" / "client.crt"
    valid = x509.load_pem_x509_certificate(certificate.read_bytes())
    key = serialization.load_pem_private_key(state["root_pri_key"].encode(), password=None)
    expired = _with_dates(valid, days_ago=(30, 1)).sign(key, hashes.SHA256())  # type: ignore[arg-type]
    certificate.write_bytes(expired.public_bytes(serialization.Encoding.PEM))


def _kit(project_file: Path, provisioning: Path, name: str, folder: Path) -> Path:
    project: dict[str, Any] = yaml.safe_load(project_file.read_text(encoding="utf-8"))
    project["participants"].append({"name": name, "type": "client", "org": name.replace("-", "_")})
    with_it = provisioning.parent / f"project-{name}.yml"
    with_it.write_text(yaml.safe_dump(project), encoding="utf-8")
    kits = provision(with_it, provisioning, SERVER_NAME, PORT)
    shutil.rmtree(folder, ignore_errors=True)
    shutil.move(kits / name, folder)
    return folder


def _with_dates(certificate: x509.Certificate, days_ago: tuple[int, int]) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.timezone.utc)
    builder = (
        x509.CertificateBuilder()
        .subject_name(certificate.subject)
        .issuer_name(certificate.issuer)
        .public_key(certificate.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=days_ago[0]))
        .not_valid_after(now - datetime.timedelta(days=days_ago[1]))
    )
    for extension in certificate.extensions:
        builder = builder.add_extension(extension.value, extension.critical)
    return builder
