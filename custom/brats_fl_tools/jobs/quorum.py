"""How many updates make a round: what the job says, for so many hospitals, and what its algorithm needs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from brats_fl.algorithms import Algorithm
from brats_fl.errors import JobError
from brats_fl_tools.jobs.source import SERVER_CONFIG, JobSource, shared_config

FEWEST: Final = "min_clients"


def updates_needed(
    source: JobSource, given: Mapping[str, Any], stated: int, sites: tuple[str, ...], algorithm: Algorithm | None
) -> int:
    """Updates that make a round.

    Args:
        source: The job.
        given: Variables that the user has set.
        stated: Of the user, else of the job or the shared app, for the job's own number of hospitals.
        sites: Who takes part.
        algorithm: Of the job; None where it trains nothing.

    Raises:
        JobError: There are fewer hospitals than the algorithm needs, or the number is not between both.
    """
    least = algorithm.least_updates() if algorithm else 1
    needs = f"{algorithm.name} needs {least} with its settings" if algorithm and least > 1 else ""
    if least > len(sites):
        raise JobError(f"{source.name}: {needs}, and there are {len(sites)} hospitals; take more, or another algorithm")
    if FEWEST not in given:
        return max(least, fewest_updates(stated, len(source.sites), len(sites)))
    if not least <= stated <= len(sites):
        why = f"; {needs}" if needs else ""
        raise JobError(f"{source.name}: {FEWEST} must be {least} to {len(sites)}, the sites (got {stated}){why}")
    return stated


def fewest_updates(asked: int, of: int, sites: int) -> int:
    """Updates that make a round of ``sites``, where ``asked`` make one ``of`` others: as many may be missing."""
    return max(1, min(sites, sites - (of - asked)))


def updates_of_a_round(source: JobSource, values: Mapping[str, Any]) -> int:
    """Updates that make a round of the job's own hospitals, where these variables are set."""
    stated = source.differences.get(FEWEST, shared_config(SERVER_CONFIG)[FEWEST])
    return int(values.get(FEWEST, stated))
