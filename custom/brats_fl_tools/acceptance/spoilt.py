"""Labels that the study spoilt on purpose: which, and whether the figures name the hospital."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from brats_fl_tools.acceptance.evidence import Candidate
from brats_fl_tools.acceptance.hospitals import Suspect
from brats_fl_tools.pages.formats import list_words
from brats_fl_tools.partition.spoilt_labels import MEANINGS, Spoiling
from brats_fl_tools.study.definition import SITES


@dataclass(frozen=True)
class Spoilt:
    """A hospital that trained on labels spoilt on purpose, on one partition."""

    partition: str
    site: str
    how: Spoiling
    named_by: tuple[str, ...]
    """Jobs whose figures name it."""
    not_named_by: tuple[str, ...]


def find_spoilt(
    stated: Mapping[str, Mapping[str, Spoiling]], found: Iterable[tuple[Candidate, Iterable[Suspect]]]
) -> tuple[Spoilt, ...]:
    """What was spoilt, in the order of the study file, with what each job's figures say of it.

    Args:
        stated: Partition -> hospital -> how, as the study recorded it.
        found: Each job with the hospitals that it names.
    """
    named = [(one.label, one.partition, {suspect.site for suspect in suspects}) for one, suspects in found]
    return tuple(
        Spoilt(
            partition,
            site,
            how,
            tuple(label for label, place, sites in named if place == partition and site in sites),
            tuple(label for label, place, sites in named if place == partition and site not in sites),
        )
        for partition, hospitals in stated.items()
        for site, how in hospitals.items()
    )


def describe(one: Spoilt) -> str:
    """The banner of a report."""
    where = "" if one.partition == SITES else f" of the partition {one.partition}"
    said = f"The figures of {list_words(one.named_by)} name it" if one.named_by else "No figures name it"
    if one.named_by and one.not_named_by:
        said += f", those of {list_words(one.not_named_by)} do not"
    return (
        f"Labels were spoilt on purpose: {one.site}{where} trained and validated on labels with {MEANINGS[one.how]}; "
        f"its test cases have their true labels. {said}. No model of this partition is for use."
    )
