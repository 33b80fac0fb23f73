"""The variable ``compression`` of a job: one word for server and sites, and with what it cannot be combined."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from brats_fl.errors import JobError
from brats_fl_tools.jobs.source import JobSource
from brats_fl_tools.jobs.variants import parts_of

COMPRESSION: Final = "compression"
"""Variable of the server's app, which the sites are told."""

NOT_COMPRESSED: Final = "none"
TOLD: Final = f"{{{COMPRESSION}}}"


def check_compressed(source: JobSource, server: Mapping[str, Any], client: Mapping[str, Any], secure: bool) -> None:
    """Refuse compression where a part of the job would take what is compressed for weights.

    Args:
        source: The job.
        server: Its server's app, with the variables set.
        client: Its sites' app.
        secure: Whether updates leave masked, and so not compressed.

    Raises:
        JobError: Says which part.
    """
    compression = {**client, **server}.get(COMPRESSION, NOT_COMPRESSED)  # of one side only, where a job replaced much
    if compression == NOT_COMPRESSED:
        return
    asked = f"{source.name}: compression {compression} cannot be combined with"
    remedy = f'set "{COMPRESSION}": "{NOT_COMPRESSED}"'
    for key in ("client_filters", "server_filters"):
        if source.differences.get(key):
            raise JobError(f"{asked} {key}: a filter would see packed bytes and no weights; {remedy}, or leave it out")
    needed = ["shareable_generator", *([] if secure else ["aggregator"])]
    there = {part.get("id"): part for part in parts_of(server)}
    parts = {name: there.get(name, {}) for name in needed}
    executors = {f"executor of {', '.join(one['tasks'])}": one["executor"] for one in client.get("executors", [])}
    for name, part in {**parts, **executors}.items():
        if part.get("args", {}).get(COMPRESSION) != TOLD:
            raise JobError(f'{asked} the job\'s own {name}, which does not take "{COMPRESSION}": "{TOLD}"; {remedy}')
