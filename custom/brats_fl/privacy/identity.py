"""Who a key belongs to: it is signed with the key of a site's FLARE certificate, so that nobody plays a hospital.

FLARE's provisioning makes a certificate for each site, ``startup/client.crt`` of its kit, signed by the federation's
own authority, ``rootCA.pem``, whose key stays with whoever provisions and is not at the server.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Final

from brats_fl.errors import KitError, LedgerError, MaskingError
from brats_fl.signatures import Signer, find_signer, read_pem, why_not_of, why_not_signed
from brats_fl.signatures import read_authority as read_certificate

AUTHORITY_FILE: Final = "rootCA.pem"


@dataclass(frozen=True)
class Identity:
    """What a site signs with, and believes others by."""

    signer: Signer
    authority: Any
    """The federation's certificate."""


def read_identity(startup: Path) -> Identity:
    """The identity of a kit.

    Args:
        startup: Its folder of certificates.

    Raises:
        MaskingError: A file is missing, or is none.
    """
    try:
        signer = find_signer(startup)
    except KitError as error:
        raise _unreadable(startup, error) from error
    if signer is None:
        raise _unreadable(startup, None)
    return Identity(signer, read_authority(startup))


def read_authority(startup: Path) -> Any:
    """The federation's certificate, of a kit of a site or the server; raises as ``read_identity``."""
    try:
        return read_certificate(startup / AUTHORITY_FILE)
    except KitError as error:
        raise _unreadable(startup, error) from error


def _unreadable(startup: Path, error: Exception | None) -> MaskingError:
    why = f" ({error})" if error else ""
    return MaskingError(
        f"{startup}: the certificates of the kit must be there, so that the keys of secure aggregation are its "
        f"owner's{why}; provision the kit again"
    )


def check_signature(authority: Any, site: str, certificate: str, statement: bytes, signature: str) -> None:
    """Raise ``MaskingError`` unless a site of this federation has signed a statement.

    Args:
        authority: The federation's certificate.
        site: Whose statement it is said to be.
        certificate: PEM, not trusted.
        statement: What was signed.
        signature: Of it, as ``Signer.sign`` writes it; not trusted.
    """
    try:
        found = read_pem(certificate, site)
    except LedgerError as error:
        why = str(error)
    else:
        now = datetime.now(timezone.utc).isoformat()
        why = why_not_of(found, site, authority, now) or why_not_signed(statement, signature, found)
    if why:
        raise MaskingError(
            f"the key of {site} is not signed by a certificate of this federation that is its own: {why}; somebody "
            "plays the hospital, or it has another federation's kit"
        )
