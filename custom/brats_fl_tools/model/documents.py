"""What an export says of the weights in the bundle's model card and metadata; what a person wrote there stays."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from brats_fl.bundle import read_config
from brats_fl.constants import SPLITS
from brats_fl.errors import ModelError
from brats_fl.files import CASE_TABLE_FILE, write_whole
from brats_fl.reading import Reader
from brats_fl_tools.report.model_card import BY_A_PERSON, BY_DICE, describe_run, figures_of, why_untested
from brats_fl_tools.report.participants import rounds_done
from brats_fl_tools.report.run_folder import RunFolder, read_run
from brats_fl_tools.runs.folder import RUN_FILE
from brats_fl_tools.sync_bundles import MODEL_CARD as README
from brats_fl_tools.sync_bundles import OWN_CONFIG, SHARED_FROM, format_config
from brats_fl_tools.weights import BEST_MODEL, FINAL_MODEL, MODEL_CARD

BEGIN: Final = "<!-- brats-fl export writes what follows anew each time -->\n"
END: Final = "<!-- up to here; what stands elsewhere is kept -->\n"

METADATA: Final = f"configs/{OWN_CONFIG}"

CHOSEN: Final = {BEST_MODEL: BY_DICE, FINAL_MODEL: "it is the model after the last round"}
"""File of a run folder -> how its model was chosen among those of the rounds."""

READER = Reader(ModelError, "mend it by hand")


@dataclass(frozen=True)
class Documents:
    """A bundle's model card, and its metadata where it has some, as they are before an export."""

    bundle: Path
    before: str
    """Text of the card in front of what an export writes."""
    after: str
    metadata: dict[str, Any] | None

    def write(self, card: str, facts: dict[str, Any]) -> list[Path]:
        """Write both, and return their paths.

        Args:
            card: What is said of the weights, a card in Markdown of its own.
            facts: Keys of the metadata.
        """
        section = f"{BEGIN}{_one_level_down(card)}{END}"
        readme, metadata = self.bundle / README, self.bundle / METADATA
        readme.parent.mkdir(exist_ok=True)
        write_whole(readme, self.before + section + self.after)
        if self.metadata is None:
            return [readme]
        licence = {"weights_licence": self.metadata.get("weights_licence", BY_A_PERSON)}
        write_whole(metadata, format_config(self.metadata | facts | licence))
        return [readme, metadata]


def read_documents(bundle: Path) -> Documents:
    """The documents of a bundle.

    Raises:
        ModelError: One cannot be read, or one of the two lines around what an export wrote is not there once.
    """
    readme = bundle / README
    text = READER.text(readme) if readme.is_file() else ""
    metadata = read_config(bundle / METADATA) if (bundle / METADATA).is_file() else None
    if (text.count(BEGIN), text.count(END)) == (0, 0):
        # In front of what all bundles share, where there is that.
        start = text.index(SHARED_FROM) if SHARED_FROM in text else len(text)
        return Documents(bundle, text[:start].rstrip("\n") + "\n\n", "\n" + text[start:], metadata)
    if (text.count(BEGIN), text.count(END)) != (1, 1) or text.index(END) < text.index(BEGIN):
        READER.refuse(
            readme, f"must have the lines {BEGIN.strip()} and {END.strip()} once each, in this order, or neither"
        )
    return Documents(bundle, text.partition(BEGIN)[0], text.partition(END)[2], metadata)


def _one_level_down(card: str) -> str:
    """A card as a section of another: its headings one level lower."""
    return re.sub(r"^(#+ )", r"#\1", card, flags=re.MULTILINE)


def read_run_of(model: Path) -> RunFolder | None:
    """The run folder that a model lies in, with its cases where there is a table of them; None where it is none.

    Raises:
        RunError: A file of it is damaged.
    """
    if not (model.parent / RUN_FILE).is_file():
        return None
    return read_run(model.parent, with_rounds=False, with_cases=(model.parent / CASE_TABLE_FILE).is_file())


def card_of(model: Path, digest: str, run: RunFolder | None) -> str:
    """What a study says of a model, where one judged these very weights, else what its run says.

    Args:
        model: The checkpoint.
        digest: Its SHA-256.
        run: The run that made it, where that is known.
    """
    card = model.with_name(MODEL_CARD)
    text = READER.text(card) if card.is_file() else ""
    if digest in text:
        return text
    return describe_run(run or RunFolder(model.parent, {}, (), ()), digest, CHOSEN.get(model.name, ""))


def facts_of(digest: str, run: RunFolder | None) -> dict[str, Any]:
    """What the metadata says of the weights; figures only of the very model.

    Args:
        digest: SHA-256 of the checkpoint.
        run: The run that made it, where that is known.
    """
    if run is None:
        return {"eval_metrics": {}, "trained": {"model_sha256": digest}}
    tested = None if why_untested(run, digest) else figures_of(run)
    dice = {f"{name}_dice": round(value, 4) for name, (value, _) in tested.dice.items()} if tested else {}
    told = {key: run.info.get(key) for key in ("job", "profile", "study_sha256", "content_hash")}
    cases = {site: {split: count.get(split, 0) for split in SPLITS} for site, count in sorted(run.counts.items())}
    trained = {"model_sha256": digest, **told, "rounds": rounds_done(run), "cases": cases}
    trained |= {"test_cases": tested.cases} if tested else {}
    return {"eval_metrics": dice, "trained": {key: value for key, value in trained.items() if value is not None}}
