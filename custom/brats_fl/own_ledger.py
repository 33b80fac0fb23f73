"""A site's own record, ``local/ledger.jsonl`` of its kit: each receipt that it gave, with the hash of the line before.

It never leaves the house. With it a hospital can tell whether a run's ledger says of it what was so.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from brats_fl.digests import canonical
from brats_fl.files import append_line, locked
from brats_fl.ledger import READER, Receipt
from brats_fl.provenance import hash_bytes


@dataclass(frozen=True)
class OwnLine:
    """A receipt, and SHA-256 of the line before."""

    receipt: Receipt
    previous: str


def keep_receipt(path: Path, receipt: Receipt) -> None:
    """Write a receipt at the end of the site's own ledger; several jobs may do so at once.

    Raises:
        OSError: It cannot be written.
    """
    with locked(path.with_name(f".{path.name}.lock")):
        last = path.read_bytes().rstrip(b"\n").rpartition(b"\n")[2] if path.is_file() else b""
        line = canonical(asdict(OwnLine(receipt, hash_bytes(last) if last else "")))
        append_line(path, line.decode())


def read_receipts(path: Path) -> list[Receipt]:
    """All receipts of a site, none where there is no file.

    Raises:
        LedgerError: A line is none, or does not follow from the one before; with its number.
    """
    if not path.is_file():
        return []
    receipts, previous = [], ""
    for number, text in enumerate(READER.content(path).split(b"\n"), 1):
        if not text:
            continue
        place = f"{path}:{number}"
        line = READER.typed(OwnLine, READER.parse(place, text), place)
        if line.previous != previous:
            READER.refuse(place, "previous is not the hash of the line before")
        receipts.append(line.receipt)
        previous = hash_bytes(text)
    return receipts
