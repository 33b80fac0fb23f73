"""The words of the field, each with its one home: modalities, regions, label tables, key metric."""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

MODALITIES: Final = ("t1c", "t1n", "t2w", "t2f")
"""The network's input channels, in this order, as in MONAI's BraTS bundle."""

LABEL: Final = "label"
"""What the label is called among the scans of a case."""

FILE_SUFFIXES: Final = MappingProxyType(
    {
        "t1c": ("_t1ce", "-t1c"),
        "t1n": ("_t1", "-t1n"),
        "t2w": ("_t2", "-t2w"),
        "t2f": ("_flair", "-t2f"),
    }
)
"""How the files of a modality end, before ``.nii`` or ``.nii.gz``: BraTS 2018 to 2021, then 2023 and later."""

REGIONS: Final = ("tc", "wt", "et")
"""The network's output channels, in this order: tumour core, whole tumour, enhancing tumour."""

NCR: Final = 1
ED: Final = 2
ET: Final = 3
"""Label values inside this library: 0 background, 1 necrotic core, 2 oedema, 3 enhancing tumour (BraTS 2023's)."""

REGION_LABELS: Final = MappingProxyType({"tc": (NCR, ET), "wt": (NCR, ED, ET), "et": (ET,)})
"""Which label values make up a region (Baid et al. 2021, arXiv 2107.02314)."""

LABEL_TABLES: Final = MappingProxyType(
    {
        "brats2018-2021": MappingProxyType({0: 0, 1: NCR, 2: ED, 4: ET}),
        "brats2023": MappingProxyType({0: 0, 1: NCR, 2: ED, 3: ET}),
        # MSD Task01: 1 oedema, 2 non-enhancing tumour, 3 enhancing tumour.
        "msd-task01": MappingProxyType({0: 0, 1: ED, 2: NCR, 3: ET}),
    }
)
"""Label value in a file -> label value inside this library, per convention."""

DEFAULT_LABEL_TABLE: Final = "brats2018-2021"

KEY_METRIC: Final = "val_mean_dice"
"""Mean Dice over the three regions and the validation cases; the best global model is chosen by it."""

MISSED_HD95_MM: Final = 373.13
"""BraTS's distance for a region that only one of prediction and reference has: the diagonal of 240 × 240 × 155 mm."""

SPLITS: Final = ("training", "validation", "testing")
"""Keys of a data list, as MONAI's ``load_decathlon_datalist`` names them."""

SITES: Final = ("hospital-1", "hospital-2", "hospital-3", "hospital-4", "hospital-5")
