"""``brats-fl ledger verify``: whether a run folder's ledger holds, and holds for its files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from cryptography import x509

from brats_fl.errors import BratsFLError, KitError, LedgerError, RunError
from brats_fl.ledger import LEDGER_FILE, Line, read_ledger
from brats_fl.own_ledger import read_receipts
from brats_fl.reading import read_if_sound
from brats_fl.signatures import read_authority
from brats_fl_tools.jobs.options import ForceOption
from brats_fl_tools.kit.kits import read_kit
from brats_fl_tools.ledger.chain import broken_links, broken_order
from brats_fl_tools.ledger.receipts import compare_with_own, told_of_lost, told_of_stranger, wrong_receipts, wrong_seal
from brats_fl_tools.ledger.run_files import wrong_files
from brats_fl_tools.runs.submission import SUBMISSION_FILE

app = typer.Typer(help="The record of a run's rounds: what it says, checked without a server.", no_args_is_help=True)

RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="Run folder, with its ledger.jsonl.")]


@dataclass(frozen=True)
class Verdict:
    """What was found."""

    problems: tuple[str, ...]
    """What is wrong: the place, the field, and why."""
    notes: tuple[str, ...]
    """What was checked, and what could not be."""
    is_proven: bool = False
    """Every update and the seal are signed, under an authority that was given."""


@app.command()
def verify(
    run: RunArgument,
    root: Annotated[
        Path | None,
        typer.Option(
            "--root",
            metavar="FILE",
            help="The authority's certificate, rootCA.pem of any kit. Default: the lead's kit's.",
        ),
    ] = None,
    site: Annotated[
        list[Path] | None,
        typer.Option("--site", metavar="KIT", help="A hospital's kit, whose own ledger is compared; repeatable."),
    ] = None,
) -> None:
    """Print whether the ledger of RUN holds: chain, receipts, seal, records, models and job; writes nothing.

    Needs no server. Exit 1 where something is wrong, with the line and the field.
    """
    verdict = judge(run.resolve(), root, tuple(site or ()))
    for note in verdict.notes:
        typer.echo(note)
    for problem in verdict.problems:
        typer.echo(f"wrong: {problem}")
    if verdict.problems:
        raise typer.Exit(1)
    typer.echo("the ledger holds" if verdict.is_proven else "the ledger holds, as far as anyone signed it")


@app.command()
def replay(run: RunArgument) -> None:
    """Print each round of RUN whose model comes out again, to the last bit, from the updates that were kept.

    Writes nothing. Exit 1 at the first that does not, and where none were kept (`--set keep_updates=true` keeps them).
    """
    from brats_fl_tools.ledger.replay import replay_run

    for line in replay_run(run.resolve(), read_ledger(run.resolve() / LEDGER_FILE)):
        typer.echo(line)


@app.command()
def crate(
    run: RunArgument,
    out: Annotated[Path, typer.Option("--out", help="Folder to write.")],
    licence: Annotated[
        str,
        typer.Option("--license", metavar="SPDX|URL", help="Of crate and models, such as CC-BY-4.0."),
    ],
    author: Annotated[str, typer.Option("--author", metavar="NAME", help="Consortium that answers for it.")] = "",
    force: ForceOption = False,
) -> None:
    """Write RUN's record into OUT as an RO-Crate: job, models, every round; no cases, no pictures, no paths."""
    from brats_fl_tools.ledger.crate import write_crate

    typer.echo(write_crate(run.resolve(), out.resolve(), licence, author, force))


def judge(run: Path, root: Path | None = None, kits: Sequence[Path] = ()) -> Verdict:
    """Check the ledger of a run folder.

    Args:
        run: The folder.
        root: The authority's certificate; by default that of the kit that submitted the run, where it is here.
        kits: Of hospitals, whose own ledgers are compared.

    Raises:
        LedgerError: There is no ledger.
        KitError: A kit or the authority's certificate cannot be read, or a kit is no hospital's.
    """
    path = run / LEDGER_FILE
    if not path.is_file():
        raise LedgerError(f"{path}: no such file; runs of this release have one once they were collected")
    authority = find_authority(run, root)
    try:
        lines = read_ledger(path)
    except (LedgerError, RunError) as error:
        return Verdict((str(error),), ())
    problems = [*broken_links(lines), *broken_order(lines), *wrong_receipts(lines, authority)]
    if lines and lines[-1].kind == "seal" and (why := wrong_seal(lines[-1], authority)):
        problems.append(f"line {len(lines)}: {why}")
    try:
        problems += wrong_files(run, lines) if lines else ()
    except BratsFLError as error:
        problems.append(str(error))
    notes = describe(lines, authority)
    for kit in map(read_kit, kits):
        if kit.kind != "client":
            raise KitError(
                f"{kit.folder}: is the kit of {kit.name}; only a hospital's has a ledger of its own, give that"
            )
        try:
            own = read_receipts(kit.folder / "local" / LEDGER_FILE)
        except LedgerError as error:
            problems.append(str(error))
            continue
        problems += (f"{kit.folder}: {why}" for why in compare_with_own(lines, own, kit.name))
        notes += [*told_of_lost(lines, own, kit.name), *told_of_stranger(lines, own, kit.name)]
    return Verdict(tuple(problems), tuple(notes), is_all_signed(lines, authority))


def find_authority(run: Path, root: Path | None) -> x509.Certificate | None:
    """The authority's certificate; None where none is given and the lead's kit is not on this machine.

    Raises:
        KitError: It cannot be read.
    """
    if root is not None:
        return read_authority(root)
    kit = read_if_sound(run / SUBMISSION_FILE).get("kit")
    beside = Path(kit) / "startup" / "rootCA.pem" if isinstance(kit, str) and kit else None
    return read_authority(beside) if beside is not None and beside.is_file() else None


def is_all_signed(lines: Sequence[Line], authority: x509.Certificate | None) -> bool:
    """Whether each update has a receipt, the last line a signature, and there is an authority to hold them against."""
    receipts = [update.receipt for line in lines for update in line.updates.values()]
    return authority is not None and None not in receipts and bool(lines and lines[-1].signature)


def describe(lines: Sequence[Line], authority: x509.Certificate | None) -> list[str]:
    """What a ledger holds, and what it cannot show."""
    rounds = [line for line in lines if line.kind == "round"]
    updates = [update for line in rounds for update in line.updates.values()]
    signed = sum(update.receipt is not None for update in updates)
    seal = lines[-1] if lines and lines[-1].kind == "seal" else None
    words = [f"{len(rounds)} rounds, {len(updates)} updates, {signed} of them with a receipt that their site signed"]
    if signed < len(updates):
        words.append(f"{len(updates) - signed} updates are not signed: what the server says of them is not proven")
    if authority is not None:
        words.append(f"certificates are held against the authority {authority.subject.rfc4514_string()}")
    elif signed:
        words.append("no authority is given (--root): whose the certificates are is not proven")
    words.append(
        f"sealed by {seal.by}" if seal and seal.signature else "not sealed by a lead: the last line is not proven"
    )
    return words
