"""Startup kits of a federation with two hospitals, and certificates as an authority might have signed them."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from brats_fl_tools.kit.kits import Federation, Kit, provision, read_federation
from brats_fl_tools.repository import POC_WORKSPACE

KEPT = ("server", "hospital-1", "hospital-2", "lead@consortium.example")


def write_project(path: Path, names: tuple[str, ...] = KEPT) -> Path:
    """This project's own project file with fewer participants, and more hospitals where ``names`` has them."""
    project = yaml.safe_load((POC_WORKSPACE / "project.yml").read_text(encoding="utf-8"))
    known = {entry["name"]: entry for entry in project["participants"]}
    project["participants"] = [
        known.get(name, {"name": name, "type": "client", "org": name.replace("-", "_")}) for name in names
    ]
    path.write_text(yaml.safe_dump(project), encoding="utf-8")
    return path


@dataclass(frozen=True)
class TinyKits:
    """Kits that a test may change."""

    out: Path
    federation: Federation

    @property
    def hospital(self) -> Kit:
        """The kit of ``hospital-1``."""
        return self.federation.clients[0]

    @property
    def authority(self) -> tuple[rsa.RSAPrivateKey, x509.Certificate]:
        """Key and certificate of the federation's authority."""
        state = json.loads((self.out / "brats_federation/state/cert.json").read_text(encoding="utf-8"))
        key = serialization.load_pem_private_key(state["root_pri_key"].encode(), password=None)
        assert isinstance(key, rsa.RSAPrivateKey)
        return key, x509.load_pem_x509_certificate(state["root_cert"].encode())

    def issue(self, kit: Kit, host: str | None = None, days: tuple[float, float] = (-1, 100), name: str = "") -> None:
        """Put a new certificate and key into a kit.

        Args:
            kit: Server's or hospital's.
            host: Of the server; default: the kit's name.
            days: Begin and end of validity, from now.
            name: Subject; default: the kit's.
        """
        key, certificate = sign(self.authority, name or kit.name, host or kit.name, days)
        kit.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        write_key(kit.private_key, key)


def make_tiny_kits(out: Path) -> TinyKits:
    """Provision; takes a second."""
    out.mkdir(parents=True)
    folder = provision(write_project(out / "project.yml"), out, "localhost", 18700)
    return TinyKits(out, read_federation(folder))


def copy_tiny_kits(kits: TinyKits, out: Path) -> TinyKits:
    """The same kits in another place."""
    shutil.copytree(kits.out, out)
    return TinyKits(out, read_federation(out / "brats_federation" / "prod_00"))


def write_key(path: Path, key: rsa.RSAPrivateKey) -> None:
    """Write a private key as FLARE does."""
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    path.chmod(0o600)


def sign(
    authority: tuple[rsa.RSAPrivateKey, x509.Certificate] | None,
    name: str,
    host: str,
    days: tuple[float, float] = (-1, 100),
) -> tuple[rsa.RSAPrivateKey, x509.Certificate]:
    """A new key and its certificate, for no host where none is given; signed by an authority, by itself without one."""
    key, now = rsa.generate_private_key(65537, 2048), datetime.now(timezone.utc)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(authority[1].subject if authority else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + timedelta(days=days[0]))
        .not_valid_after(now + timedelta(days=days[1]))
    )
    if host:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
    return key, builder.sign(authority[0] if authority else key, hashes.SHA256())
