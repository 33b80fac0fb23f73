"""``"secure_aggregation": true`` of a job: what it changes in the shared apps, and with what it cannot be combined."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from brats_fl.algorithms import Algorithm
from brats_fl.errors import JobError, MaskingError
from brats_fl.privacy.messages import STEPS
from brats_fl.privacy.site_round import check_threshold
from brats_fl.typed import shorten
from brats_fl_tools.jobs.compression import COMPRESSION
from brats_fl_tools.jobs.source import JobSource

SECURE: Final = "secure_aggregation"
"""Key of a job.json."""

OF_SERVER_TOO: Final = ("min_clients", "max_share", "max_update_ratio")
"""Variables of the server's app that the sites go by as well: they do not leave it to the server."""

CHANGED: Final = frozenset({"aggregator", "scatter_and_gather"})
AGGREGATION: Final = "brats_fl.components.secure_aggregation"
EXECUTOR: Final = "brats_fl.components.secure_executor.SecureExecutor"


def is_secure(source: JobSource) -> bool:
    """Whether a job asks for secure aggregation.

    Raises:
        JobError: It says neither yes nor no.
    """
    asked = source.differences.get(SECURE, False)
    if not isinstance(asked, bool):
        raise JobError(f"{source.folder / 'job.json'}: {SECURE} must be true or false (got {shorten(asked)})")
    return asked


def secure_difference(source: JobSource, server: Mapping[str, Any], client: Mapping[str, Any]) -> dict[str, Any]:
    """What the job gets, in the words of ``job.json``.

    Args:
        source: The job.
        server: Its server's app, so far.
        client: Its sites' app, so far.

    Raises:
        JobError: It trains nothing, or changes what secure aggregation needs as it is.
    """
    _refuse_other_changes(source)
    parts = {part["id"]: part for home in ("workflows", "components") for part in server[home]}
    workflow, aggregator = parts["scatter_and_gather"], parts["aggregator"]
    (entry,) = client["executors"]
    told = {"threshold": "{min_clients}", "max_share": "{max_share}", "max_update_ratio": "{max_update_ratio}"}
    args = {**entry["executor"]["args"], **told}
    # Masked words come as they are: of the compression only the way down is left, which the generator does.
    unpacked = {name: value for name, value in aggregator["args"].items() if name != COMPRESSION}
    tasks = [*entry["tasks"], *sorted(STEPS)]
    return {
        "components": {
            "scatter_and_gather": {
                "path": f"{AGGREGATION}.SecureScatterAndGather",
                "args": {"answer_timeout": "{answer_timeout}", **workflow["args"]},
            },
            "aggregator": {"path": f"{AGGREGATION}.SecureAggregator", "args": unpacked},
        },
        "executors": [{"tasks": tasks, "executor": {"path": EXECUTOR, "args": args}}],
    }


def _refuse_other_changes(source: JobSource) -> None:
    place, given = source.folder / "job.json", source.differences
    if not source.trains:
        raise JobError(f"{place}: {SECURE}: the job trains nothing, and there is no sum to hide in; leave it out")
    for key in ("workflows", "executors", "client_filters", "server_filters"):
        if key in given:
            raise JobError(
                f"{place}: {SECURE} cannot be combined with {key}: a filter would see words without a meaning and "
                "break the sum; leave one of the two out"
            )
    changed = given.get("components", {})
    if isinstance(changed, Mapping) and (own := sorted(CHANGED & set(changed))):
        raise JobError(f"{place}: {SECURE} cannot be combined with a job's own {own[0]}; leave one of the two out")


def check_secure(
    source: JobSource, server: Mapping[str, Any], algorithm: Algorithm | None, needed: int, sites: tuple[str, ...]
) -> None:
    """Refuse what secure aggregation cannot do for an algorithm or for so many hospitals.

    Args:
        source: The job.
        server: Its server's app, with the variables set.
        algorithm: Its algorithm.
        needed: Updates that make a round.
        sites: Who takes part.

    Raises:
        JobError: Says why.
    """
    if server.get("keep_updates"):
        raise JobError(
            f"{source.name}: {SECURE} cannot be combined with keep_updates: what the server could keep are masked "
            "words, of which nothing can be computed again; leave one of the two out"
        )
    if algorithm is not None and not algorithm.can_be_masked:
        raise JobError(
            f"{source.name}: {SECURE} cannot be combined with algorithm {algorithm.name}: it looks at each hospital's "
            "update or at what comes beside it, and the server gets nothing but the sum of updates; take fedavg, or "
            "one of its kind"
        )
    try:
        check_threshold(needed, len(sites))
    except MaskingError as error:
        raise JobError(f"{source.name}: {error}") from error
