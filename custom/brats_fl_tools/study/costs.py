"""What a study will ask of this machine and of a network, said before its first run: ``brats-fl study plan``."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psutil
import typer
from rich.console import Console
from rich.table import Table

from brats_fl.algorithms import load_algorithm
from brats_fl.bundle import build_network
from brats_fl.cases.datalists import DATALIST_FILE, list_sites, read_datalist
from brats_fl.compression import Compression, check_compression, share_of_bytes
from brats_fl.constants import SPLITS
from brats_fl.settings import bundle_settings
from brats_fl_tools.jobs.compression import COMPRESSION
from brats_fl_tools.jobs.secure import is_secure
from brats_fl_tools.jobs.source import SERVER_CONFIG, JobSource, read_source, shared_config
from brats_fl_tools.pages.formats import format_count, format_duration, list_words
from brats_fl_tools.study.definition import Study, read_study
from brats_fl_tools.study.expansion import FEDERATED, StudyRun, algorithm_of, expand, find_job
from brats_fl_tools.study.measuring import STEPS, Measured, measure
from brats_fl_tools.study.thresholds import read_thresholds

FLOAT_BYTES: Final = 4
PROCESS_BYTES: Final = 273_000_000
"""Of a hospital's FLARE client and its job, beside the trainer: docs/resources.md."""

SERVER_BYTES: Final = 806_000_000
"""Of FLARE's server and its job: docs/resources.md."""

CASE_BYTES: Final = 40e6
"""Of a case in the cache at 1 mm: docs/resources.md; with the third power of the spacing less."""

MODELS_OF_A_RUN: Final = 5
"""Last and best, at the server and in the run folder, and the last as it was sent to be evaluated."""


@dataclass(frozen=True)
class Cost:
    """Of all runs of a kind that one recipe makes."""

    what: str
    runs: int
    steps: int
    seconds: float
    network_bytes: float
    """Between server and hospitals, were they apart."""
    disk_bytes: float
    memory_bytes: float
    """The most that one of them needs at a time."""


def print_costs(path: Path) -> None:
    """Measure, and print the table; nothing is started, and nothing written that stays.

    Raises:
        BratsFLError: As a study's start: the file, a job, a list or the thresholds are wrong.
    """
    study = read_study(path)
    if study.thresholds is not None:
        read_thresholds(study.thresholds)
    runs = expand(study, path, path.resolve().parent / ".study")
    sources = {label: find_job(study, label, path) for label in study.jobs}
    typer.echo(
        f"measuring {STEPS} training steps of {list_words(sorted({run.bundle for run in runs}))} on this machine"
    )
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    if load > cores / 2:
        typer.echo(f"note: others compute here (load {load:.1f} on {cores} cores); alone, a step takes less", err=True)
    measured = measure_recipes(study, sources, runs)
    costs = [
        cost_of(study, sources[label], label, kind, group, measured[label]) for (kind, label), group in _groups(runs)
    ]
    _print_table(costs)
    for line in describe(study, runs, costs, measured):
        typer.echo(line)


def measure_recipes(study: Study, sources: Mapping[str, JobSource], runs: Sequence[StudyRun]) -> dict[str, Measured]:
    """What a step of each job's recipe takes; jobs of one bundle and the same settings of it are measured once."""
    known: dict[str, Measured] = {}
    found: dict[str, Measured] = {}
    folders = study.folders
    for run in runs:
        if run.label in found:
            continue
        bundle = sources[run.label].bundle
        assert bundle is not None
        settings = bundle_values(bundle, study, run.label, sources[run.label])
        key = f"{bundle} {sorted(settings.items())}"
        if key not in known:
            datalist = folders[run.partition] / run.hospitals[0] / DATALIST_FILE
            known[key] = measure(bundle, study.profile, datalist, settings)
        found[run.label] = known[key]
    return found


def bundle_values(bundle: Path, study: Study, label: str, source: JobSource) -> dict[str, Any]:
    """What a job of the study sets of its bundle."""
    settings = bundle_settings(bundle, study.profile)
    values = {**source.differences, **study.values(label)}
    return {name: value for name, value in values.items() if name in settings}


def _groups(runs: Iterable[StudyRun]) -> list[tuple[tuple[str, str], list[StudyRun]]]:
    groups: dict[tuple[str, str], list[StudyRun]] = {}
    for run in runs:
        groups.setdefault((run.kind, run.label), []).append(run)
    return list(groups.items())


def cost_of(
    study: Study, source: JobSource, label: str, kind: str, runs: Sequence[StudyRun], measured: Measured
) -> Cost:
    """Of the runs of a kind, with what was measured of their recipe."""
    model = measured.parameters * FLOAT_BYTES
    payloads = exchanged(study, label, source)
    together = max(hospitals_at_once(run) for run in runs)
    share = share_of_bytes(compression_of(study, label, source))
    sent = payloads - 2 + share + (1 if is_secure(source) else share)  # down and up; masked words are not compressed
    network = sum(sent * model * len(run.hospitals) * run.rounds for run in runs) if kind == FEDERATED else 0
    return Cost(
        what=label if kind == FEDERATED else f"{runs[0].bundle} {kind}",
        runs=len(runs),
        steps=sum(run.steps for run in runs),
        seconds=sum(run.steps for run in runs) * measured.step_seconds,
        network_bytes=network,
        # A checkpoint holds what the algorithm keeps beside the weights, as large as what it sends beside them.
        disk_bytes=sum(
            len(run.parts) * model * payloads / 2 * (MODELS_OF_A_RUN + hospitals_at_once(run)) for run in runs
        ),
        memory_bytes=SERVER_BYTES + together * (PROCESS_BYTES + measured.memory_bytes),
    )


def hospitals_at_once(run: StudyRun) -> int:
    """How many hospitals train side by side in a run folder of the run."""
    return {FEDERATED: len(run.hospitals), "leave-one-out": len(run.hospitals) - 1}.get(run.kind, 1)


def exchanged(study: Study, label: str, source: JobSource) -> int:
    """Arrays of the model's size that go to a hospital and back in a round: 2 of plain averaging, 4 of SCAFFOLD."""
    from brats_fl.exchange import shared_weights

    assert source.bundle is not None
    algorithm = load_algorithm(algorithm_of(study, label, source), code=source.code)
    model = shared_weights(build_network(source.bundle, study.profile, seed=0))
    return 2 + len(algorithm.broadcast(algorithm.server_state(model))) + len(algorithm.sent)


def compression_of(study: Study, label: str, source: JobSource) -> Compression:
    """How the weights of a job travel; what its algorithm sends beside them is always whole."""
    values = {**shared_config(SERVER_CONFIG), **source.differences, **study.values(label)}
    return check_compression(values[COMPRESSION])


def cache_bytes(study: Study, runs: Sequence[StudyRun], sources: Iterable[Path]) -> float:
    """Of the preprocessed cases of all partitions, one entry for each case, spacing and label."""
    cases = {
        (case.image, study.spoilt.get(run.partition, {}).get(site.parent.name))
        for run in runs
        for site in list_sites(study.folders[run.partition])
        for split in SPLITS
        for case in read_datalist(site).split(split)
    }
    spacings = {tuple(bundle_settings(bundle, study.profile)["spacing_mm"].default) for bundle in sources}
    return sum(len(cases) * CASE_BYTES / (x * y * z) for x, y, z in spacings)


def _print_table(costs: Sequence[Cost]) -> None:
    table = Table("what", "runs", "steps", "time", "network", "disk", "memory", box=None, pad_edge=False)
    for column in table.columns[1:]:
        column.justify, column.no_wrap = "right", True
    total = Cost(
        what="all",
        runs=sum(one.runs for one in costs),
        steps=sum(one.steps for one in costs),
        seconds=sum(one.seconds for one in costs),
        network_bytes=sum(one.network_bytes for one in costs),
        disk_bytes=sum(one.disk_bytes for one in costs),
        memory_bytes=max(one.memory_bytes for one in costs),
    )
    for one in (*costs, total):
        sizes = [size(value) if value else "none" for value in (one.network_bytes, one.disk_bytes, one.memory_bytes)]
        table.add_row(one.what, f"{one.runs:,}", f"{one.steps:,}", format_duration(one.seconds), *sizes)
    Console().print(table)


def describe(
    study: Study, runs: Sequence[StudyRun], costs: Sequence[Cost], measured: Mapping[str, Measured]
) -> list[str]:
    """What stands under the table: what was measured, what is not counted, and what this machine has."""
    steps = [
        f"{label}: {one.step_seconds:.2f} s a step, trainer {size(one.memory_bytes)}" for label, one in measured.items()
    ]
    disk, memory = sum(one.disk_bytes for one in costs), max(one.memory_bytes for one in costs)
    free, there = shutil.disk_usage(Path.cwd()).free, psutil.virtual_memory().total
    cache = _cache_line(study, runs)
    return [
        "",
        *steps,
        f"time: steps alone, of hospitals that share {format_count(os.cpu_count() or 1, 'core')}; validation, "
        "evaluation and the start of each run come on top",
        f"memory: the run that needs most, {size(memory)}; this machine has {size(there)}"
        + (": too little" if memory > there else ""),
        f"disk: models {size(disk)}, {cache}; free here {size(free)}",
        "nothing was started",
    ]


def _cache_line(study: Study, runs: Sequence[StudyRun]) -> str:
    bundles = {bundle for run in runs if (bundle := read_source(run.job).bundle)}
    return f"preprocessed cases at most {size(cache_bytes(study, runs, bundles))}"


def size(count: float) -> str:
    """Bytes as a reader wants them."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6)):
        if count >= scale:
            return f"{count / scale:,.1f} {unit}"
    return f"{count / 1e3:,.0f} kB"
