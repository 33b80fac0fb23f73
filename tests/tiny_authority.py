"""A federation's certificates, made as FLARE makes them: an authority, and a certificate for each site."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from brats_fl.privacy.identity import AUTHORITY_FILE, Identity, read_identity
from brats_fl.signatures import CERTIFICATE_FILE, KEY_FILE

NOW = datetime.now(timezone.utc)


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


class Authority:
    """Whoever provisions a federation."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.key = generate_private_key(65537, 2048)
        self.site_key = generate_private_key(65537, 2048)
        """Of every site: making one takes as long as the rest of a test, and none tells them apart by it."""
        self.certificate = self._issue("consortium", self.key, NOW + timedelta(days=1))

    def _issue(self, name: str, key: RSAPrivateKey, until: datetime) -> x509.Certificate:
        builder = x509.CertificateBuilder(
            _name("consortium"), _name(name), key.public_key(), x509.random_serial_number()
        )
        builder = builder.not_valid_before(until - timedelta(days=2)).not_valid_after(until)
        return builder.sign(self.key, SHA256())

    def startup(self, site: str, until: datetime = NOW + timedelta(days=1)) -> Path:
        """Folder ``startup`` of a site's kit."""
        folder = self.folder / site / "startup"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / AUTHORITY_FILE).write_bytes(self.certificate.public_bytes(Encoding.PEM))
        (folder / CERTIFICATE_FILE).write_bytes(self._issue(site, self.site_key, until).public_bytes(Encoding.PEM))
        text = self.site_key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
        (folder / KEY_FILE).write_bytes(text)
        return folder

    def identity(self, site: str, until: datetime = NOW + timedelta(days=1)) -> Identity:
        """As the site reads it."""
        return read_identity(self.startup(site, until))
