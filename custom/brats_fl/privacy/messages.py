"""What sites tell one another through the server in a round of secure aggregation, and who counts how much in it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Final, TypeVar

from brats_fl.aggregation import capped_weights, count_of_cases
from brats_fl.digests import canonical
from brats_fl.errors import MaskingError, ModelError
from brats_fl.privacy.identity import Identity, check_signature
from brats_fl.privacy.keys import KEY_BYTES
from brats_fl.typed import NotTypedError, shorten, typed

T = TypeVar("T")

TASK_KEYS: Final = "secure_keys"
TASK_SHARES: Final = "secure_shares"
TASK_CONFIRM: Final = "secure_confirm"
TASK_REVEAL: Final = "secure_reveal"

STEPS: Final = frozenset({TASK_KEYS, TASK_SHARES, TASK_CONFIRM, TASK_REVEAL})
"""Tasks around the training of a round, in which sites and server exchange messages."""


@dataclass(frozen=True)
class Advert:
    """A site's public keys of a round, and the cases that its update will count by; bytes are in hexadecimal."""

    site: str
    cases: int
    sealing_key: str
    """X25519: what is sent to the site is sealed with it."""
    masking_key: str
    """X25519: two sites make their common mask with it; shared, so that it can be recovered if the site drops out."""
    confirming_key: str
    """Ed25519: by which the site says whose updates it takes to be in the sum."""
    commitment: str
    """SHA-256 of the seed of its own mask: a false share of the seed is told by it."""
    certificate: str = ""
    """PEM; empty in the simulator, which has none."""
    signature: str = ""
    """Of all the others and the round, by the certificate's key."""

    def __post_init__(self) -> None:
        """Check what is used as a key.

        Raises:
            MaskingError: A key has not its length.
        """
        for name in ("sealing_key", "masking_key", "confirming_key", "commitment"):
            as_bytes(getattr(self, name), name, KEY_BYTES)

    def statement(self, context: str) -> bytes:
        """What the site signs.

        Args:
            context: Job and round: a signature of another one is none here.
        """
        return canonical([context, asdict(replace(self, signature=""))])


Roster = Mapping[str, Advert]
"""Site -> its advert, of all that take part in a round."""

Sealed = Mapping[str, Mapping[str, str]]
"""Sender -> receiver -> sealed shares."""


def signed(advert: Advert, context: str, identity: Identity) -> Advert:
    """An advert that others believe."""
    advert = replace(advert, certificate=identity.signer.certificate)
    return replace(advert, signature=identity.signer.sign(advert.statement(context)))


def check_advert(advert: Advert, site: str, context: str, authority: Any) -> None:
    """Raise ``MaskingError`` unless an advert is the site's own, of this round, with a plausible number of cases.

    Args:
        advert: Not trusted.
        site: Whose it is said to be.
        context: Job and round.
        authority: The federation's certificate; None in the simulator: then nothing shows whose it is.
    """
    if advert.site != site:
        raise MaskingError(f"the keys of {site} are those of another site")
    try:
        count_of_cases(advert.cases)
    except ModelError as error:
        raise MaskingError(f"the keys of {site}: {error}") from error
    if authority is not None:
        check_signature(authority, site, advert.certificate, advert.statement(context), advert.signature)


def digest_of_roster(roster: Roster, context: str) -> str:
    """Hash of a round's roster: what sites seal for one another opens only where all were told the same."""
    return hashlib.sha256(canonical([context, {site: asdict(advert) for site, advert in roster.items()}])).hexdigest()


def survivors_statement(digest: str, survivors: Iterable[str]) -> bytes:
    """What a site confirms: whose updates are in the sum."""
    return canonical([digest, sorted(survivors)])


def points_of(roster: Roster) -> dict[str, int]:
    """Site -> the point of its shares, from 1."""
    return {site: number for number, site in enumerate(sorted(roster), 1)}


def shares_in_mean(roster: Roster, partners: Iterable[str], max_share: float) -> dict[str, float]:
    """Site -> its part of the mean, 1 together: by the stated cases, fixed before anybody masks.

    Sites and server come to it by themselves, so that the server cannot give one site the whole sum.
    """
    weights = capped_weights({site: roster[site].cases for site in sorted(partners)}, max_share)
    total = sum(weights.values())
    return {site: weight / total for site, weight in weights.items()}


def as_bytes(text: str, name: str, length: int | None = None) -> bytes:
    """Bytes of hexadecimal text.

    Raises:
        MaskingError: It is none, or not so long.
    """
    try:
        found = bytes.fromhex(text)
        if length in (None, len(found)):
            return found
    except ValueError:
        pass
    wanted = "" if length is None else f"{length} "
    raise MaskingError(f"{name} must be {wanted}bytes in hexadecimal (got {shorten(text)})")


def read_message(kind: type[T], content: object, sender: str) -> T:
    """What somebody sent, as its type says.

    Raises:
        MaskingError: It is something else.
    """
    try:
        return typed(kind, content)
    except NotTypedError as error:
        raise MaskingError(f"what {sender} sent is no message of secure aggregation: {error}") from error
