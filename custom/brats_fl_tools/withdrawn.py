"""What is remembered of a withdrawal: in the run that is to be used no more, and in the one that takes its place."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from brats_fl.errors import RunError
from brats_fl.files import write_whole
from brats_fl.reading import Reader
from brats_fl.typed import shorten

WITHDRAWN_FILE: Final = "withdrawn.json"
"""In the run folder that somebody withdrew from."""

DIFFERENCE_FILE: Final = "withdrawal.json"
"""In the run folder of the study without it: what the withdrawal changed."""

READER: Final = Reader(RunError, "put right by hand who withdrew, and when, before the run is used")

_WORDS = re.compile(r"[^\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]{1,200}")


@dataclass(frozen=True)
class Withdrawal:
    """Who withdrew from a run, from which round on, and what was done."""

    hospital: str
    of_patients: bool
    """Patients of the hospital withdrew, and it takes part again, without them."""
    from_round: int
    """What it had given in rounds before stays."""
    first_round: int
    """The first round that is done again."""
    time: str
    """UTC, ISO 8601."""
    ledger_head: str
    """Hash of the last line of the ledger of the run that was withdrawn from; empty where it has none."""
    run: str
    """Name of the folder of the run without it."""

    def __post_init__(self) -> None:
        """Check what is shown.

        Raises:
            ValueError: A text has characters that no name has.
        """
        for name in ("hospital", "time", "run"):
            if not _WORDS.fullmatch(getattr(self, name)):
                raise ValueError(f"{name} must be 1 to 200 printable characters (got {shorten(getattr(self, name))})")

    @property
    def who(self) -> str:
        """Who withdrew, in words."""
        return f"patients of {self.hospital}" if self.of_patients else self.hospital


def read_withdrawals(run: Path) -> tuple[Withdrawal, ...]:
    """Those from a run; none where nobody withdrew.

    Raises:
        RunError: The file is damaged.
    """
    path = run / WITHDRAWN_FILE
    if not path.is_file():
        return ()
    return READER.at(tuple[Withdrawal, ...], READER.json_object(path), ["withdrawals"], path)


def note_withdrawal(run: Path, withdrawal: Withdrawal) -> None:
    """Write a withdrawal into the run that is to be used no more; one that was asked for again takes its place.

    Raises:
        RunError: The file is damaged.
    """
    same = (withdrawal.hospital, withdrawal.run)
    before = [one for one in read_withdrawals(run) if (one.hospital, one.run) != same]
    content = {"withdrawals": [asdict(one) for one in (*before, withdrawal)]}
    write_whole(run / WITHDRAWN_FILE, json.dumps(content, indent=1) + "\n")


def refuse_withdrawn(model: Path) -> None:
    """Raise ``RunError`` where the run whose model it is was withdrawn from: its weights are not to be handed on."""
    for one in read_withdrawals(model.parent)[:1]:
        raise RunError(
            f"{model}: {one.who} withdrew from this run on {one.time[:10]}; hand on the model of {one.run}, the study "
            "without them"
        )
