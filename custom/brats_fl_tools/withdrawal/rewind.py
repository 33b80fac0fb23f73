"""What a run was before one of its rounds, from the updates that its server kept; in the form of a resumed run's."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from brats_fl.errors import LedgerError, ModelError, RunError
from brats_fl.exchange import WEIGHTS
from brats_fl.files import write_whole
from brats_fl.kept_updates import START_FILE, UPDATES_FOLDER, keep_model, read_kept
from brats_fl.ledger import LEDGER_FILE, Line, as_text, read_ledger
from brats_fl.round_records import RECORDS_FILE, as_lines
from brats_fl_tools.ledger.replay import Replay, begin
from brats_fl_tools.runs.collect import FLARE_BEST, choose_best
from brats_fl_tools.runs.folder import LAST_MODEL


def rewind(run: Path, records: Sequence[Mapping[str, Any]], number: int, start_given: bool, folder: Path) -> None:
    """Write what a run had before a round into a folder: ledger, records, last model and the best until then.

    Args:
        run: Run folder, with the updates that its server kept.
        records: Its records.
        number: The round; the first one, 0, needs no rewinding.
        start_given: Round 0 began with a given model.
        folder: To write into.

    Raises:
        RunError: The server kept no updates, they are damaged, or do not give the models that the ledger names.
    """
    if not (run / UPDATES_FOLDER / START_FILE).is_file():
        raise RunError("the models of single rounds were not kept (--set keep_updates=true keeps what gives them)")
    before = [record for record in records if record["phase"] != "final" and record["round"] < number]
    best = choose_best(before, (), start_given)
    try:
        lines = list(lines_before(read_ledger(run / LEDGER_FILE), number))
        replay = _begin(run, lines)
        for line in (line for line in lines if line.kind == "round"):
            if best.where == "earlier" and line.round == best.round:
                _keep(folder / FLARE_BEST, replay, best.round)
            replay.repeat(line)
    except (LedgerError, ModelError) as error:
        raise RunError(str(error)) from error
    _keep(folder / LAST_MODEL, replay, number)
    write_whole(folder / LEDGER_FILE, as_text(lines))
    write_whole(folder / RECORDS_FILE, as_lines(before))


def lines_before(lines: Sequence[Line], number: int) -> Iterator[Line]:
    """The lines of a ledger up to a round.

    Raises:
        LedgerError: The round before it is not there.
    """
    done = 0
    for line in lines:
        if line.round == number or line.kind in ("end", "seal"):
            break
        done = done if line.round is None else line.round + 1
        yield line
    if done != number:
        raise LedgerError(f"the ledger holds {done} of the {number} rounds before round {number}")


def take_updates_before(run: Path, number: int, target: Path) -> None:
    """Copy the updates of the rounds before one, so that these can be replayed in the new run as well."""
    kept = [run / UPDATES_FOLDER / START_FILE, *(run / UPDATES_FOLDER).glob("round-*/*.pt")]
    for path in kept:
        if path.name == START_FILE or int(path.parent.name.removeprefix("round-")) < number:
            copy = target / path.relative_to(run)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)


def _begin(run: Path, lines: Sequence[Line]) -> Replay:
    return begin(run, lines[0], read_kept(run / UPDATES_FOLDER / START_FILE)[WEIGHTS])


def _keep(path: Path, replay: Replay, rounds_done: int) -> None:
    keep_model(path, replay.model, rounds_done, replay.state)


def distance(one: Path, other: Path) -> float:
    """Norm of the difference of two checkpoints, as a share of the first one's norm.

    Raises:
        ModelError: One is no checkpoint.
    """
    from brats_fl.network.checkpoints import read_state

    first, second = read_state(one), read_state(other)
    squares = sum(float((first[name] - second[name]).double().square().sum()) for name in first)
    whole = sum(float(value.double().square().sum()) for value in first.values())
    return (squares / whole) ** 0.5 if whole else 0.0
