"""Federated algorithms, a module each, as pure functions on named arrays: no FLARE, no files, no state of their own.

A module states its ``SETTINGS``, each a number, its default, or a ``brats_fl.settings.Setting`` with meaning and
bounds, and ``SENT``, what its sites send beside the update, and has the functions of ``Algorithm`` that it needs;
``server_update`` is the only one that it must have. One that is as content with the updates' weighted mean as with each
update says ``NEEDS_MEAN_ONLY = True``: it is given one contribution, the mean, the server keeps no update, and where it
sends nothing beside the update it can be had with secure aggregation. One that says ``IS_PRIVATE = True`` has the
settings of ``dp``, and its sites train by ``brats_fl.privacy.private_training``. ``fedavg`` is the plainest. Nothing
else in the library knows an algorithm by name: a new module here, or in a job's own ``custom`` folder, is all that a
new one takes.

The order of a round:

    server  broadcast(state)                        what sites are sent beside the weights
    site    is_local(name)                          whether a parameter never leaves the site and is never replaced
    site    local_term(...)                         added to the gradient of every local step
    site    client_update(...)                      the site's own new state, and what is sent beside the update
    server  least_updates()                         updates without which there is no step
    server  server_update(model, state, updates)    the change of the model, and the new state
"""

from __future__ import annotations

import importlib
import importlib.util
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

from brats_fl.errors import JobError
from brats_fl.exchange import WEIGHTS, Payloads, Weights
from brats_fl.settings import Setting, check_settings

if TYPE_CHECKING:
    import torch

Settings = Mapping[str, float]

LOCAL: Final = "local"
"""Entry of a site's own state: its model, of which it keeps what ``is_local``."""


@dataclass(frozen=True)
class Contribution:
    """What the server accepted of a site in a round."""

    site: str
    cases: int
    """Training cases."""
    weight: float
    """What the site counts in a mean: its cases, held down where it would own the model."""
    steps: int
    """Local steps."""
    payloads: Payloads

    @property
    def update(self) -> Weights:
        """Local minus global weights."""
        return self.payloads[WEIGHTS]


@dataclass(frozen=True)
class LocalRun:
    """What a site did with the weights that it got."""

    start: Weights
    """The global model that it got."""
    trained: Weights
    """The model that it made of it."""
    steps: int
    learning_rate_sum: float
    """Sum of the learning rates of these steps."""


@dataclass(frozen=True)
class Algorithm:
    """An algorithm that a job asked for, with its settings."""

    name: str
    module: ModuleType
    settings: Settings = field(default_factory=dict)

    @property
    def sent(self) -> tuple[str, ...]:
        """Names of the payloads that sites send beside the weights; each has the parameters' names and shapes."""
        return tuple(getattr(self.module, "SENT", ()))

    @property
    def needs_mean_only(self) -> bool:
        """Whether the updates' weighted mean is as good to it as each update."""
        return bool(getattr(self.module, "NEEDS_MEAN_ONLY", False))

    @property
    def is_private(self) -> bool:
        """Whether its sites train with noise, and send nothing that was computed on scans without it."""
        return bool(getattr(self.module, "IS_PRIVATE", False))

    @property
    def can_be_masked(self) -> bool:
        """Whether it can be had where the server learns no more than the sum of the updates."""
        return self.needs_mean_only and not self.sent

    def server_state(self, model: Weights) -> Payloads:
        """What the server keeps beside the model, before the first round."""
        return self._call("server_state", model, settings=self.settings) or {}

    def broadcast(self, state: Payloads) -> Payloads:
        """What sites are sent beside the weights."""
        return self._call("broadcast", state, settings=self.settings) or {}

    def least_updates(self) -> int:
        """Updates that a round needs at least for the algorithm to hold what it promises."""
        return int(self._call("least_updates", settings=self.settings) or 1)

    def server_update(
        self, model: Weights, state: Payloads, contributions: Sequence[Contribution]
    ) -> tuple[Weights, Payloads]:
        """The change of the model, float32, and the new state.

        Args:
            model: The global model that the sites were sent.
            state: The server's state, as they were sent it.
            contributions: Accepted ones, in the order of the sites' names; of one that needs their mean only, that.
        """
        update, new = self.module.server_update(model, state, contributions, settings=self.settings)
        return update, new

    def is_local(self, name: str) -> bool:
        """Whether a parameter stays at the site: the site goes on from its own, and its change is sent as zero."""
        function = getattr(self.module, "is_local", None)
        return bool(function(name)) if function else False

    @property
    def has_local_term(self) -> bool:
        """Whether something is added to the local step."""
        return hasattr(self.module, "local_term")

    def local_term(
        self,
        weight: torch.Tensor,
        start: torch.Tensor,
        received: Mapping[str, torch.Tensor],
        own: Mapping[str, torch.Tensor],
    ) -> torch.Tensor:
        """What is added to a parameter's gradient at a local step, of the parameter's shape.

        Args:
            weight: The parameter as it is now.
            start: As it was sent.
            received: Payload -> this parameter's entry, of what came beside the weights.
            own: The same of the site's own state; empty before its first round.
        """
        term: torch.Tensor = self.module.local_term(weight, start, received, own, settings=self.settings)
        return term

    def client_update(self, run: LocalRun, received: Payloads, own: Payloads) -> tuple[Payloads, Payloads]:
        """The site's own new state, which never leaves it, and what is sent beside the update."""
        return self._call("client_update", run, received, own, settings=self.settings) or ({}, {})

    def _call(self, name: str, *arguments: Any, settings: Settings) -> Any:
        function = getattr(self.module, name, None)
        return function(*arguments, settings=settings) if function else None


def load_algorithm(name: str, settings: Settings | None = None, code: Path | None = None) -> Algorithm:
    """An algorithm by name: a module of this package, else ``NAME.py`` in the folder of a job's own code.

    Args:
        name: A plain name; no path, no dots.
        settings: Of the job; those that are not set have the module's defaults, if they have one: ``check_chosen``.
        code: Folder of the job's own code; None where it brings none.

    Raises:
        JobError: There is no such algorithm, or a setting is not its own or may not have its value.
    """
    module = load_module(name, code)
    declared = _declared(module)
    given = dict(settings or {})
    check_settings(f"algorithm {name}", declared, given)
    defaults = {key: setting.default for key, setting in declared.items() if not setting.is_chosen}
    return Algorithm(name, module, defaults | given)


def check_chosen(algorithm: Algorithm, place: str) -> None:
    """Raise ``JobError`` where a setting that has no default was not set."""
    if unset := [name for name in _declared(algorithm.module) if name not in algorithm.settings]:
        raise JobError(
            f"{place}: {', '.join(unset)} must be chosen: what guards privacy has no default. Add "
            f"{' '.join(f'--set {name}=...' for name in unset)}; `brats-fl privacy plan` says what values come to"
        )


def algorithm_settings(name: str, code: Path | None = None) -> dict[str, Setting]:
    """What may be set of an algorithm; see ``load_algorithm``."""
    return _declared(load_module(name, code))


def _declared(module: ModuleType) -> dict[str, Setting]:
    settings: Mapping[str, float | Setting] = getattr(module, "SETTINGS", {})
    return {name: s if isinstance(s, Setting) else Setting(float(s)) for name, s in settings.items()}


def load_module(name: str, code: Path | None = None) -> ModuleType:
    """The module of an algorithm; see ``load_algorithm``."""
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise JobError(f"algorithm must be a plain name of small letters, digits and _ (got {name!r})")
    own = code / f"{name}.py" if code else None
    if importlib.util.find_spec(f"{__name__}.{name}"):
        module = importlib.import_module(f"{__name__}.{name}")
    elif own is not None and own.is_file():
        spec = importlib.util.spec_from_file_location(name, own)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    else:
        raise JobError(
            f"no algorithm {name!r}; there are {', '.join(algorithm_names())}" + (f", or {own}" if own else "")
        )
    if not hasattr(module, "server_update"):
        raise JobError(
            f"algorithm {name}: {module.__file__} has no server_update(model, state, contributions, settings)"
        )
    return module


def algorithm_names() -> list[str]:
    """Names of the algorithms of this library."""
    return sorted(file.stem for file in Path(__file__).parent.glob("[a-z]*.py"))
