"""Who takes part in a run: the job's own list, or what the folder of sites, the project or the federation has."""

from __future__ import annotations

from brats_fl.errors import JobError
from brats_fl_tools.jobs.source import JobSource


def choose_sites(source: JobSource, leave_out: str | None) -> tuple[str, ...]:
    """The sites that take part.

    Raises:
        JobError: The site to leave out is none of them.
    """
    sites = source.sites
    if leave_out is not None and leave_out not in sites:
        raise JobError(f"--leave-out {leave_out}: {source.name} goes to {', '.join(sites)}; leave out one of these")
    return tuple(site for site in sites if site != leave_out)
