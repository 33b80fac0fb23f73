"""DP-SGD for patients: local steps whose noise hides whether any one patient's scans are among a hospital's.

At every step each training patient is drawn with probability q; of each drawn one the gradient, the mean over its
patches, is scaled down to the clipping norm C at most; their sum gets Gaussian noise of standard deviation sigma * C in
every trained value, and is divided by q * N, the patients that are expected. The optimiser, the update and the server's
mean are computed from that alone. The step itself is ``brats_fl.privacy.private_training``.

Source: Abadi et al. 2016, "Deep Learning with Differential Privacy" (arXiv 1607.00133), algorithm 1, with Poisson
sampling as its analysis supposes it; by patients as in McMahan et al. 2018 (arXiv 1710.06963), by hospital.
"""

from __future__ import annotations

from typing import Final

from brats_fl.algorithms.fedavg import NEEDS_MEAN_ONLY, server_update
from brats_fl.settings import Setting

__all__ = ["IS_PRIVATE", "NEEDS_MEAN_ONLY", "SETTINGS", "server_update"]

IS_PRIVATE: Final = True

SETTINGS: Final = {
    "noise_multiplier": Setting(
        1.0, "standard deviation of the noise", "clipping norms", minimum=0.5, maximum=1e6, is_chosen=True
    ),
    "clipping_norm": Setting(1.0, "longest gradient of a patient", "L2 norm", above=0, maximum=1e6, is_chosen=True),
    "sampling_rate": Setting(
        1.0, "probability that a patient is drawn at a step; 1 draws all", above=0, maximum=1, is_chosen=True
    ),
    "delta": Setting(
        1e-3, "probability that epsilon may fail to hold; below 1 / patients", above=0, maximum=0.1, is_chosen=True
    ),
    "scales_only": Setting(
        False,
        "train only scales, shifts, biases and PReLU slopes, and leave the convolutions as the job starts with them",
    ),
}
"""The first four have no default: who asks for privacy says how much."""
