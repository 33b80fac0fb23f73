"""Cross-site evaluation: what a hospital lets out for it, and the matrix of models and hospitals that comes of it.

A hospital decides by a file of its own, ``cross_site_rules.json``; no job can change it:

    {"send_local_model": false, "score_test_cases": true}

Without the file the model that it trained last may go to the other hospitals of the study, whose server has had it
already, as an update; and models are scored on validation cases only.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, get_args

from brats_fl.aggregation import MOST_CASES
from brats_fl.cases.datalists import SITES_VARIABLE, read_datalist
from brats_fl.constants import REGIONS
from brats_fl.errors import DataListError, JobError, NotSharedError, PrivacyError, RunError, TooFewCasesError
from brats_fl.files import is_there
from brats_fl.reading import Reader
from brats_fl.round_records import is_metric, typed_status
from brats_fl.sharing.site_statistics import Protection, labelled_cases

CROSS_SITE_FILE: Final = "cross_site.json"
"""The matrix, at the server and in the run folder."""

RULES_FILE: Final = "cross_site_rules.json"
"""A hospital's own rules."""

RULES: Final = Reader(PrivacyError, "mend it: nothing is sent before")
READER: Final = Reader(RunError, "give the run folder of a job brats_cross_site of this release")

Split = Literal["validation", "testing"]
"""Cases that models may be scored on; of those for training a local model has seen its own."""


def check_split(split: object) -> None:
    """Raise ``JobError`` where a job asks for other cases than those that a model may be scored on."""
    if split not in get_args(Split):
        raise JobError(f"split must be one of {', '.join(get_args(Split))}; build the job again with --set split=...")


@dataclass(frozen=True)
class SiteRules:
    """What a hospital allows."""

    send_local_model: bool = True
    """Whether the other hospitals may have the model that it trained last."""
    score_test_cases: bool = False
    """Whether a job may ask for test cases."""


def read_rules(site: str, kit: Path, environ: Mapping[str, str] = os.environ) -> SiteRules:
    """A hospital's rules: ``local/cross_site_rules.json`` of its kit, in simulator and POC ``$BRATS_FL_SITES/SITE/``.

    Raises:
        PrivacyError: The file is damaged, or says something else.
    """
    places = [kit / "local" / RULES_FILE]
    if environ.get(SITES_VARIABLE):
        places.append(Path(environ[SITES_VARIABLE]) / site / RULES_FILE)
    found = next((place for place in places if is_there(place)), None)
    return SiteRules() if found is None else RULES.typed(SiteRules, RULES.json_object(found), found)


def count_scored(datalist: Path, split: str, rules: SiteRules, protection: Protection) -> int:
    """Cases that a hospital scores models on, once it is known that their mean may leave the house.

    Mean Dice over validation cases leaves in every round of training, however few they are; here as well, from a
    hospital with as many patients as its statistics need. Test cases must be of as many patients themselves.

    Raises:
        NotSharedError: The job asks for test cases, and the hospital's rules do not allow it.
        TooFewCasesError: There are too few patients, or none to score.
        DataListError: The list cannot be used, or a test case has no label.
    """
    if split == "testing" and not rules.score_test_cases:
        raise NotSharedError(f"the job asks for test cases, which {RULES_FILE} does not allow (score_test_cases)")
    scored = read_datalist(datalist).split(split)
    if unlabelled := [case.case for case in scored if case.label is None]:
        raise DataListError(f"{datalist}: {split}: {unlabelled[0]} has no label; add it, or take the case off the list")
    counted = labelled_cases(datalist) if split == "validation" else scored
    patients = len({case.patient for case in counted})
    if not scored or patients < protection.min_cases:
        raise TooFewCasesError(
            f"{datalist}: {len(scored)} cases for {split}, and labelled cases of {patients} patients where "
            f"{protection.min_cases} are needed"
        )
    return len(scored)


@dataclass(frozen=True)
class Scores:
    """How a model did on a hospital's cases: all that leaves of it."""

    cases: int
    dice: Mapping[str, float]
    """Region -> mean over the cases."""

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            ValueError: They are none of a model's scores.
        """
        if not 1 <= self.cases <= MOST_CASES:
            raise ValueError(f"cases must be from 1 to {MOST_CASES:,}")
        if set(self.dice) != set(REGIONS) or not all(is_metric(*item) for item in self.dice.items()):
            raise ValueError(f"dice must have a number in [0, 1] for each of {', '.join(REGIONS)}, and nothing else")

    @property
    def mean(self) -> float:
        """Over regions, and so over cases and regions: each case counts in every region."""
        return sum(self.dice[region] for region in REGIONS) / len(REGIONS)


@dataclass(frozen=True)
class Cell:
    """What came of one model at one hospital."""

    status: str
    """``ok``, or the code of why there are no scores."""
    scores: Scores | None = None

    def __post_init__(self) -> None:
        """Check that scores are there exactly where the status says so."""
        check_status(self.status)
        if (self.status == "ok") != (self.scores is not None):
            raise ValueError("a cell has scores, or a status that says why not")


@dataclass(frozen=True)
class Row:
    """A model, and how it did at each hospital."""

    kind: Literal["global", "local"]
    model: str
    """``final`` or ``best``; of a local model the hospital that it is of."""
    status: str
    """``ok``, or the code of why there is no such model."""
    cells: Mapping[str, Cell] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the status."""
        check_status(self.status)


@dataclass(frozen=True)
class CrossSite:
    """The matrix: global models first, then the hospitals' own by name."""

    split: Split
    rows: tuple[Row, ...]

    @property
    def sites(self) -> list[str]:
        """Hospitals that a model is of or was sent to."""
        local = {row.model for row in self.rows if row.kind == "local"}
        return sorted(local.union(*(row.cells for row in self.rows)))


def check_status(status: str) -> None:
    """Raise ``ValueError`` where a status is no plain word."""
    if typed_status(status) != status:
        raise ValueError("a status must be a plain word")


def as_json(matrix: CrossSite) -> dict[str, Any]:
    """The matrix as ``read_cross_site`` reads it."""
    return asdict(matrix)


def read_cross_site(path: Path) -> CrossSite:
    """The matrix of a run.

    Raises:
        RunError: The file is missing, or holds something else.
    """
    return READER.typed(CrossSite, READER.json_object(path), path)
