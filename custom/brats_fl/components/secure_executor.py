"""A site's side of secure aggregation: the update leaves it as words that mean nothing without the others'."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Final

from nvflare.apis.dxo import DXO, DataKind, from_shareable
from nvflare.apis.fl_constant import FLContextKey
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable
from nvflare.app_common.app_constant import AppConstants

from brats_fl.aggregation import check_size
from brats_fl.cases.datalists import find_datalist, read_datalist
from brats_fl.components.executor import BratsExecutor
from brats_fl.errors import MaskingError
from brats_fl.exchange import MASKED, WEIGHTS
from brats_fl.privacy.identity import Identity, read_identity
from brats_fl.privacy.messages import STEPS, TASK_CONFIRM, TASK_KEYS, TASK_SHARES, Advert, read_message
from brats_fl.privacy.site_round import SiteRound
from brats_fl.site_state import find_state_dir, note_masked
from brats_fl.tasks import Task, TaskResult

SEALED: Final = "brats_fl_sealed_shares"
"""Header of the task ``train``: what the sites have sealed for one another."""

CONTENT: Final = "content"
"""Entry of the messages around it."""


class SecureExecutor(BratsExecutor):
    """Runs a bundle at a site, and sends its update masked: the server reads the sum of all hospitals' and no more.

    The size of the update is checked here, where it can still be read. Secrets are of one round and in memory only.

    Args:
        threshold: Sites that are needed to take the masks off a sum; more than half of them.
        max_share: Largest share of one site in a mean of three and more.
        max_update_ratio: Largest L2 norm of an update, as a multiple of the global model's; a longer one is not sent.
        bundle: As ``BratsExecutor``, and so are the others.
        profile: See there.
        local_epochs: See there.
        seed: See there.
        algorithm: See there.
        algorithm_settings: See there.
        study: See there.
        overrides: See there.
        start_round: See there.
        required_code: See there.
        compression: See there; of the way down alone: masked words stay as they are.
    """

    messages: ClassVar[frozenset[str]] = STEPS

    def __init__(
        self,
        threshold: int,
        max_share: float,
        max_update_ratio: float,
        bundle: str,
        profile: str,
        local_epochs: int,
        seed: int,
        algorithm: str = "fedavg",
        algorithm_settings: Mapping[str, float] | None = None,
        study: str = "",
        overrides: Mapping[str, Any] | None = None,
        start_round: int = 0,
        required_code: Mapping[str, str] | None = None,
        compression: str = "none",
    ) -> None:
        super().__init__(
            bundle=bundle,
            profile=profile,
            local_epochs=local_epochs,
            seed=seed,
            algorithm=algorithm,
            algorithm_settings=algorithm_settings,
            study=study,
            overrides=overrides,
            start_round=start_round,
            required_code=required_code,
            compression=compression,
        )
        if threshold < 1:
            raise ValueError(f"threshold must be >= 1 (got {threshold})")
        if not 0 < max_share <= 1:
            raise ValueError(f"max_share must be above 0 and at most 1 (got {max_share})")
        if not 0 < max_update_ratio < float("inf"):
            raise ValueError(f"max_update_ratio must be a number > 0 (got {max_update_ratio})")
        self.threshold, self.max_share, self.max_update_ratio = threshold, max_share, max_update_ratio
        self.round: SiteRound | None = None

    def _answer(self, task_name: str, shareable: Shareable, fl_ctx: FLContext) -> Shareable:
        """A step of ``site_round``; one that is not its turn is refused, and the round is lost to the site."""
        content = from_shareable(shareable).data.get(CONTENT)
        if task_name == TASK_KEYS:
            self.round = self._begin(shareable, fl_ctx)
            return message(dict(vars(self.round.advert)))
        if task_name == TASK_SHARES:
            roster = read_message(dict[str, Advert], content, "the server")
            return message(self._current().deal(roster))
        if task_name == TASK_CONFIRM:
            return message(self._current().confirm(read_message(list[str], content, "the server")))
        revealed = self._current().reveal(read_message(dict[str, str], content, "the server"))
        self.round = None
        return message(revealed)

    def _begin(self, shareable: Shareable, fl_ctx: FLContext) -> SiteRound:
        site, kit = fl_ctx.get_identity_name(), Path(fl_ctx.get_engine().get_workspace().get_root_dir())
        cases = len(read_datalist(find_datalist(site, kit)).training)
        return SiteRound(site, cases, context_of(shareable, fl_ctx), self.threshold, self._identity(fl_ctx))

    def _identity(self, fl_ctx: FLContext) -> Identity | None:
        if is_secure(fl_ctx):
            return read_identity(startup_of(fl_ctx))
        self.log_info(fl_ctx, "a simulation has no certificates: nothing shows whose key is whose")
        return None

    def _current(self) -> SiteRound:
        if self.round is None:
            raise MaskingError("the server did not ask this site for its keys in this round")
        return self.round

    def _task(self, task_name: str, shareable: Shareable, fl_ctx: FLContext) -> Task:
        """With the others' shares opened before anything is trained."""
        task = super()._task(task_name, shareable, fl_ctx)
        if task.name == "train":
            sealed = read_message(dict[str, dict[str, str]], shareable.get_header(SEALED), "the server")
            self._current().open(sealed)
            kit = Path(fl_ctx.get_engine().get_workspace().get_root_dir())
            note_masked(find_state_dir(fl_ctx.get_identity_name(), self.study, kit))
        return task

    def _sent(self, task: Task, result: TaskResult) -> DXO:
        """The masked update.

        Raises:
            ModelError: It is implausibly long.
            MaskingError: The algorithm would send more than it, or the cases have changed since the keys were given.
        """
        current = self._current()
        if set(result.payloads) != {WEIGHTS}:
            raise MaskingError(f"{self.algorithm} sends more than an update, which would go unmasked; nothing was sent")
        if result.statistics["cases"] != current.advert.cases:
            raise MaskingError("the data list has changed during the round; the next one goes by the new list")
        check_size(result.update, task.weights, self.max_update_ratio)
        return DXO(DataKind.APP_DEFINED, data={MASKED: current.mask(result.update, task.weights, self.max_share)})


def message(content: object) -> Shareable:
    """A message of secure aggregation."""
    return DXO(DataKind.APP_DEFINED, data={CONTENT: content}).to_shareable()


def context_of(shareable: Shareable, fl_ctx: FLContext) -> str:
    """Job and round, which the keys are good for."""
    return f"{fl_ctx.get_job_id()}/{int(shareable.get_header(AppConstants.CURRENT_ROUND, 0))}"


def is_secure(fl_ctx: FLContext) -> bool:
    """Whether there are certificates: everywhere but in the simulator."""
    return bool(fl_ctx.get_prop(FLContextKey.SECURE_MODE, True))


def startup_of(fl_ctx: FLContext) -> Path:
    """Folder of the kit's certificates."""
    return Path(fl_ctx.get_engine().get_workspace().get_startup_kit_dir())
