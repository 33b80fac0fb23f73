"""What is tracked of a run: the curves of every site and of their mean, drawn from the round records.

A curve's point at step r tells of round r: the loss and the seconds of its training, and the Dice of the model that it
began with, which is that of r rounds. The last evaluation adds the Dice of the final model.
"""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean
from typing import Any, Final

from brats_fl.best_model import vote
from brats_fl.constants import KEY_METRIC, REGIONS
from brats_fl.numbers import is_finite

MEAN: Final = "mean"
"""Stands where a site's name does, for the mean of the sites."""

TRACKING_FOLDER: Final = "tracking"
"""Of the server's run, and of a run folder: what the trackers wrote."""

TRACKING_VARIABLE: Final = "BRATS_FL_TRACKING"
"""Environment variable of the server: where it writes in place of its run's folder. Set by `brats-fl simulate`."""

DICE: Final = (KEY_METRIC, *(f"val_dice_{region}" for region in REGIONS))
OF_TRAINING: Final = ("loss", "seconds")


def tracked_values(record: Mapping[str, Any]) -> dict[str, float]:
    """Curve -> its value by a round record; empty where the site's answer was not accepted.

    The rule is that of the choice of the best model: whatever else a site states, a Dice is a number in [0, 1], and any
    other value a finite number.
    """
    if record["status"] != "ok":
        return {}
    dice = {name: vote(record.get("metrics"), name) for name in DICE}
    training = {name: record[name] for name in OF_TRAINING if is_finite(record.get(name))}
    return {**training, **{name: value for name, value in dice.items() if value is not None}}


def mean_values(sites: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Curve -> mean over the sites that have a value, one vote a site."""
    names = dict.fromkeys(name for values in sites.values() for name in values)
    return {name: fmean(values[name] for values in sites.values() if name in values) for name in names}
