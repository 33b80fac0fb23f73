"""The mean of a round's updates, made as they arrive: what a server needs does not grow with the number of hospitals.

What a hospital counts is known at the end of the round only: where its share is held down, it is by the cases of all.
But only so many can be held down (``most_capped``), and these have the most cases. Their updates wait beside the sum.
"""

from __future__ import annotations

from math import fsum

from brats_fl.aggregation import capped_weights, most_capped
from brats_fl.algorithms import Contribution
from brats_fl.exact_sums import ExactSum, check_addend

ALL = "all"
"""In the place of a site: the mean of those that took part."""


class RunningMean:
    """Weighted mean of contributions, the same to the last bit in whichever order they come.

    Args:
        max_share: Largest share of a site, see ``capped_weights``.
    """

    def __init__(self, max_share: float) -> None:
        self.max_share = max_share
        self.cases: dict[str, int] = {}
        self.steps = 0
        self.waiting: dict[str, Contribution] = {}
        self.sums: dict[str, ExactSum] = {}

    def add(self, part: Contribution) -> None:
        """Take a site's contribution, one in a round.

        Raises:
            ModelError: A value is too large to be added; the contribution is left out.
        """
        for arrays in part.payloads.values():
            check_addend(arrays, part.cases)
        self.cases[part.site] = part.cases
        self.steps += part.steps
        self.waiting[part.site] = part
        if len(self.waiting) > most_capped(self.max_share):
            fewest = min(self.waiting, key=self.cases.__getitem__)
            self._add_up(self.waiting.pop(fewest), self.cases[fewest])

    def take(self) -> Contribution:
        """The mean of every payload, as if one site had all cases; nothing is left here.

        Raises:
            ModelError: An addition was broken off.
        """
        weights = capped_weights(self.cases, self.max_share)
        for site in list(self.waiting):
            self._add_up(self.waiting.pop(site), weights[site])
        total, cases = fsum(weights.values()), sum(self.cases.values())
        payloads = {name: self.sums.pop(name).divided_by(total) for name in list(self.sums)}
        return Contribution(ALL, cases, float(cases), self.steps, payloads)

    def _add_up(self, part: Contribution, weight: float) -> None:
        for name, arrays in part.payloads.items():
            self.sums.setdefault(name, ExactSum(arrays)).add(arrays, weight)
