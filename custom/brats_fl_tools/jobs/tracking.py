"""``--tracking``: what it adds to a job's server, as a difference of a job; the clients' app stays what it is."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from brats_fl.errors import JobError
from brats_fl_tools.jobs.source import JobSource

EXTRA: Final = "brats-fl[tracking]"


@dataclass(frozen=True)
class Tracker:
    """Where curves can be written to."""

    package: str
    """What must be installed at the server, and where the curves are looked at."""
    receiver: str
    """Class of the server's component that writes them."""
    variables: Mapping[str, Any] = field(default_factory=dict)
    """Of the job, and arguments of the receiver."""


TRACKERS: Final[Mapping[str, Tracker]] = MappingProxyType(
    {
        "tensorboard": Tracker("tensorboard", "brats_fl.components.tracking_tensorboard.TensorBoardReceiver"),
        "mlflow": Tracker(
            "mlflow", "brats_fl.components.tracking_mlflow.MLflowSitesReceiver", MappingProxyType({"tracking_uri": ""})
        ),
    }
)


def check_tracker(name: str | None) -> str | None:
    """The name of a tracker that can be had here, as it is, or None for none.

    Raises:
        JobError: There is no such tracker, or its package is not installed here.
    """
    if name is None:
        return None
    if name not in TRACKERS:
        raise JobError(f"--tracking must be one of {', '.join(TRACKERS)} (got {name!r})")
    package = TRACKERS[name].package
    if importlib.util.find_spec(package) is None:
        raise JobError(
            f"--tracking {name}: the package {package} is not installed here; run `pip install '{EXTRA}'`, and on the "
            "machine of the server as well: it writes the curves"
        )
    return name


def trackers_of(server: Mapping[str, Any]) -> tuple[str, ...]:
    """What a server's app writes curves to."""
    return tuple(name for name in TRACKERS if any(part.get("id") == name for part in server.get("components", [])))


def tracking_difference(source: JobSource, name: str) -> dict[str, Any]:
    """What the job gets, in the words of ``job.json``.

    Raises:
        JobError: As ``check_tracker``; the job has no curves.
    """
    check_tracker(name)
    if not source.trains:
        raise JobError(f"--tracking {name}: {source.name} trains nothing and has no curves; leave the option out")
    tracker = TRACKERS[name]
    arguments = {variable: f"{{{variable}}}" for variable in tracker.variables}
    components = {
        "round_tracker": {"path": "brats_fl.components.tracking.RoundTracker"},
        name: {"path": tracker.receiver, "args": arguments},
    }
    return {"add": {"variables": dict(tracker.variables), "components": components}}
