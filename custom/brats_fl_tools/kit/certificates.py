"""The certificates of a kit: who signed them, for whom, and how long they are valid."""

from __future__ import annotations

import stat
from datetime import datetime, timezone

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import NameOID

from brats_fl.errors import KitError
from brats_fl.provenance import hash_files
from brats_fl_tools.kit.kits import Kit
from brats_fl_tools.kit.results import CheckResult, fail, passed, warn

WARN_DAYS = 30
"""A new provisioning and the way of five kits to five hospitals take weeks, not days."""

NEW_KIT = "ask the lead for this kit again"
RENEW = "ask the lead to renew the kits, see docs/lead.md"


def read_certificate(kit: Kit, authority: bool = False) -> x509.Certificate:
    """The kit's own certificate, or that of the authority which signed it.

    Raises:
        KitError: The file is missing or damaged.
    """
    path = kit.authority if authority else kit.certificate
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError) as error:
        raise KitError(f"{path}: no readable certificate ({error}); {NEW_KIT}") from error


def fingerprint(certificate: x509.Certificate) -> str:
    """SHA-256 of a certificate as OpenSSL and browsers show it: pairs of hex digits between colons."""
    return certificate.fingerprint(hashes.SHA256()).hex(":").upper()


def startup_digest(kit: Kit) -> str:
    """SHA-256 over all files of ``startup``, which nobody has to change after provisioning."""
    return hash_files(kit.folder / "startup", ("*",))


def subject(certificate: x509.Certificate) -> str:
    """Name of whom a certificate is for; empty where it says none."""
    return _field(certificate, NameOID.COMMON_NAME)


def organisation(certificate: x509.Certificate) -> str:
    """Organisation of whom a certificate is for, ``org`` in the project file; empty where it says none."""
    return _field(certificate, NameOID.ORGANIZATION_NAME)


def _field(certificate: x509.Certificate, field: x509.ObjectIdentifier) -> str:
    values = certificate.subject.get_attributes_for_oid(field)
    return str(values[0].value) if values else ""


def server_names(certificate: x509.Certificate) -> list[str]:
    """Host names and addresses that a server's certificate is valid for; none where it names none."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [str(name.value) for name in names]


def check_certificates(kit: Kit) -> list[CheckResult]:
    """Authority, own certificate, private key and unchanged ``startup``."""
    try:
        authority, own = read_certificate(kit, authority=True), read_certificate(kit)
    except KitError as error:
        return [fail("certificate", str(error), NEW_KIT)]
    return [
        check_authority(authority),
        check_own(kit, own, authority),
        check_key(kit, own),
        passed("startup digest", f"{startup_digest(kit)[:16]}: compare by phone with the lead's list"),
    ]


def check_authority(authority: x509.Certificate) -> CheckResult:
    """Validity and fingerprint of the authority."""
    found = f"{subject(authority)}, SHA-256 {fingerprint(authority)}: compare by phone with the lead's"
    return check_validity("authority", found, authority)


def check_own(kit: Kit, own: x509.Certificate, authority: x509.Certificate) -> CheckResult:
    """The kit's certificate is signed by the kit's authority, for the kit's name, and valid now."""
    name = "certificate"
    try:
        own.verify_directly_issued_by(authority)
    except (InvalidSignature, ValueError, TypeError):
        return fail(name, f"{kit.certificate} was not signed by {kit.authority}", f"the two do not match; {NEW_KIT}")
    if kit.kind != "server" and subject(own) != kit.name:
        return fail(name, f"{kit.certificate} is for {subject(own)!r}, the kit for {kit.name!r}", NEW_KIT)
    return check_validity(name, f"for {subject(own)}", own)


def check_validity(name: str, found: str, certificate: x509.Certificate) -> CheckResult:
    """A certificate's dates against this machine's clock."""
    now = datetime.now(timezone.utc)
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    days = (end - now).days
    if begin > now:
        text = f"{found}; valid from {begin:%Y-%m-%d %H:%M} UTC only, this machine's clock says {now:%Y-%m-%d %H:%M}"
        return fail(name, text, "set the clock (timedatectl)")
    if end <= now:
        return fail(name, f"{found}; expired on {end:%Y-%m-%d}", RENEW)
    text = f"{found}; valid until {end:%Y-%m-%d}, {days} days"
    return warn(name, text, RENEW) if days < WARN_DAYS else passed(name, text)


def check_key(kit: Kit, own: x509.Certificate) -> CheckResult:
    """The private key belongs to the certificate, and nobody else may read it."""
    name, path = "private key", kit.private_key
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as error:
        return fail(name, f"{path} cannot be read ({error})", NEW_KIT)
    if key.public_key() != own.public_key():
        return fail(name, f"{path} does not belong to {kit.certificate.name}", NEW_KIT)
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        return fail(name, f"{path} can be read by others (mode {mode:03o})", f"chmod 600 '{path}'")
    return passed(name, f"belongs to the certificate, mode {mode:03o}")
