"""Whether the sites' receipts in a ledger are theirs, and say what the ledger says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from cryptography import x509

from brats_fl.errors import LedgerError
from brats_fl.ledger import Line, Receipt, Update, receipt_bytes, signed_part
from brats_fl.signatures import read_pem, why_not_of, why_not_signed


def wrong_receipts(lines: Sequence[Line], authority: x509.Certificate | None) -> Iterator[str]:
    """What is wrong with the receipts, by line and field; an update without one is not wrong."""
    job, certificates = "", dict[str, str]()
    for number, line in enumerate(lines, 1):
        job = str(line.job.get("id", "")) if line.kind == "start" else job
        certificates.update(line.certificates if line.kind == "round" else {})
        for site, update in line.updates.items():
            for why in wrong_update(site, update, line, job, certificates, authority):
                yield f"line {number}: updates.{site}.{why}"


def wrong_update(
    site: str,
    update: Update,
    line: Line,
    job: str,
    certificates: Mapping[str, str],
    authority: x509.Certificate | None,
) -> Iterator[str]:
    """What is wrong with an update's receipt: the field, and why."""
    receipt = update.receipt
    if receipt is None:
        return
    expected = {"job": job, "site": site, "round": line.round, "received": line.sent, "sent": update.digest}
    for name, value in expected.items():
        if getattr(receipt, name) != value:
            yield f"receipt.{name} is {str(getattr(receipt, name))[:16]}, the ledger has {str(value)[:16]}"
    cases = [r.get("cases") for r in line.records if r.get("site") == site and r.get("phase") == "train"]
    if receipt.cases not in cases:
        yield f"receipt.cases is {receipt.cases}, the records have {', '.join(map(str, cases)) or 'none'}"
    if why := why_not_theirs(site, receipt, update.signature, certificates.get(site, ""), authority):
        yield f"signature: {why}"


def why_not_theirs(site: str, receipt: Receipt, signature: str, pem: str, authority: x509.Certificate | None) -> str:
    """Why a receipt is not signed by a site; empty where it is."""
    if not pem:
        return "the ledger has no certificate of the site"
    try:
        certificate = read_pem(pem, site)
    except LedgerError as error:
        return str(error)
    return why_not_of(certificate, site, authority, receipt.time) or why_not_signed(
        receipt_bytes(receipt), signature, certificate
    )


def wrong_seal(line: Line, authority: x509.Certificate | None) -> str:
    """Why a seal is not signed by whom it names; empty where it is, and of one that is not signed."""
    if not line.signature and not line.by:
        return ""
    try:
        certificate = read_pem(line.certificates.get(line.by, ""), line.by)
    except LedgerError as error:
        return f"certificates: {error}"
    why = why_not_of(certificate, line.by, authority, line.time) or why_not_signed(
        signed_part(line), line.signature, certificate
    )
    return f"signature: {why}" if why else ""


def compare_with_own(lines: Sequence[Line], own: Sequence[Receipt], site: str) -> Iterator[str]:
    """Where a ledger differs from what a site kept for itself."""
    parts = parts_of(lines)
    stated = {
        (update.receipt.job, update.receipt.round): (number, update.receipt)
        for number, line in enumerate(lines, 1)
        for name, update in line.updates.items()
        if name == site and update.receipt
    }
    kept = {(receipt.job, receipt.round): receipt for receipt in own if receipt.job in {part.job for part in parts}}
    for key, (number, receipt) in stated.items():
        if key not in kept:
            yield f"line {number}: updates.{site} is not in the hospital's own ledger"
        for name in ("received", "sent", "cases") if key in kept else ():
            if getattr(receipt, name) != getattr(kept[key], name):
                yield f"line {number}: updates.{site}.receipt.{name} is not what the hospital's own ledger has"
    refused = {
        (part.job, record.get("round"))
        for part in parts
        for line in part.lines
        for record in line.records
        if record.get("site") == site and record.get("status") != "ok"
    }
    accounted = {*stated, *refused, *lost_updates(parts, own)}
    for job, number_of_round in sorted(set(kept)):
        if (job, number_of_round) not in accounted:
            yield f"round {number_of_round}: the hospital's own ledger has an update of {site} that this one has not"


@dataclass(frozen=True)
class Part:
    """What a ledger has of one job of the run."""

    job: str
    """FLARE's id."""
    lines: tuple[Line, ...]
    is_lost: bool
    """Whether the job was given up before its end, and the run went on in another, or was left as interrupted."""

    @property
    def next_round(self) -> int:
        """Number of the first round that it has not."""
        rounds = [line.round for line in self.lines if line.round is not None]
        begun = self.lines[0].settings.get("start_round", 0)  # what is no number is told by ``broken_order``
        return max(rounds) + 1 if rounds else begun if isinstance(begun, int) else 0


def parts_of(lines: Sequence[Line]) -> list[Part]:
    """The parts of a run, in their order."""
    begins = [number for number, line in enumerate(lines) if line.kind == "start"]
    found = []
    for begin, end in zip(begins, [*begins, len(lines)][1:], strict=True):
        of_part = tuple(lines[begin:end])
        went_on = end < len(lines) or (of_part[-1].kind == "seal" and of_part[-1].state == "interrupted")
        is_lost = went_on and not any(line.kind == "end" for line in of_part)
        found.append(Part(str(lines[begin].job.get("id", "")), of_part, is_lost))
    return found


def lost_updates(parts: Sequence[Part], own: Sequence[Receipt]) -> list[tuple[str, int]]:
    """Job and round of what a site sent in rounds that were lost with their part: the ledger ends in front of them."""
    first = {part.job: part.next_round for part in parts if part.is_lost}
    return sorted({(one.job, one.round) for one in own if one.job in first and one.round >= first[one.job]})


def told_of_stranger(lines: Sequence[Line], own: Sequence[Receipt], site: str) -> Iterator[str]:
    """What a site is told where neither ledger has an update of it in this run: that nothing was compared."""
    jobs = {part.job for part in parts_of(lines)}
    if not any(site in line.updates for line in lines) and not any(receipt.job in jobs for receipt in own):
        yield f"neither ledger has an update of {site} in this run: there was nothing to compare"


def told_of_lost(lines: Sequence[Line], own: Sequence[Receipt], site: str) -> Iterator[str]:
    """What a site is told of its updates that were lost, each with its round."""
    for _, number_of_round in lost_updates(parts_of(lines), own):
        yield (
            f"round {number_of_round} was lost with its part of the run: an update that {site} sent then is in no model"
        )
