"""The server's model: built from the bundle's own network definition, kept on disk by FLARE's persistor."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from nvflare.apis.event_type import EventType
from nvflare.apis.fl_context import FLContext
from nvflare.app_common.abstract.model import ModelLearnable, ModelLearnableKey
from nvflare.app_common.app_constant import AppConstants, DefaultCheckpointFileName
from nvflare.app_opt.pt.file_model_locator import PTFileModelLocator
from nvflare.app_opt.pt.file_model_persistor import PTFileModelPersistor

from brats_fl.aggregation import check_update
from brats_fl.bundle import build_network
from brats_fl.components.bundle_location import app_root, locate_bundle
from brats_fl.errors import BratsFLError, JobError
from brats_fl.exchange import Payloads, shared_weights
from brats_fl.kept_updates import ALGORITHM_STATE, ROUNDS_DONE
from brats_fl.network.checkpoints import read_state_for
from brats_fl.site_state import as_arrays, as_tensors


class BundlePersistor(PTFileModelPersistor):
    """Starts from the bundle's network with random weights of a seed, or from a checkpoint.

    Args:
        bundle: Name of the bundle that comes with the job.
        profile: ``full`` or an overlay of the bundle.
        seed: Seed of the random weights.
        start_from: Checkpoint in the job's server app to start from in place of random weights; empty for none.
        start_round: First round. From 0 on, the checkpoint is anybody's, and gives its weights alone; later, it is what
            the job itself had kept, and what its algorithm remembers goes on, too.
        required_code: What must be installed where the job brings no code; see ``brats_fl.provenance``.
    """

    def __init__(
        self,
        bundle: str,
        profile: str,
        seed: int,
        start_from: str = "",
        start_round: int = 0,
        required_code: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(load_device="cpu")
        self.start_from = start_from
        self.start_round = start_round
        self.required_code = required_code
        self.bundle = bundle
        self.profile = profile
        self.seed = seed

    def handle_event(self, event: str, fl_ctx: FLContext) -> None:
        """Build the network before FLARE's persistor asks for it."""
        if event == EventType.START_RUN:
            try:
                bundle = locate_bundle(self.bundle, self.required_code, fl_ctx)
                self.model = build_network(bundle, self.profile, self.seed)
                if Path(self.start_from).name != self.start_from:
                    raise JobError(f"start_from must be the name of a file in the job (got {self.start_from!r})")
            except BratsFLError as error:
                self.system_panic(str(error), fl_ctx)
                return
            if self.start_from and self.start_round:
                self.source_ckpt_file_full_name = str(app_root(fl_ctx) / self.start_from)
        super().handle_event(event, fl_ctx)

    def load_model(self, fl_ctx: FLContext) -> ModelLearnable | None:
        """The model to start from; a checkpoint of another network ends the job here and not at every site."""
        if self.model is None:
            return None  # it could not be built, and the job is given up
        try:
            if self.start_from and not self.start_round:
                self.model.load_state_dict(read_state_for(app_root(fl_ctx) / self.start_from, self.model))
            learnable = super().load_model(fl_ctx)
            if learnable is None:
                return None
            check_update(learnable[ModelLearnableKey.WEIGHTS], shared_weights(self.model))
            kept = self.persistence_manager.other_props.get(ALGORITHM_STATE)
            state = None if kept is None else as_arrays(kept)
        except BratsFLError as error:
            self.system_panic(f"{self.start_from or 'the model'} does not fit {self.bundle}: {error}", fl_ctx)
            return None
        if state is not None:
            fl_ctx.set_prop(ALGORITHM_STATE, state, private=True, sticky=True)
        return learnable

    def save_model(self, ml: ModelLearnable, fl_ctx: FLContext) -> None:
        """Keep the global model with the number of rounds that made it, so that a job can go on from it."""
        rounds_done = int(fl_ctx.get_prop(AppConstants.CURRENT_ROUND)) + 1
        kept = self._get_persistence_manager(fl_ctx).other_props
        kept[ROUNDS_DONE] = rounds_done
        state: Payloads | None = fl_ctx.get_prop(ALGORITHM_STATE)
        if state is not None:
            kept[ALGORITHM_STATE] = as_tensors(state)
        super().save_model(ml, fl_ctx)


class FinalModelLocator(PTFileModelLocator):
    """Only the final global model, for the last evaluation on every site."""

    def get_model_names(self, fl_ctx: FLContext) -> list[str]:
        """Name of the final model in the persistor's inventory."""
        return [name for name in super().get_model_names(fl_ctx) if name == DefaultCheckpointFileName.GLOBAL_MODEL]
