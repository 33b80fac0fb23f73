"""Local normalisation: scale and shift of every normalisation stay at the site, all else is averaged.

Source: Li et al. 2021, "FedBN: Federated Learning on Non-IID Features via Local Batch Normalization" (arXiv
2102.07623), here for instance norm, which keeps no statistics. Scanners differ in intensity; each site answers that for
itself.

The model that the server keeps has the first scale and shift, 1 and 0, which no site uses: a site's own model is the
``local_model.pt`` of its state, and its metrics are of the shared weights with its own scale and shift.
"""

from __future__ import annotations

import re
from typing import Final

from brats_fl.algorithms.fedavg import NEEDS_MEAN_ONLY, server_update

__all__ = ["NEEDS_MEAN_ONLY", "is_local", "server_update"]

_NORMALISATION: Final = re.compile(r"(^|\.)(N|norm\d*|(W_g|W_x|psi)\.1)\.(weight|bias)$")
"""Where MONAI's blocks have it: ``...adn.N.weight``, ``...norm1.bias``, in attention gates ``...W_g.1.weight``."""


def is_local(name: str) -> bool:
    """Whether a parameter is the scale or shift of a normalisation."""
    return bool(_NORMALISATION.search(name))
