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

from brats_fl_tools.drill.houses import PORT, SERVER_NAME, Houses
from brats_fl_tools.kit.kits import provision


def foreign_kit(houses: Houses, folder: Path) -> Path:
    """Kit of ``hospital-9`` from a provisioning of its own, so signed by another authority."""
    return _kit(houses.hosts.folder / "project.yml", houses.hosts.folder / "other-provisioning", "hospital-9", folder)


def new_kit(houses: Houses, name: str, folder: Path) -> Path:
    """Kit of one hospital more, added to the federation by its own authority."""
    return _kit(houses.hosts.folder / "project.yml", houses.hosts.folder / "provisioning", name, folder)


def expire(houses: Houses, kit: Path) -> None:
    """Replace a hospital's certificate by one of the federation's own authority that ran out yesterday."""
    now = datetime.datetime.now(datetime.timezone.utc)
    begin, end = (now - datetime.timedelta(days=days) for days in (30, 1))
    renew(houses, kit / "startup" / "client.crt", begin, end)


def renew(houses: Houses, certificate: Path, begin: datetime.datetime, end: datetime.datetime) -> None:
    """Replace a certificate by one of the same key and authority with another time of validity."""
    provisioning = houses.hosts.folder / "provisioning"
    state = json.loads(next(provisioning.glob("*/state/cert.json")).read_text(encoding="utf-8"))
    valid = x509.load_pem_x509_certificate(certificate.read_bytes())
    key = serialization.load_pem_private_key(state["root_pri_key"].encode(), password=None)
    renewed = _with_dates(valid, begin, end).sign(key, hashes.SHA256())  # type: ignore[arg-type]
    certificate.write_bytes(renewed.public_bytes(serialization.Encoding.PEM))


def _kit(project_file: Path, provisioning: Path, name: str, folder: Path) -> Path:
    project: dict[str, Any] = yaml.safe_load(project_file.read_text(encoding="utf-8"))
    project["participants"].append({"name": name, "type": "client", "org": name.replace("-", "_")})
    with_it = provisioning.parent / f"project-{name}.yml"
    with_it.write_text(yaml.safe_dump(project), encoding="utf-8")
    kits = provision(with_it, provisioning, SERVER_NAME, PORT)
    shutil.rmtree(folder, ignore_errors=True)
    shutil.move(kits / name, folder)
    return folder


def _with_dates(
    certificate: x509.Certificate, begin: datetime.datetime, end: datetime.datetime
) -> x509.CertificateBuilder:
    builder = (
        x509.CertificateBuilder()
        .subject_name(certificate.subject)
        .issuer_name(certificate.issuer)
        .public_key(certificate.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(end)
    )
    for extension in certificate.extensions:
        builder = builder.add_extension(extension.value, extension.critical)
    return builder
