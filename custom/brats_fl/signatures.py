"""Signatures by the key of a FLARE certificate, a site's or the lead's; who has the authority's can check them."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.x509.oid import NameOID

from brats_fl.errors import KitError, LedgerError

KEY_FILE, CERTIFICATE_FILE = "client.key", "client.crt"
"""In ``startup`` of a hospital's and of an admin's kit."""

PADDING = padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.MAX_LENGTH)


@dataclass(frozen=True)
class Signer:
    """Who can sign for a kit."""

    key: rsa.RSAPrivateKey
    certificate: str
    """PEM."""

    def sign(self, content: bytes) -> str:
        """Signature of a content, base64: RSA-PSS with SHA-256."""
        return base64.b64encode(self.key.sign(content, PADDING, hashes.SHA256())).decode("ascii")


def find_signer(startup: Path) -> Signer | None:
    """The signer of a kit; None where there are no certificates, as in the simulator.

    Raises:
        KitError: The key is damaged, or none of RSA.
    """
    key_file, certificate_file = startup / KEY_FILE, startup / CERTIFICATE_FILE
    if not key_file.is_file() or not certificate_file.is_file():
        return None
    try:
        key = serialization.load_pem_private_key(key_file.read_bytes(), password=None)
        certificate = x509.load_pem_x509_certificate(certificate_file.read_bytes())
    except (OSError, ValueError, TypeError) as error:
        raise KitError(f"{key_file}: cannot be read with its certificate ({error}); ask for the kit again") from error
    if not isinstance(key, rsa.RSAPrivateKey):
        raise KitError(f"{key_file}: must be an RSA key, as FLARE provisions it; ask for the kit again")
    return Signer(key, certificate.public_bytes(serialization.Encoding.PEM).decode("ascii"))


def read_pem(text: str, whose: str) -> x509.Certificate:
    """A certificate.

    Raises:
        LedgerError: It is none.
    """
    try:
        return x509.load_pem_x509_certificate(text.encode("ascii"))
    except ValueError as error:
        raise LedgerError(f"the certificate of {whose} cannot be read ({error})") from error


def read_authority(path: Path) -> x509.Certificate:
    """The authority's certificate, ``rootCA.pem`` of any kit.

    Raises:
        KitError: The file is missing or damaged.
    """
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError) as error:
        raise KitError(
            f"{path}: no readable certificate ({error}); give startup/rootCA.pem of any kit of the federation"
        ) from error


def why_not_signed(content: bytes, signature: str, certificate: x509.Certificate) -> str:
    """Why a signature is not that of a certificate's key over a content; empty where it is."""
    key = certificate.public_key()
    if not isinstance(key, rsa.RSAPublicKey):
        return "the certificate's key is none of RSA"
    try:
        key.verify(base64.b64decode(signature, validate=True), content, PADDING, hashes.SHA256())
    except (InvalidSignature, binascii.Error, ValueError):
        return "the signature is not that of the certificate's key"
    return ""


def why_not_of(certificate: x509.Certificate, name: str, authority: x509.Certificate | None, time: str) -> str:
    """Why a certificate is not a participant's; empty where it is.

    Args:
        certificate: To look at.
        name: Of the participant.
        authority: That must have signed it; None where that is not asked.
        time: UTC, ISO 8601, when it must have been valid.
    """
    names = [str(value.value) for value in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    if names != [name]:
        return f"the certificate is for {', '.join(names) or 'nobody'}"
    if authority is not None:
        try:
            certificate.verify_directly_issued_by(authority)
        except (InvalidSignature, ValueError, TypeError):
            return "the certificate was not signed by the authority"
    try:
        when = datetime.fromisoformat(time).astimezone(timezone.utc)
    except (ValueError, OverflowError):
        return "its time is none"
    if not certificate.not_valid_before_utc <= when <= certificate.not_valid_after_utc:
        return f"the certificate was not valid at {time}"
    return ""
