"""What secure aggregation costs beside sending the update as it is: bytes, seconds and rounding, with one drop-out."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import typer

from brats_fl.aggregation import weighted_mean
from brats_fl.constants import SITES
from brats_fl.digests import digest_of_model
from brats_fl.exchange import Weights
from brats_fl.privacy.fixed_point import decode
from brats_fl.privacy.server_round import ServerRound
from brats_fl.privacy.site_round import SiteRound

VALUES: Final = 4_812_512
"""Parameters of ``brats_unet`` in its ``small`` profile."""

TYPICAL_CHANGE: Final = 1e-3
CASES: Final = 20
CONTEXT: Final = "bench/0"


@dataclass(frozen=True)
class MaskCosts:
    """Of one round."""

    bytes_ratio: float
    """All that a site sends, messages included, by the update's float32 bytes."""
    message_bytes: int
    """Of a site, sent and received, beside the update."""
    mask_seconds: float
    """A site's, on one core."""
    unmask_seconds: float
    """The server's, on one core, with a drop-out."""
    error: float
    """Largest difference to the plain mean, of a value."""


def measure_masks(values: int, names: tuple[str, ...] = SITES) -> MaskCosts:
    """A round of these sites of which the last drops out after it has dealt its shares.

    Args:
        values: Of the update of each site, normal with deviation ``TYPICAL_CHANGE``.
        names: The sites.
    """
    threshold, survivors = len(names) - 1, names[:-1]
    random = np.random.default_rng(0)
    updates = {name: {"w": random.normal(0, TYPICAL_CHANGE, values).astype(np.float32)} for name in names}
    sites = {name: SiteRound(name, CASES, CONTEXT, threshold, None) for name in names}
    model = {"w": np.zeros(values, np.float32)}
    server = ServerRound(CONTEXT, threshold, values, digest_of_model(model))
    for name, site in sites.items():
        server.take_advert(name, dict(vars(site.advert)))
    for name, site in sites.items():
        server.take_shares(name, site.deal(server.adverts))
    begin = time.process_time()
    for name in survivors:
        sites[name].open(server.sealed)
        server.add(name, sites[name].mask(updates[name], model, max_share=1.0))
    masked = time.process_time()
    for name in survivors:
        server.take_confirmation(name, sites[name].confirm(survivors))
    revealed = {name: sites[name].reveal(server.confirmations) for name in survivors}
    unmasking = time.process_time()
    words = server.unmask(revealed)
    end = time.process_time()
    mean = decode(words, len(survivors) / len(names), len(names), updates[names[0]])
    first, everybody = survivors[0], {name: dict(vars(site.advert)) for name, site in sites.items()}
    sent = _size(everybody[first], server.sealed[first], server.confirmations[first], revealed[first])
    received = _size(everybody, server.sealed, survivors, server.confirmations)
    return MaskCosts(
        bytes_ratio=1 + sent / (4 * values),
        message_bytes=sent + received,
        mask_seconds=(masked - begin) / len(survivors),
        unmask_seconds=end - unmasking,
        error=_largest_difference(mean, updates, names),
    )


def _size(*messages: object) -> int:
    return sum(len(json.dumps(message)) for message in messages)


def _largest_difference(found: Weights, updates: Mapping[str, Weights], names: tuple[str, ...]) -> float:
    plain = weighted_mean([(updates[name], CASES) for name in names[:-1]])
    return float(np.abs(found["w"].astype(np.float64) - plain["w"]).max())


def bench_masks() -> None:
    """Print what masks cost for the network of the full profile."""
    costs = measure_masks(VALUES)
    typer.echo(
        f"secure aggregation, {len(SITES)} sites, one drops out, {VALUES:,} values: {costs.bytes_ratio:.4f} times the "
        f"bytes, {costs.message_bytes:,} bytes of messages a site, masks {costs.mask_seconds:.2f} s a site, taken off "
        f"in {costs.unmask_seconds:.2f} s at the server, largest error {costs.error:.1e}"
    )
