"""The record of a run that anyone can check: a line a round, each with the hash of the line before.

    start   what runs: the job, the code by its digests, its settings and filters, the model that it begins with
    round   who was invited, what each site's record says, the digest of each accepted update with the site's receipt,
            the digests of the model that was sent, of the change and of the model after it
    end     the records of the last evaluation
    seal    the lead's: the job's content hash, the digests of the models of the run folder, a signature over all of it

A line is canonical JSON: its bytes follow from what it says. A site's receipt is what it signs with the key of its
FLARE certificate: what it received, what it sent, in which round of which job. The chain alone proves nothing against
a server that writes all of it anew; the receipts, the sites' own copies of them and the seal do.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from brats_fl.digests import canonical
from brats_fl.errors import LedgerError
from brats_fl.files import append_line
from brats_fl.provenance import hash_bytes
from brats_fl.reading import Reader
from brats_fl.round_records import check_record
from brats_fl.typed import shorten

LEDGER_FILE: Final = "ledger.jsonl"
"""In the folder of the job at the server, in the run folder, and in ``local`` of a hospital's kit."""

FORMAT: Final = 1
READER: Final = Reader(LedgerError, "the ledger was changed or is damaged: fetch it again from the server")
LONGEST_RECEIPT: Final = 16_384
"""Characters of a receipt's certificate and signature together; FLARE's have 1,700."""

_DIGEST = re.compile("[0-9a-f]{64}")
_WORDS = re.compile(r"[^\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]{1,200}")
_PEM = re.compile(r"[A-Za-z0-9+/=\n -]*")

Kind = Literal["start", "round", "end", "seal"]


@dataclass(frozen=True)
class Receipt:
    """What a site says of the model that it received and the update that it sent, and signs."""

    job: str
    """FLARE's id of the job."""
    site: str
    round: int
    received: str
    """Digest of what the site was sent."""
    sent: str
    """Digest of what it sent, after all filters."""
    cases: int
    """The weight of its update."""
    time: str
    """UTC, ISO 8601, by the site's clock."""

    def __post_init__(self) -> None:
        """Check the texts, which a site wrote.

        Raises:
            ValueError: One is no digest or no word.
        """
        for name in ("received", "sent"):
            if not _DIGEST.fullmatch(getattr(self, name)):
                raise ValueError(f"{name} must be a SHA-256 (got {shorten(getattr(self, name))})")
        for name in ("job", "site", "time"):
            if not _WORDS.fullmatch(getattr(self, name)):
                raise ValueError(f"{name} must be 1 to 200 printable characters (got {shorten(getattr(self, name))})")


@dataclass(frozen=True)
class Signed:
    """A receipt as it travels."""

    receipt: Receipt
    signature: str
    """Base64, over the receipt as canonical JSON."""
    certificate: str
    """PEM, of the site."""

    def __post_init__(self) -> None:
        """Check the size of what a site sent.

        Raises:
            ValueError: It is no certificate and no signature.
        """
        if not _PEM.fullmatch(self.signature + self.certificate):
            raise ValueError("signature and certificate must be base64 and PEM")
        if len(self.signature) + len(self.certificate) > LONGEST_RECEIPT:
            raise ValueError(f"signature and certificate must have at most {LONGEST_RECEIPT} characters")


@dataclass(frozen=True)
class Update:
    """An update that was accepted, as the server saw it."""

    digest: str
    receipt: Receipt | None = None
    signature: str = ""
    """Empty where the site has no certificate, as in the simulator."""


@dataclass(frozen=True)
class Line:
    """A line of the ledger; which fields it has goes by its kind."""

    kind: Kind
    previous: str
    """Hash of the line before, see ``hash_of``; empty in the first line of all."""
    before: Mapping[str, str] = field(default_factory=dict)
    """Field of the line before -> SHA-256 of its value: ``previous`` is their hash, and they tell what changed."""
    format: int = FORMAT
    time: str = ""
    """UTC, ISO 8601, by the clock of who wrote the line."""
    job: Mapping[str, Any] = field(default_factory=dict)
    code: Mapping[str, str] = field(default_factory=dict)
    """Version of brats-fl, digests of library and bundle."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    filters: Mapping[str, Any] = field(default_factory=dict)
    lists: Mapping[str, Any] = field(default_factory=dict)
    """What is known of the sites' data lists: their digests, where the run was given them."""
    round: int | None = None
    invited: tuple[str, ...] = ()
    sent: str = ""
    """Digest of what the sites were sent; ``model`` with what the algorithm sends beside it."""
    updates: Mapping[str, Update] = field(default_factory=dict)
    certificates: Mapping[str, str] = field(default_factory=dict)
    """PEM of each certificate that the ledger has not had before."""
    change: str = ""
    """Digest of what the aggregation makes of the updates."""
    model: str = ""
    """Digest of the global model after this line."""
    records: tuple[Mapping[str, Any], ...] = ()
    """The lines of ``rounds.jsonl``."""
    models: Mapping[str, str] = field(default_factory=dict)
    """File of the run folder -> digest of its model."""
    files: Mapping[str, str] = field(default_factory=dict)
    """File of the run folder -> SHA-256 of its bytes."""
    facts: Mapping[str, str] = field(default_factory=dict)
    """Field of ``run.json`` -> SHA-256 of its value."""
    state: str = ""
    by: str = ""
    signature: str = ""
    """The lead's, over this line without it."""


def as_content(line: Line) -> dict[str, Any]:
    """A line as JSON has it: what is empty is left out."""
    content = asdict(line)
    return {
        key: value for key, value in content.items() if key in ("kind", "previous") or value not in (None, "", {}, ())
    }


def signed_part(line: Line) -> bytes:
    """What the lead signs of a seal: the line without the signature."""
    content = as_content(line)
    content.pop("signature", None)
    return canonical(content)


def receipt_bytes(receipt: Receipt) -> bytes:
    """What a site signs."""
    return canonical(asdict(receipt))


def as_text(lines: Iterable[Line]) -> str:
    """Lines as the file has them."""
    return "".join(canonical(as_content(line)).decode() + "\n" for line in lines)


def digests_of_fields(line: Line) -> dict[str, str]:
    """SHA-256 of the value of each field that a line has."""
    return digests_of_values(as_content(line))


def digests_of_values(content: Mapping[str, Any]) -> dict[str, str]:
    """SHA-256 of each value of an object, as canonical JSON."""
    return {key: hash_bytes(canonical(value)) for key, value in content.items()}


def hash_of_fields(digests: Mapping[str, str]) -> str:
    """Hash of a line from the digests of its fields."""
    return hash_bytes(canonical(dict(digests)))


def follow(last: Line | None, head: str = "") -> dict[str, Any]:
    """``previous`` and ``before`` of the line after one; with no line here, of the first after another part's last."""
    if last is None:
        return {"previous": head}
    digests = digests_of_fields(last)
    return {"previous": hash_of_fields(digests), "before": digests}


def hash_of(line: Line) -> str:
    """By which the next line names this one."""
    return hash_of_fields(digests_of_fields(line))


def append(path: Path, line: Line) -> None:
    """Write a line at the end of a ledger, or nothing. Raises as ``append_line``."""
    append_line(path, canonical(as_content(line)).decode())


def read_ledger(path: Path, may_be_cut: bool = False) -> list[Line]:
    """All lines, none where there is no file; whether they follow from each other is not looked at.

    Args:
        path: The file.
        may_be_cut: Its server may have ended in the middle of the last line, which is left out then.

    Raises:
        LedgerError: A line is none, is not written in the one way, or is cut off; with its number.
    """
    if not path.is_file():
        return []
    *lines, rest = READER.content(path).split(b"\n")
    if rest and not may_be_cut:
        READER.refuse(f"{path}:{len(lines) + 1}", "is cut off: it must end with a line break")
    return [parse_line(f"{path}:{number}", text) for number, text in enumerate(lines, 1)]


def parse_line(place: str, text: bytes) -> Line:
    """A line of a ledger.

    Raises:
        LedgerError: It is none; with the place and the field.
        RunError: A record in it is none.
    """
    content = READER.parse(place, text)
    line = READER.typed(Line, content, place)
    for number, record in enumerate(line.records):
        check_record(f"{place}: records[{number}]", record)
    if line.format != FORMAT:
        READER.refuse(place, f"format must be {FORMAT} (got {shorten(line.format)})")
    if canonical(as_content(line)) != text:
        READER.refuse(place, "is not written as the ledger writes it: keys in order, no spaces, nothing that is empty")
    return line
