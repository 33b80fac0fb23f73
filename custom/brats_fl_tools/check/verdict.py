"""Runs the data gate over the lists of a folder: the cases spread over the cores, one in memory each."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from rich.console import Console
from rich.progress import track

from brats_fl.cases.datalists import Case
from brats_fl.errors import DataListError, RunError
from brats_fl.gate import CaseVerdict, Finding, check_case, check_case_headers_only, check_list
from brats_fl.gate.lists import Entry, entries_of
from brats_fl_tools.data.given_cases import GivenCases, read_given

PLAIN_LINES = 10
"""Lines of progress where there is no terminal."""


def read_sources(where: Path, mapping: Path | None = None) -> list[GivenCases]:
    """The cases to check; what stands twice in lists is left to the gate.

    Args:
        where: A data list, a folder of sites, a case table, or a folder of scans as an import reads it.
        mapping: Description of a hospital's own layout, of such a folder.

    Raises:
        DataListError, CaseError: There is none, one cannot be read, none has a case, or two lists are of one site.
    """
    sources = read_given(where, mapping)
    of_site: dict[str, Path] = {}
    for source in sources:
        site = source.datalist.site
        if (other := of_site.setdefault(site, source.beside)) != source.beside:
            raise DataListError(f"{source.beside}: site {site} has another list, {other}; give each site its own name")
    if not any(source.faults or entries_of([source.datalist]) for source in sources):
        raise DataListError(f"{where}: lists no case; write a list with `brats-fl partition`")
    return sources


def entries_in(sources: Iterable[GivenCases]) -> list[Entry]:
    """Every case of them."""
    return entries_of(source.datalist for source in sources)


def faults_in(sources: Iterable[GivenCases]) -> list[str]:
    """What is wrong with the names or the number of cases' files, a line a case."""
    return [f"{case}: {why}" for source in sources for case, why in (*source.faults, *source.label_faults)]


def check_entries(entries: Sequence[Entry], workers: int, headers_only: bool) -> list[Finding]:
    """Every finding in the cases of some lists and in the lists themselves.

    Args:
        entries: The cases, as ``gate.lists.entries_of`` gives them.
        workers: Cases that are read at a time.
        headers_only: Read no voxels.

    Raises:
        RunError: A worker process died, as when the memory ran out.
    """
    check = check_case_headers_only if headers_only else check_case_safely
    cases = [entry.case for entry in entries]
    if workers == 1 or headers_only or len(cases) < 2:
        verdicts = list(show_progress(map(check, cases), len(cases)))
    else:
        verdicts = list(show_progress(_check_in_parallel(check, cases, workers), len(cases)))
    return check_list(entries, verdicts)


def check_case_safely(case: Case) -> CaseVerdict:
    """What ``check_case`` says; where a file is so odd that it fails, that is what was found."""
    try:
        return check_case(case)
    except Exception as error:  # one odd file must not keep the other cases from being checked
        found = f"could not be checked ({type(error).__name__}: {error})"
        return CaseVerdict([Finding("G02-file-unreadable", found, case.case)])


def _check_in_parallel(
    check: Callable[[Case], CaseVerdict], cases: Sequence[Case], workers: int
) -> Iterator[CaseVerdict]:
    # Each worker has one core: threads of linear algebra would only get in each other's way.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    context = multiprocessing.get_context("spawn")
    try:
        with ProcessPoolExecutor(min(workers, len(cases)), mp_context=context) as pool:
            yield from pool.map(check, cases)
    except BrokenProcessPool as error:
        raise RunError(
            f"a process of the check died, perhaps for want of memory; try fewer than --workers {workers}"
        ) from error


def show_progress(verdicts: Iterable[CaseVerdict], total: int) -> Iterator[CaseVerdict]:
    """Pass verdicts on; a bar on a terminal, some plain lines elsewhere, on standard error."""
    console = Console(stderr=True)
    if console.is_terminal:
        yield from track(verdicts, "checking", total=total, console=console)
        return
    step = max(1, total // PLAIN_LINES)
    for done, verdict in enumerate(verdicts, start=1):
        yield verdict
        if done % step == 0 or done == total:
            console.print(f"checked={done}/{total}", highlight=False)
