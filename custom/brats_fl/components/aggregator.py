"""The server's aggregator: an algorithm's step over the updates that pass."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from nvflare.apis.dxo import DXO, DataKind, MetaKey, from_shareable
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable
from nvflare.app_common.abstract.aggregator import Aggregator
from nvflare.app_common.abstract.model import ModelLearnableKey
from nvflare.app_common.app_constant import AppConstants

from brats_fl.aggregation import capped_weights, check_size, check_update, count_of_cases
from brats_fl.algorithms import Algorithm, Contribution, load_algorithm
from brats_fl.components.bundle_location import app_root
from brats_fl.components.exchange import payloads_of
from brats_fl.components.executor import STATISTICS
from brats_fl.compression import check_compression, decompress
from brats_fl.errors import LateUpdateError, ModelError
from brats_fl.exchange import WEIGHTS, Payloads, Weights
from brats_fl.garbage import spare_what_is_loaded
from brats_fl.kept_updates import ALGORITHM_STATE
from brats_fl.round_records import typed_statement
from brats_fl.running_mean import RunningMean

REJECTION = "brats_fl_rejection"
"""Property of the FL context: why the last contribution was not accepted, for the round records."""

MEAN = "brats_fl_mean"
"""Property of the FL context: what became of the round, and the share of each site, for the round records."""


class AlgorithmAggregator(Aggregator):
    """Accepts an update that fits the global model, is finite, of this round and states its cases.

    For an algorithm that needs no more than their mean, updates are added up as they arrive and not kept; for another
    they are, one float32 copy of the parameters for each site, and handed to it in the order of the sites' names.
    Either way the result does not depend on who came first, not in the last bit.

    Args:
        min_accepted: Fewest updates that make a round, unless the algorithm needs more; with fewer the model stays as
            it is.
        max_update_ratio: Largest L2 norm of an update, and of whatever else the algorithm lets sites send, as a
            multiple of the global model's. It keeps out what a broken site sends, not what a hostile one does.
        algorithm: Name of the federated algorithm, see ``brats_fl.algorithms``.
        algorithm_settings: Its numbers; those that are not given have its defaults.
        max_share: Largest share of one site in a mean of three and more.
        patience_rounds: Rounds with too few updates, one after the other, that end the job; the next round is the
            chance of the sites that failed.
        compression: ``none``, ``float16`` or ``int8``: how an update comes.
    """

    def __init__(
        self,
        min_accepted: int,
        max_update_ratio: float,
        algorithm: str = "fedavg",
        algorithm_settings: Mapping[str, float] | None = None,
        max_share: float = 1.0,
        patience_rounds: int = 1,
        compression: str = "none",
    ) -> None:
        super().__init__()
        self.compression = check_compression(compression)
        if not max_update_ratio > 0:
            raise ValueError(f"max_update_ratio must be > 0 (got {max_update_ratio})")
        self.max_update_ratio = max_update_ratio
        if min_accepted < 1:
            raise ValueError(f"min_accepted must be >= 1 (got {min_accepted})")
        if not 0 < max_share <= 1:
            raise ValueError(f"max_share must be above 0 and at most 1 (got {max_share})")
        if patience_rounds < 1:
            raise ValueError(f"patience_rounds must be >= 1 (got {patience_rounds})")
        self.min_accepted = min_accepted
        self.max_share = max_share
        self.patience_rounds = patience_rounds
        self.failed_rounds = 0
        self.stated_cases: dict[str, int] = {}
        self.algorithm_name = algorithm
        self.algorithm_settings = dict(algorithm_settings or {})
        self.loaded: Algorithm | None = None
        self.accepted: dict[str, Contribution] = {}
        self.running = RunningMean(max_share)
        self.is_over = False
        """Whether the mean of the round was taken: what is accepted from then on would be in none."""
        self.lock = threading.Lock()

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Make the search for garbage cheap with which FLARE ends each round."""
        if event_type == EventType.START_RUN:
            spare_what_is_loaded()

    def algorithm(self, fl_ctx: FLContext) -> Algorithm:
        """The job's algorithm; of the library, or of the code that came with the job."""
        if self.loaded is None:
            self.loaded = load_algorithm(self.algorithm_name, self.algorithm_settings, app_root(fl_ctx) / "custom")
        return self.loaded

    def broadcast(self, fl_ctx: FLContext) -> Payloads:
        """What sites are sent beside the weights in the round that begins."""
        return self.algorithm(fl_ctx).broadcast(self._state(fl_ctx))

    def _state(self, fl_ctx: FLContext) -> Payloads:
        state: Payloads | None = fl_ctx.get_prop(ALGORITHM_STATE)
        if state is None:
            state = self.algorithm(fl_ctx).server_state(global_weights(fl_ctx))
            self._keep(state, fl_ctx)
        return state

    def _keep(self, state: Payloads, fl_ctx: FLContext) -> None:
        fl_ctx.set_prop(ALGORITHM_STATE, state, private=True, sticky=True)

    def accept(self, shareable: Shareable, fl_ctx: FLContext) -> bool:
        """Take an update; False, with the reason logged and recorded, where it does not pass."""
        peer = fl_ctx.get_peer_context()
        site = peer.get_identity_name() if peer else "?"
        try:
            with self.lock:
                self.accepted[site] = self._taken(self._check(site, shareable, fl_ctx), fl_ctx)
        except Exception as error:  # what a site sends may be anything, and must cost no other site the round
            self.log_error(fl_ctx, f"update of {site} is not accepted: {str(error)[:500]}")
            fl_ctx.set_prop(REJECTION, getattr(error, "code", "BAD_UPDATE"), private=True, sticky=False)
            return False
        return True

    def _check(self, site: str, shareable: Shareable, fl_ctx: FLContext) -> Contribution:
        dxo = self._of_this_round(site, shareable, fl_ctx)
        payloads, model = payloads_of(dxo, DataKind.WEIGHT_DIFF), global_weights(fl_ctx)
        if set(payloads) != {WEIGHTS, *self.algorithm(fl_ctx).sent}:
            raise ModelError(f"it must hold {', '.join((WEIGHTS, *self.algorithm(fl_ctx).sent))} and nothing else")
        if self.compression != "none":
            payloads[WEIGHTS] = decompress(payloads[WEIGHTS], model, self.compression)
        for arrays in payloads.values():
            check_update(arrays, model)
            check_size(arrays, model, self.max_update_ratio)
        return self._stated(site, dxo, payloads)

    def _of_this_round(self, site: str, shareable: Shareable, fl_ctx: FLContext) -> DXO:
        dxo = from_shareable(shareable)
        current = fl_ctx.get_prop(AppConstants.CURRENT_ROUND)
        contributed = shareable.get_cookie(AppConstants.CONTRIBUTION_ROUND)
        if contributed != current:
            raise LateUpdateError(f"it belongs to round {contributed}, this is round {current}")
        if self.is_over:
            raise LateUpdateError(f"it came when round {current} was over")
        if site in self.accepted:
            raise ModelError("the site has contributed to this round already")
        return dxo

    def _stated(self, site: str, dxo: DXO, payloads: Payloads) -> Contribution:
        """With the cases that the site states, which stay the same through a job."""
        stated, _ = typed_statement(dxo.get_meta_prop(STATISTICS))
        cases = count_of_cases(dxo.get_meta_prop(MetaKey.NUM_STEPS_CURRENT_ROUND))
        first = self.stated_cases.get(site, cases)
        if not cases == first == stated.get("cases", cases):
            raise ModelError(
                f"it states {cases} training cases as its weight and {stated.get('cases')} beside it, and stated "
                f"{first} before: the number stays the same through a job"
            )
        self.stated_cases[site] = cases
        return Contribution(site, cases, cases, stated.get("steps", 0), payloads)

    def _taken(self, part: Contribution, fl_ctx: FLContext) -> Contribution:
        """What is kept of a contribution until the round ends."""
        if not self.algorithm(fl_ctx).needs_mean_only:
            return part
        self.running.add(part)
        return replace(part, payloads={})

    def aggregate(self, fl_ctx: FLContext) -> Shareable:
        """The algorithm's change of the model, as a weight difference; its state is kept for the persistor.

        With too few updates it is no change at all, and the next round asks the sites again.

        Raises:
            ModelError: It was the last of ``patience_rounds`` rounds with too few updates, or the change is not finite:
                the last good model stays.
        """
        model = global_weights(fl_ctx)
        with self.lock:
            self.is_over = True
            least = max(self.min_accepted, self.algorithm(fl_ctx).least_updates())
            if self._usable() < least:
                self._note_failed_round(least, fl_ctx)
                update: Weights = {name: np.zeros_like(value) for name, value in model.items()}
                return DXO(DataKind.WEIGHT_DIFF, data=dict(update)).to_shareable()
            self.failed_rounds = 0
            weights = self._weights()
            contributions = self._contributions(weights, fl_ctx)
            update, state = self.algorithm(fl_ctx).server_update(model, self._state(fl_ctx), contributions)
        for arrays in (update, *state.values()):
            check_update(arrays, model)
        self._keep(state, fl_ctx)
        total = sum(weights.values())
        shares = {site: round(weight / total, 4) for site, weight in sorted(weights.items())}
        fl_ctx.set_prop(MEAN, {"status": "ok", "shares": shares, **self._facts()}, private=True, sticky=False)
        return DXO(DataKind.WEIGHT_DIFF, data=dict(update)).to_shareable()

    def _usable(self) -> int:
        """Updates that can be averaged."""
        return len(self.accepted)

    def _weights(self) -> dict[str, float]:
        """What each site counts in the mean."""
        return capped_weights({site: part.cases for site, part in self.accepted.items()}, self.max_share)

    def _contributions(self, weights: Mapping[str, float], fl_ctx: FLContext) -> list[Contribution]:
        """What the algorithm is given: the mean, or each update in the order of the sites' names."""
        if self.algorithm(fl_ctx).needs_mean_only:
            return [self.running.take()]
        return [replace(self.accepted[site], weight=weights[site]) for site in sorted(self.accepted)]

    def _facts(self) -> dict[str, Any]:
        """What else the round records say of the mean."""
        return {}

    def _note_failed_round(self, least: int, fl_ctx: FLContext) -> None:
        self.failed_rounds += 1
        words = (
            f"{self._usable()} of the {least} updates that a round needs were accepted "
            f"({', '.join(sorted(self.accepted)) or 'none'}); see rounds.jsonl for the others"
        )
        if self.failed_rounds >= self.patience_rounds:
            raise ModelError(f"{words}; it is round {self.failed_rounds} of this kind without a good one between")
        self.log_error(fl_ctx, f"{words}; the model stays as it is, and the next round asks all sites again")
        fl_ctx.set_prop(MEAN, {"status": self._why_failed(), **self._facts()}, private=True, sticky=False)

    def _why_failed(self) -> str:
        return "TOO_FEW_UPDATES"

    def reset(self, fl_ctx: FLContext) -> None:
        """Begin the next round."""
        with self.lock:
            self.accepted, self.running, self.is_over = {}, RunningMean(self.max_share), False


def global_weights(fl_ctx: FLContext) -> Weights:
    """The global model of the round."""
    weights: Weights = fl_ctx.get_prop(AppConstants.GLOBAL_MODEL)[ModelLearnableKey.WEIGHTS]
    return weights
