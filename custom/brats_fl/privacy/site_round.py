"""A site's part in a round of secure aggregation: what it tells, how it masks, and what it reveals at the end.

    advert      public keys, signed with the site's certificate
    deal        shares of its two secrets, sealed for each other site
    open        the others' shares of theirs
    mask        its update, plus a mask of its own, plus or minus one with each other site
    confirm     whose updates are in the sum, as it was told
    reveal      a share of each other site's secret: of its own mask if its update is in the sum, else of its key

Each step is taken once, and of a site both secrets are never asked for: who drops out late is not shown. Keys are
fresh in every round and only in memory, so that what is recovered of one round opens no other.

Source: Bonawitz et al. 2017, "Practical Secure Aggregation for Privacy-Preserving Machine Learning",
doi:10.1145/3133956.3133982, figure 4, with the consistency check of the malicious setting.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable, Mapping
from typing import Final

import numpy as np

from brats_fl.digests import digest_of_model
from brats_fl.errors import MaskingError
from brats_fl.exchange import Weights
from brats_fl.privacy.fixed_point import Words, encode
from brats_fl.privacy.identity import Identity
from brats_fl.privacy.keys import KEY_BYTES, agree, derive, new_pair, seal, stream, unseal
from brats_fl.privacy.messages import (
    Advert,
    Roster,
    Sealed,
    as_bytes,
    check_advert,
    digest_of_roster,
    points_of,
    shares_in_mean,
    signed,
    survivors_statement,
)
from brats_fl.privacy.secret_sharing import SHARE_BYTES, split

STEPS: Final = ("advertised", "dealt", "opened", "masked", "confirmed", "revealed")

FEWEST_IN_SUM: Final = 3
"""Of two, each learns the other's update from the sum."""


def check_threshold(threshold: int, sites: int) -> None:
    """Raise ``MaskingError`` unless a sum is of three sites and more, and half of all are too few to reveal anything.

    Two sets of sites that each reveal something have then one in common, which reveals one secret of a site only.
    """
    if not max(FEWEST_IN_SUM, sites // 2 + 1) <= threshold <= sites:
        raise MaskingError(
            f"secure aggregation needs {FEWEST_IN_SUM} hospitals in each sum, and more than half of all (got "
            f"{threshold} of {sites}); take more hospitals, or set min_clients"
        )


class SiteRound:
    """Secrets of one site in one round.

    Args:
        site: Its name.
        cases: Training cases, by which its update counts.
        context: Job and round.
        threshold: Sites that are needed to reveal what is secret.
        identity: Of the site's kit; None in the simulator: then nothing shows whose keys are whose.
    """

    def __init__(self, site: str, cases: int, context: str, threshold: int, identity: Identity | None) -> None:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        self.site, self.context, self.threshold, self.identity = site, context, threshold, identity
        self.sealing, self.masking = new_pair(), new_pair()
        self.confirming = Ed25519PrivateKey.generate()
        self.seed = secrets.token_bytes(KEY_BYTES)
        advert = Advert(
            site=site,
            cases=cases,
            sealing_key=self.sealing.public.hex(),
            masking_key=self.masking.public.hex(),
            confirming_key=self.confirming.public_key().public_bytes_raw().hex(),
            commitment=hashlib.sha256(self.seed).hexdigest(),
        )
        self.advert = advert if identity is None else signed(advert, context, identity)
        self.step = STEPS[0]
        self.roster: Roster = {}
        self.held: dict[str, bytes] = {}
        """Site -> the shares of its two secrets that this site keeps for it."""
        self.survivors: tuple[str, ...] = ()

    def _take(self, step: str) -> None:
        if STEPS.index(step) != STEPS.index(self.step) + 1:
            raise MaskingError(f"it is asked for a step ({step}) that does not follow what it has done ({self.step})")
        self.step = step

    def deal(self, roster: Roster) -> dict[str, str]:
        """Receiver -> a share of this site's two secrets, sealed.

        Args:
            roster: As the server tells it.

        Raises:
            MaskingError: A key is not its site's own, or there are too few sites.
        """
        self._take("dealt")
        check_threshold(self.threshold, len(roster))
        if roster.get(self.site) != self.advert:
            raise MaskingError("the server tells others another key than this site's own")
        for name, advert in roster.items():
            check_advert(advert, name, self.context, self.identity.authority if self.identity else None)
        self.roster, self.digest = dict(roster), digest_of_roster(roster, self.context)
        points = points_of(roster)
        of_seed = split(self.seed, self.threshold, list(points.values()))
        of_key = split(self.masking.private, self.threshold, list(points.values()))
        both = {
            name: of_seed[point].to_bytes(SHARE_BYTES, "big") + of_key[point].to_bytes(SHARE_BYTES, "big")
            for name, point in points.items()
        }
        self.held = {self.site: both.pop(self.site)}
        return {name: seal(self._key(name, self.site, name), text, self._bound()).hex() for name, text in both.items()}

    def _key(self, peer: str, sender: str, receiver: str) -> bytes:
        public = bytes.fromhex(self.roster[peer].sealing_key)
        return agree(self.sealing.private, public, "seal", self.digest, sender, receiver)

    def _bound(self) -> bytes:
        return self.digest.encode()

    def open(self, sealed: Sealed) -> None:
        """Keep what the others dealt to this site.

        Args:
            sealed: What each site that takes part has dealt to each, this one's included.

        Raises:
            MaskingError: A message does not open, or too few sites take part.
        """
        self._take("opened")
        if self.site not in sealed or len(sealed) < self.threshold or not set(sealed) <= set(self.roster):
            raise MaskingError(
                f"{len(sealed)} sites take part, this one {'too' if self.site in sealed else 'not'}; {self.threshold} "
                "of those that gave their keys are needed"
            )
        for sender in sorted(set(sealed) - {self.site}):
            message = as_bytes(sealed[sender].get(self.site, ""), f"the shares of {sender}")
            opened = unseal(self._key(sender, sender, self.site), message, self._bound())
            if len(opened) != 2 * SHARE_BYTES:
                raise MaskingError(f"the shares of {sender} are {len(opened)} bytes, not {2 * SHARE_BYTES}")
            self.held[sender] = opened

    def mask(self, update: Weights, model: Weights, max_share: float) -> Words:
        """The update as the server gets it: random words, but for the sum of all.

        Args:
            update: Change of each parameter.
            model: The global model that it changes.
            max_share: Largest share of a site in the mean.

        Raises:
            MaskingError: A value is too large for the sum.
        """
        self._take("masked")
        got = digest_of_model(model)
        share = shares_in_mean(self.roster, self.held, max_share)[self.site]
        words = encode(update, share, len(self.held))
        words += own_mask(self.seed, words.size)
        for peer in sorted(set(self.held) - {self.site}):
            public = bytes.fromhex(self.roster[peer].masking_key)
            add_pair_mask(words, self.masking.private, public, (self.site, peer), (self.digest, got))
        return words

    def confirm(self, survivors: Iterable[str]) -> str:
        """Signature, in hexadecimal, of whose updates are said to be in the sum.

        Raises:
            MaskingError: They are too few, or others than take part, or this site is not among them.
        """
        self._take("confirmed")
        self.survivors = tuple(sorted(survivors))
        among = set(self.survivors) <= set(self.held) and self.site in self.survivors
        if not among or len(set(self.survivors)) < self.threshold:
            raise MaskingError(
                f"a sum of {len(set(self.survivors))} updates is asked for; {self.threshold} of those that take part "
                "are needed, this site's own among them"
            )
        return self.confirming.sign(survivors_statement(self.digest, self.survivors)).hex()

    def reveal(self, confirmations: Mapping[str, str]) -> dict[str, str]:
        """Site -> this site's share of what is needed of it, in hexadecimal: of its own mask's seed, or of its key.

        Args:
            confirmations: Site -> its signature of the same survivors.

        Raises:
            MaskingError: Too few have confirmed the same.
        """
        self._take("revealed")
        confirmed = [site for site in self.survivors if self._has_confirmed(site, confirmations.get(site, ""))]
        if len(confirmed) < self.threshold:
            raise MaskingError(
                f"{len(confirmed)} sites were told of the same updates in the sum, {self.threshold} are needed"
            )
        return {
            site: (both[:SHARE_BYTES] if site in self.survivors else both[SHARE_BYTES:]).hex()
            for site, both in self.held.items()
        }

    def _has_confirmed(self, site: str, signature: str) -> bool:
        return has_confirmed(self.roster[site], survivors_statement(self.digest, self.survivors), signature)


def has_confirmed(advert: Advert, statement: bytes, signature: str) -> bool:
    """Whether a site has signed a statement with the key that it gave for it."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(advert.confirming_key))
        key.verify(bytes.fromhex(signature), statement)
    except (InvalidSignature, ValueError):
        return False
    return True


def own_mask(seed: bytes, count: int) -> Words:
    """The mask that a site adds alone."""
    return stream(derive(seed, "own mask"), count)


def add_pair_mask(words: Words, private: bytes, public: bytes, pair: tuple[str, str], same: tuple[str, str]) -> None:
    """Add, in place, the mask of a site with another: what one of the two adds the other takes off.

    It is of the model that they got: a server that gives one of them another, such that only its update counts in the
    sum, gets masks that do not cancel (Pasquini et al. 2022, "Eluding Secure Aggregation in Federated Learning via
    Model Inconsistency", doi:10.1145/3548606.3560557).

    Args:
        words: (n,) uint32.
        private: Of one of the two.
        public: Of the other.
        pair: The site whose words they are, and the other.
        same: Digests of roster and model, which both must have.
    """
    mask = stream(agree(private, public, "pair mask", *same, *sorted(pair)), words.size)
    operation = np.add if pair[0] < pair[1] else np.subtract
    operation(words, mask, out=words)
