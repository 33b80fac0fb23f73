"""The server's part in a round of secure aggregation: it passes on what it cannot read, adds, and takes the masks off.

Source: as ``site_round``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from brats_fl.errors import LateUpdateError, MaskingError, ModelError
from brats_fl.privacy.fixed_point import Words
from brats_fl.privacy.keys import public_of
from brats_fl.privacy.messages import (
    Advert,
    as_bytes,
    check_advert,
    digest_of_roster,
    points_of,
    read_message,
    shares_in_mean,
    survivors_statement,
)
from brats_fl.privacy.secret_sharing import SHARE_BYTES, combine
from brats_fl.privacy.site_round import add_pair_mask, has_confirmed, own_mask


@dataclass
class ServerRound:
    """What the server has of a round; its memory is one vector, however many sites there are."""

    context: str
    """Job and round."""
    threshold: int
    """Updates that make a sum."""
    size: int
    """Values of the model."""
    model: str
    """Digest of the global model."""
    authority: Any = None
    """The federation's certificate; None in the simulator."""
    adverts: dict[str, Advert] = field(default_factory=dict)
    sealed: dict[str, dict[str, str]] = field(default_factory=dict)
    total: Words | None = None
    added: set[str] = field(default_factory=set)
    is_closed: bool = False
    """Whether no update is added any more."""
    confirmations: dict[str, str] = field(default_factory=dict)
    false_shares: set[str] = field(default_factory=set)
    """Sites that revealed what they had not been dealt."""

    def take_advert(self, site: str, content: object) -> None:
        """A site's keys; what is not its own is refused, so that it costs the others nothing."""
        advert = read_message(Advert, content, site)
        check_advert(advert, site, self.context, self.authority)
        self.adverts[site] = advert

    def take_shares(self, site: str, content: object) -> None:
        """What a site has sealed for the others."""
        sealed = read_message(dict[str, str], content, site)
        if set(sealed) != set(self.adverts) - {site}:
            raise MaskingError(f"{site} must seal shares for each other site that gave its keys")
        self.sealed[site] = sealed

    def shares(self, max_share: float) -> dict[str, float]:
        """Site -> its part of the mean."""
        return shares_in_mean(self.adverts, self.sealed, max_share)

    def add(self, site: str, words: object) -> None:
        """Add a masked update.

        Raises:
            LateUpdateError: The sum is closed.
            ModelError: The site takes no part, or it is no masked update of the model.
        """
        if self.is_closed:
            raise LateUpdateError("it came after the sum was closed")
        if site not in self.sealed or site in self.added:
            raise ModelError("the site has not given its keys in this round, or has contributed already")
        if not isinstance(words, np.ndarray) or words.dtype != np.uint32 or words.shape != (self.size,):
            raise ModelError(f"a masked update must be {self.size} unsigned 32-bit words")
        self.total = words.copy() if self.total is None else np.add(self.total, words, out=self.total)
        self.added.add(site)

    @property
    def survivors(self) -> tuple[str, ...]:
        """Whose updates are in the sum."""
        return tuple(sorted(self.added))

    def take_confirmation(self, site: str, content: object) -> None:
        """A site's word that it was told of the same survivors."""
        signature = read_message(str, content, site)
        statement = survivors_statement(digest_of_roster(self.adverts, self.context), self.survivors)
        if not has_confirmed(self.adverts[site], statement, signature):
            raise MaskingError(f"{site} has confirmed other updates than are in the sum")
        self.confirmations[site] = signature

    def unmask(self, revealed: Mapping[str, object]) -> Words:
        """The sum of the updates, without masks, modulo 2^32.

        Args:
            revealed: Site -> its shares, not trusted.

        Raises:
            MaskingError: Too few shares came, or too many of them are false.
        """
        if self.total is None or len(self.survivors) < self.threshold:
            raise MaskingError(f"{len(self.survivors)} updates came, {self.threshold} are needed")
        shares = {site: self._readable(site, content) for site, content in revealed.items()}
        total, digest = self.total.copy(), digest_of_roster(self.adverts, self.context)
        for site in self.survivors:
            total -= own_mask(self._recover(site, shares, self._is_seed), total.size)
        for lost in sorted(set(self.sealed) - set(self.survivors)):
            private = self._recover(lost, shares, self._is_key)
            for site in self.survivors:
                # From the side of the lost site the mask has the other sign: adding it takes off what was added.
                public = bytes.fromhex(self.adverts[site].masking_key)
                add_pair_mask(total, private, public, (lost, site), (digest, self.model))
        return total

    def _readable(self, site: str, content: object) -> dict[str, int]:
        """A site's shares, those that are none left out."""
        try:
            texts = read_message(dict[str, str], content, site)
            return {peer: int.from_bytes(as_bytes(text, "share", SHARE_BYTES), "big") for peer, text in texts.items()}
        except MaskingError:
            self.false_shares.add(site)
            return {}

    def _recover(self, site: str, shares: Mapping[str, Mapping[str, int]], is_right: Any) -> bytes:
        points = points_of(self.adverts)
        of_site = {points[peer]: given[site] for peer, given in shares.items() if peer in points and site in given}
        secret, false = combine(of_site, self.threshold, lambda found: is_right(site, found))
        self.false_shares |= {peer for peer, point in points.items() if point in false}
        return secret

    def _is_seed(self, site: str, found: bytes) -> bool:
        return hashlib.sha256(found).digest() == bytes.fromhex(self.adverts[site].commitment)

    def _is_key(self, site: str, found: bytes) -> bool:
        return public_of(found) == bytes.fromhex(self.adverts[site].masking_key)
