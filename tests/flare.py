"""A FLARE engine as small as the components need it; contexts, workspaces and shareables are FLARE's own."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from nvflare.apis.fl_component import FLComponent
from nvflare.apis.fl_constant import FLContextKey
from nvflare.apis.fl_context import FLContext, FLContextManager
from nvflare.apis.shareable import Shareable
from nvflare.apis.utils.decomposers import flare_decomposers
from nvflare.apis.utils.event import fire_event_to_components
from nvflare.apis.workspace import Workspace
from nvflare.app_common.decomposers import common_decomposers
from nvflare.fuel.utils import fobs
from tests.tiny_network import write_tiny_profile

import brats_fl

LIBRARY = Path(brats_fl.__file__).parent
BUNDLES = Path(__file__).parents[1] / "bundles"
JOB = "0f7a3c52-8d14-4f0b-9c6e-2b1d5a9e7f30"


class Engine:
    """Gives out the workspace and the clients, notes every event that is fired, and tells its components."""

    def __init__(self, root: Path, site: str, clients: tuple[str, ...] = (), job: str = JOB) -> None:
        self.job = job
        self.components: list[FLComponent] = []
        self.component_of: dict[str, FLComponent] = {}
        for folder in ("startup", "local", job):
            (root / folder).mkdir(parents=True, exist_ok=True)
        app = root / job / f"app_{site}"
        (app / "custom").mkdir(parents=True, exist_ok=True)
        (app / "custom" / "brats_fl").symlink_to(LIBRARY)
        shutil.copytree(BUNDLES, app / "bundles", ignore=shutil.ignore_patterns("models", "eval"))
        write_tiny_profile(app / "bundles" / "brats_unet")
        self.workspace = Workspace(str(root), site)
        self.clients = [SimpleNamespace(name=name) for name in clients]
        self.request_filters: list[tuple[Any, ...]] = []
        self.commands: dict[str, Callable[..., dict[str, Any]]] = {}
        self.events: list[tuple[str, Any]] = []
        self.contexts = FLContextManager(engine=self, identity_name=site, job_id=job)
        with self.new_context() as fl_ctx:
            fl_ctx.set_prop(FLContextKey.APP_ROOT, str(app), private=True, sticky=True)

    def get_cell(self) -> Any:
        """A cell that notes its filters: (channel, topic, function, arguments)."""
        note = lambda *filter_and_arguments: self.request_filters.append(filter_and_arguments)  # noqa: E731
        return SimpleNamespace(core_cell=SimpleNamespace(add_incoming_request_filter=note))

    def register_app_command(self, topic: str, function: Callable[..., dict[str, Any]]) -> None:
        self.commands[topic] = function

    def get_workspace(self) -> Workspace:
        return self.workspace

    def get_component(self, component_id: str) -> FLComponent | None:
        return self.component_of.get(component_id)

    def get_clients(self) -> list[Any]:
        return self.clients

    def fire_event(self, event_type: str, fl_ctx: FLContext) -> None:
        self.events.append((event_type, fl_ctx.get_prop(FLContextKey.EVENT_DATA)))
        fire_event_to_components(event_type, self.components, fl_ctx)

    def new_context(self, peer: str | None = None) -> FLContext:
        """A context as FLARE makes one for a task; ``peer`` is the site that a message came from."""
        fl_ctx = self.contexts.new_context()
        if peer is not None:
            fl_ctx.set_peer_context(FLContextManager(identity_name=peer, job_id=self.job).new_context())
        return fl_ctx


def as_sent(message: Shareable) -> bytes:
    """The bytes that FLARE sends for a message."""
    flare_decomposers.register()
    common_decomposers.register()
    return fobs.dumps(message)
