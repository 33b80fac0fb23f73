"""How data sets name the files of a case: ``<case><ending>.nii.gz``, an ending for each modality and for the label."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, NamedTuple

from brats_fl.cases.found_cases import SEG
from brats_fl.constants import DEFAULT_LABEL_TABLE, FILE_SUFFIXES, MODALITIES


@dataclass(frozen=True, eq=False)
class Naming:
    """The names of one data set's files."""

    labels: str
    """Its label convention, a key of ``LABEL_TABLES``."""
    endings: Mapping[str, tuple[str, ...]]
    """Modality or ``seg`` -> how its files end, before ``.nii``."""
    cases: re.Pattern[str] = re.compile(r".+", re.DOTALL)
    """What the name of a case matches."""
    folder_ending: str = ""
    """What the name of a case's folder has behind that of the case."""
    has_others: bool = False
    """Whether other NIfTI files lie beside a case's, as published."""
    scattered: bool = False
    """Whether labels lie in another folder than scans, as published."""
    question: str = ""
    """Why the convention is not certain, for whoever reads labels; empty where it is."""

    def expected(self, case: str, kind: str) -> str:
        """Name of a file as published, without ``.nii``."""
        return case + self.endings[kind][0]


class NameParts(NamedTuple):
    """What the name of a file says."""

    naming: Naming
    case: str
    kind: str
    """A modality, or ``seg``."""


def _brats(index: int, seg: str) -> Mapping[str, tuple[str, ...]]:
    return MappingProxyType({**{name: (FILE_SUFFIXES[name][index],) for name in MODALITIES}, SEG: (seg,)})


BRATS_2018: Final = Naming(DEFAULT_LABEL_TABLE, _brats(0, "_seg"))
BRATS_2023: Final = Naming("brats2023", _brats(1, "-seg"))

BRATS_PED: Final = Naming(
    "brats2023",
    _brats(1, "-seg"),
    re.compile(r"BraTS-PED-.+", re.IGNORECASE),
    question="the labels of BraTS-PED follow brats2023 in the challenge of 2023 only; since 2024 1 is enhancing, "
    "2 non-enhancing, 3 cyst and 4 oedema, and they have to be renumbered",
)
"""Source: the challenge's pages of 2023 and 2024; Kazerooni et al. 2024, arXiv 2404.15009."""

UCSF_PDGM: Final = Naming(
    DEFAULT_LABEL_TABLE,
    MappingProxyType(
        {"t1c": ("_T1c",), "t1n": ("_T1",), "t2w": ("_T2",), "t2f": ("_FLAIR",), SEG: ("_tumor_segmentation",)}
    ),
    re.compile(r"UCSF-PDGM-\d+(_FU\d+d)?"),
    folder_ending="_nifti",
    has_others=True,
)
"""Source: Calabrese et al. 2022, doi:10.1148/ryai.220058. Beside the scans lie their bias-corrected copies
``_T1_bias``, and diffusion, perfusion, susceptibility and brain masks."""

UPENN_GBM: Final = Naming(
    DEFAULT_LABEL_TABLE,
    MappingProxyType(
        {
            "t1c": ("_T1GD",),
            "t1n": ("_T1",),
            "t2w": ("_T2",),
            "t2f": ("_FLAIR",),
            SEG: ("_segm", "_automated_approx_segm"),
        }
    ),
    re.compile(r"UPENN-GBM-\d+_\d+"),
    has_others=True,
    scattered=True,
)
"""Source: Bakas et al. 2022, doi:10.1038/s41597-022-01560-7. Labels by experts in ``images_segm``, by a program in
``automated_segm``, scans in ``images_structural``."""

NAMINGS: Final = (BRATS_PED, UCSF_PDGM, UPENN_GBM, BRATS_2018, BRATS_2023)
"""The first that fits a name counts."""

_WORDS: Final = MappingProxyType(
    {
        "t1c": "t1c t1ce t1gd t1wce t1wgd t1cgd t1post t1km t1contrast t1wc cet1 cet1w t1cw gdt1 postt1 postcontrastt1",
        "t1n": "t1 t1w t1n t1pre t1native t1wn pret1",
        "t2w": "t2 t2w t2n",
        "t2f": "flair t2f t2flair t2wflair flairt2",
    }
)
_MODALITY_OF: Final = {word: modality for modality, words in _WORDS.items() for word in words.split()}


def modality_of(word: str) -> str | None:
    """Modality that people call by a word, whatever its capitals and what lies between: ``T1-Gd`` is t1c; else None."""
    return _MODALITY_OF.get(re.sub(r"[^a-z0-9]", "", word.lower()))


def split_name(stem: str, spelt: Callable[[str], str] = str) -> NameParts | None:
    """Naming, case and kind that the name of a file tells; None for other names.

    Args:
        stem: The name without ``.nii`` or ``.nii.gz``.
        spelt: What makes two endings the same: ``str.lower`` where capitals do not count.
    """
    for naming in NAMINGS:
        for kind, endings in naming.endings.items():
            # The longest first: ..._automated_approx_segm ends in _segm, too.
            for ending in sorted(endings, key=len, reverse=True):
                case = stem[: -len(ending)]
                if spelt(stem[len(case) :]) == spelt(ending) and naming.cases.fullmatch(case):
                    return NameParts(naming, case, kind)
    return None
