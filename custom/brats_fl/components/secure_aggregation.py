"""The server's side of secure aggregation: ScatterAndGather with the messages around an update, and a sum of words."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from typing import Any

from nvflare.apis.controller_spec import ClientTask
from nvflare.apis.controller_spec import Task as FlareTask
from nvflare.apis.dxo import from_shareable
from nvflare.apis.fl_constant import ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable
from nvflare.apis.signal import Signal
from nvflare.app_common.app_constant import AppConstants
from nvflare.app_common.workflows.scatter_and_gather import ScatterAndGather

from brats_fl.aggregation import check_size
from brats_fl.algorithms import Contribution
from brats_fl.components.aggregator import AlgorithmAggregator, global_weights
from brats_fl.components.records import ANSWER, ANSWER_TAKEN
from brats_fl.components.secure_executor import (
    CONTENT,
    SEALED,
    context_of,
    is_secure,
    message,
    startup_of,
)
from brats_fl.digests import digest_of_model
from brats_fl.errors import BratsFLError, MaskingError, ModelError
from brats_fl.exchange import MASKED, WEIGHTS, Weights
from brats_fl.privacy.fixed_point import decode
from brats_fl.privacy.identity import read_authority
from brats_fl.privacy.messages import TASK_CONFIRM, TASK_KEYS, TASK_REVEAL, TASK_SHARES
from brats_fl.privacy.server_round import ServerRound
from brats_fl.round_records import SECURE_AGGREGATION, Unmasking
from brats_fl.running_mean import ALL


class SecureScatterAndGather(ScatterAndGather):
    """ScatterAndGather in which the hospitals agree on masks before they train, and take them off the sum afterwards.

    Around each ``train`` task there are four short ones: keys and shares before, confirmation and shares of those that
    dropped out afterwards. Who has not given keys and shares is not asked to train in that round.

    Args:
        answer_timeout: Seconds that the hospitals have to answer each of the four.
        min_clients: As ``ScatterAndGather``, and so are the others.
        num_rounds: See there.
        start_round: See there.
        wait_time_after_min_received: See there.
        train_timeout: See there.
        task_check_period: See there.
        aggregator_id: See there; a ``SecureAggregator``.
        persistor_id: See there.
        shareable_generator_id: See there.
        train_task_name: See there.
        ignore_result_error: See there.
        snapshot_every_n_rounds: See there.
    """

    def __init__(
        self,
        answer_timeout: int,
        min_clients: int,
        num_rounds: int,
        start_round: int,
        wait_time_after_min_received: int,
        train_timeout: int,
        task_check_period: float,
        aggregator_id: str,
        persistor_id: str,
        shareable_generator_id: str,
        train_task_name: str,
        ignore_result_error: bool,
        snapshot_every_n_rounds: int,
    ) -> None:
        super().__init__(
            min_clients=min_clients,
            num_rounds=num_rounds,
            start_round=start_round,
            wait_time_after_min_received=wait_time_after_min_received,
            train_timeout=train_timeout,
            task_check_period=task_check_period,
            aggregator_id=aggregator_id,
            persistor_id=persistor_id,
            shareable_generator_id=shareable_generator_id,
            train_task_name=train_task_name,
            ignore_result_error=ignore_result_error,
            snapshot_every_n_rounds=snapshot_every_n_rounds,
        )
        if answer_timeout < 1:
            raise ValueError(f"answer_timeout must be >= 1 (got {answer_timeout})")
        self.answer_timeout = answer_timeout

    def broadcast_and_wait(
        self,
        task: FlareTask,
        fl_ctx: FLContext,
        targets: Any = None,
        min_responses: int = 1,
        wait_time_after_min_received: int = 0,
        abort_signal: Signal | None = None,
    ) -> None:
        """Have a task done; training with what secure aggregation needs before and after it."""
        if task.name != self.train_task_name:
            super().broadcast_and_wait(task, fl_ctx, targets, min_responses, wait_time_after_min_received, abort_signal)
            return
        number = int(task.data.get_header(AppConstants.CURRENT_ROUND, 0))
        current = self._agree(number, context_of(task.data, fl_ctx), fl_ctx, abort_signal)
        partners = sorted(current.sealed)
        if len(partners) < current.threshold:
            words = f"{len(partners)} hospitals have given keys and shares, {current.threshold} are needed"
            self.log_error(fl_ctx, words)
            return
        task.data.set_header(SEALED, current.sealed)
        super().broadcast_and_wait(
            task, fl_ctx, partners, min(min_responses, len(partners)), wait_time_after_min_received, abort_signal
        )
        self._unmask(number, current, fl_ctx, abort_signal)

    def _agree(self, number: int, context: str, fl_ctx: FLContext, abort_signal: Signal | None) -> ServerRound:
        """Keys, then shares of them, of all hospitals that answer."""
        current = self.aggregator.begin(context, fl_ctx)
        everybody = [client.name for client in self._engine.get_clients()]
        self._ask(TASK_KEYS, number, None, everybody, current.take_advert, fl_ctx, abort_signal)
        roster = {site: dict(vars(advert)) for site, advert in current.adverts.items()}
        self._ask(TASK_SHARES, number, roster, sorted(roster), current.take_shares, fl_ctx, abort_signal)
        return current

    def _unmask(self, number: int, current: ServerRound, fl_ctx: FLContext, abort_signal: Signal | None) -> None:
        """Confirmations, then what is needed to take the masks off; nothing of it where there are too few updates."""
        survivors = self.aggregator.close()
        if len(survivors) < current.threshold:
            return
        revealed: dict[str, object] = {}
        self._ask(TASK_CONFIRM, number, list(survivors), survivors, current.take_confirmation, fl_ctx, abort_signal)
        signed = dict(current.confirmations)
        self._ask(TASK_REVEAL, number, signed, sorted(signed), revealed.__setitem__, fl_ctx, abort_signal)
        self.aggregator.unmask(revealed, fl_ctx)

    def _ask(
        self,
        task_name: str,
        number: int,
        content: object,
        sites: Iterable[str],
        take: Callable[[str, object], None],
        fl_ctx: FLContext,
        abort_signal: Signal | None,
    ) -> None:
        """Send a message of a round to sites, and take the answers that can be taken."""

        def judge(client_task: ClientTask, fl_ctx: FLContext) -> None:
            site, result = client_task.client.name, client_task.result
            client_task.result = None
            if result.get_return_code() not in (None, ReturnCode.OK):
                return  # recorded when it arrived
            try:
                take(site, from_shareable(result).data.get(CONTENT))
            except Exception as error:  # what a site sends may be anything, and must cost no other site the round
                self.log_error(fl_ctx, f"what {site} answered to {task_name} is refused: {str(error)[:500]}")
                line = {"phase": task_name, "site": site, "status": MaskingError.code, "facts": {}}
                self.fire_event_with_data(ANSWER_TAKEN, fl_ctx, ANSWER, line)

        names = list(sites)
        if not names or (abort_signal is not None and abort_signal.triggered):
            return
        data = message(content)
        data.set_header(AppConstants.CURRENT_ROUND, number)  # by which a site's own records count what it answers
        task = FlareTask(task_name, data, timeout=self.answer_timeout, result_received_cb=judge)
        super().broadcast_and_wait(task, fl_ctx, names, len(names), 0, abort_signal)


class SecureAggregator(AlgorithmAggregator):
    """Adds masked updates as they arrive, in one vector, and hands the algorithm the mean of those in it.

    It knows no hospital's update: how long each is the hospital checks itself, and an algorithm that looks at single
    updates cannot be had. The mean is checked here as an update would be.

    Args:
        min_accepted: As ``AlgorithmAggregator``; also how many hospitals are needed to take the masks off.
        max_update_ratio: Largest L2 norm of the mean, as a multiple of the global model's.
        algorithm: See there; one that needs no more than the mean.
        algorithm_settings: See there.
        max_share: Largest share of one site in a mean of three and more, of those that begin the round.
        patience_rounds: See there.
    """

    def __init__(
        self,
        min_accepted: int,
        max_update_ratio: float,
        algorithm: str = "fedavg",
        algorithm_settings: Mapping[str, float] | None = None,
        max_share: float = 1.0,
        patience_rounds: int = 1,
    ) -> None:
        super().__init__(min_accepted, max_update_ratio, algorithm, algorithm_settings, max_share, patience_rounds)
        self.current: ServerRound | None = None
        self.mean: Weights = {}
        self.is_signed = False

    def begin(self, context: str, fl_ctx: FLContext) -> ServerRound:
        """A fresh round.

        Raises:
            ModelError: The algorithm needs each update.
        """
        if not self.algorithm(fl_ctx).can_be_masked:
            raise ModelError(f"{self.algorithm_name} needs each hospital's update, which secure aggregation hides")
        self.is_signed, self.mean = is_secure(fl_ctx), {}
        authority = read_authority(startup_of(fl_ctx)) if self.is_signed else None
        model = global_weights(fl_ctx)
        size = sum(value.size for value in model.values())
        self.current = ServerRound(context, self.min_accepted, size, digest_of_model(model), authority)
        return self.current

    def _check(self, site: str, shareable: Shareable, fl_ctx: FLContext) -> Contribution:
        dxo = self._of_this_round(site, shareable, fl_ctx)
        if self.current is None or set(dxo.data) != {MASKED}:
            raise ModelError("it must be a masked update and nothing else")
        contribution = self._stated(site, dxo, {})
        advert = self.current.adverts.get(site)
        if advert is None or advert.cases != contribution.cases:
            raise ModelError("it counts by another number of cases than the site gave with its keys")
        self.current.add(site, dxo.data[MASKED])
        return contribution

    def _taken(self, part: Contribution, fl_ctx: FLContext) -> Contribution:
        """All of it: its words are in the sum already."""
        return part

    def close(self) -> tuple[str, ...]:
        """Whose updates are in the sum; none is added any more."""
        with self.lock:
            assert self.current is not None
            self.current.is_closed = True
            return self.current.survivors

    def unmask(self, revealed: Mapping[str, object], fl_ctx: FLContext) -> None:
        """Take the masks off; where that fails the round is lost, and no update is shown."""
        assert self.current is not None
        model, shares = global_weights(fl_ctx), self.current.shares(self.max_share)
        try:
            words = self.current.unmask(revealed)
            mean = decode(words, sum(shares[site] for site in self.current.survivors), len(shares), model)
            check_size(mean, model, self.max_update_ratio)
            self.mean = mean
        except BratsFLError as error:
            self.log_error(fl_ctx, f"the masks cannot be taken off the sum: {error}")
        if self.current.false_shares:
            self.log_error(fl_ctx, f"false shares came from {', '.join(sorted(self.current.false_shares))}")

    def _usable(self) -> int:
        return len(self.accepted) if self.mean else 0

    def _weights(self) -> dict[str, float]:
        assert self.current is not None
        shares = self.current.shares(self.max_share)
        return {site: shares[site] for site in self.accepted}

    def _contributions(self, weights: Mapping[str, float], fl_ctx: FLContext) -> list[Contribution]:
        """The mean, as if one hospital had all cases."""
        cases, steps = (sum(getattr(part, name) for part in self.accepted.values()) for name in ("cases", "steps"))
        return [Contribution(ALL, cases, float(cases), steps, {WEIGHTS: self.mean})]

    def _facts(self) -> dict[str, Any]:
        if self.current is None:
            return {}
        took_part = sorted(self.current.sealed)
        unmasking = Unmasking(
            threshold=self.min_accepted,
            took_part=tuple(took_part),
            dropped_out=tuple(site for site in took_part if site not in self.accepted),
            false_shares=tuple(sorted(self.current.false_shares)),
            keys_signed=self.is_signed,
            max_update_ratio_checked_by_sites=self.max_update_ratio,
        )
        facts = {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(unmasking).items()}
        return {SECURE_AGGREGATION: facts}

    def _why_failed(self) -> str:
        is_enough = len(self.accepted) >= self.min_accepted
        return "NOT_UNMASKED" if is_enough else super()._why_failed()
