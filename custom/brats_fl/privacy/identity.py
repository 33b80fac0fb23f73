"""Who a key belongs to: it is signed with the key of a site's FLARE certificate, so that nobody plays a hospital.

FLARE's provisioning makes a certificate for each site, ``startup/client.crt`` of its kit, signed by the federation's
own authority, ``rootCA.pem``, whose key stays with whoever provisions and is not at the server.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Final

from brats_fl.errors import MaskingError

CERTIFICATE_FILE: Final = "client.crt"
KEY_FILE: Final = "client.key"
AUTHORITY_FILE: Final = "rootCA.pem"


@dataclass(frozen=True)
class Identity:
    """What a site signs with, and believes others by."""

    certificate: str
    """PEM."""
    key: Any
    """RSA, as FLARE makes it."""
    authority: Any
    """The federation's certificate."""


def read_identity(startup: Path) -> Identity:
    """The identity of a kit.

    Args:
        startup: Its folder of certificates.

    Raises:
        MaskingError: A file is missing, or is none.
    """
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        certificate = (startup / CERTIFICATE_FILE).read_text(encoding="ascii")
        key = load_pem_private_key((startup / KEY_FILE).read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as error:
        raise _unreadable(startup, error) from error
    return Identity(certificate, key, read_authority(startup))


def read_authority(startup: Path) -> Any:
    """The federation's certificate, of a kit of a site or the server; raises as ``read_identity``."""
    from cryptography.x509 import load_pem_x509_certificate

    try:
        return load_pem_x509_certificate((startup / AUTHORITY_FILE).read_bytes())
    except (OSError, ValueError) as error:
        raise _unreadable(startup, error) from error


def _unreadable(startup: Path, error: Exception) -> MaskingError:
    return MaskingError(
        f"{startup}: the certificates of the kit must be there, so that the keys of secure aggregation are its owner's "
        f"({type(error).__name__}); provision the kit again"
    )


def sign(identity: Identity, statement: bytes) -> bytes:
    """Signature of a statement, RSA-PSS with SHA-256."""
    from cryptography.hazmat.primitives.hashes import SHA256

    signature: bytes = identity.key.sign(statement, _padding(), SHA256())
    return signature


def check_signature(authority: Any, site: str, certificate: str, statement: bytes, signature: bytes) -> None:
    """Raise ``MaskingError`` unless a site of this federation has signed a statement.

    Args:
        authority: The federation's certificate.
        site: Whose statement it is said to be.
        certificate: PEM, not trusted.
        statement: What was signed.
        signature: Of it.
    """
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.x509 import load_pem_x509_certificate

    try:
        found = load_pem_x509_certificate(certificate.encode("ascii"))
        found.verify_directly_issued_by(authority)
        found.public_key().verify(signature, statement, _padding(), SHA256())  # type: ignore[union-attr, call-arg]
    except (ValueError, TypeError, AttributeError, InvalidSignature) as error:
        raise MaskingError(
            f"the key of {site} is not signed by a certificate of this federation ({type(error).__name__}): somebody "
            "plays the hospital, or it has another federation's kit"
        ) from error
    now = datetime.now(timezone.utc)
    if _name_in(found) != site or not found.not_valid_before_utc <= now <= found.not_valid_after_utc:
        raise MaskingError(f"the key of {site} is signed by another's certificate, or by one that is out of date")


def _name_in(certificate: Any) -> str:
    from cryptography.x509.oid import NameOID

    return "".join(str(part.value) for part in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME))


def _padding() -> Any:
    from cryptography.hazmat.primitives.asymmetric.padding import MGF1, PSS
    from cryptography.hazmat.primitives.hashes import SHA256

    return PSS(mgf=MGF1(SHA256()), salt_length=SHA256.digest_size)
