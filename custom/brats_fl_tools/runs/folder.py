"""The run folder: what a federated run leaves behind, collected from the server's workspace."""

from __future__ import annotations

import json
import platform
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import typer

from brats_fl.cases.datalists import DATALIST_FILE, read_datalist
from brats_fl.best_model import mean_votes
from brats_fl.constants import KEY_METRIC, SPLITS
from brats_fl.errors import DataListError, RunError
from brats_fl.files import write_whole
from brats_fl.round_records import RECORDS_FILE, as_lines, read_records
from brats_fl_tools.jobs.assembly import BuiltJob
from brats_fl_tools.runs.curves import take_curves
from brats_fl_tools.runs.processes import last_lines

FINAL_MODEL = "final_model.pt"
BEST_MODEL = "global_model.pt"
RUN_FILE = "run.json"
FLARE_FINAL = "FL_global_model.pt"
FLARE_BEST = "best_FL_global_model.pt"
EVALUATION_FILE = "evaluation.json"
"""What was evaluated: model, bundle, profile, split; the figures are in ``CASE_TABLE_FILE``."""

MASKS_FOLDER = "masks"
EARLIER = "earlier"
"""Folder of a resumed run: records and best model of what had been done before."""


def check_sites(sites: Path, names: Sequence[str], trains: bool) -> dict[str, dict[str, int]]:
    """Cases per split of each site of a job.

    Args:
        sites: Folder with ``SITE/datalist.json``.
        names: The sites that take part.
        trains: Whether the job needs training cases.

    Raises:
        DataListError: A site's data list is missing, wrong or has no training case; all such sites are named.
    """
    counts: dict[str, dict[str, int]] = {}
    problems: list[str] = []
    for name in names:
        try:
            datalist = read_datalist(sites / name / DATALIST_FILE)
            counts[name] = {split: len(datalist.split(split)) for split in SPLITS}
            if trains and not datalist.training:
                problems.append(f"{sites / name / DATALIST_FILE}: training is empty; at least one case is needed")
        except DataListError as error:
            problems.append(str(error))
    if problems:
        raise DataListError("\n       ".join(problems))
    return counts


def prepare_run_folder(run: Path, force: bool) -> None:
    """An empty run folder.

    Raises:
        RunError: It holds something and ``force`` is not set, or is no run folder of ours.
    """
    if run.exists() and any(run.iterdir()):
        if not force:
            raise RunError(f"{run} is not empty; choose another --out or add --force")
        if not (run / RUN_FILE).is_file() and not (run / "job").is_dir():
            raise RunError(f"{run} is not empty and no run folder; choose another --out")
        shutil.rmtree(run)
    run.mkdir(parents=True, exist_ok=True)


def describe_record(record: dict[str, Any]) -> str:
    """One line: ``round=3 site=hospital-2 cases=61 loss=0.412 val_mean_dice=0.731 seconds=214``."""
    label = f"round={record['round']}" if record["phase"] == "train" else record["phase"]
    parts = [label, f"site={record['site']}"]
    if record["status"] != "ok":
        return " ".join([*parts, f"status={record['status']}"])
    parts.append(f"cases={record.get('cases', '?')}")
    if record.get("loss") is not None:
        parts.append(f"loss={record['loss']:.3f}")
    metric = (record.get("metrics") or {}).get(KEY_METRIC)
    parts.append(f"{KEY_METRIC}={'none' if metric is None else f'{metric:.3f}'}")
    parts.append(f"seconds={record.get('seconds', record.get('evaluate_seconds', 0)):.0f}")
    return " ".join(parts)


class Progress:
    """Prints each round record once, and between them now and then that something is going on.

    Args:
        say: Prints a line.
    """

    QUIET_SECONDS = 30.0

    def __init__(self, say: Callable[[str], None] = typer.echo) -> None:
        self.say = say
        self.shown: set[tuple[str, int, str]] = set()
        self.begin = self.last = time.monotonic()

    def show(self, records: list[dict[str, Any]]) -> None:
        """Print those that are new, or that the run goes on where there has been none for half a minute."""
        for record in records:
            key = (record["phase"], record["round"], record["site"])
            if key not in self.shown:
                self.shown.add(key)
                self.last = time.monotonic()
                self.say(describe_record(record))
        if time.monotonic() - self.last > self.QUIET_SECONDS:
            self.last = time.monotonic()
            answered = max((key[1] for key in self.shown if key[0] == "train"), default=None)
            where = "starting" if answered is None else f"after answers of round {answered}"
            self.say(f"working, {where}: {self.last - self.begin:.0f} s since the start")


def is_finished(job: BuiltJob, server_run_dir: Path) -> bool:
    """Whether a job did what it was to do: its records reach the last round, or its result is there."""
    if job.result:
        return (server_run_dir / job.result).is_file()
    records = read_records(server_run_dir / RECORDS_FILE)
    last = int(job.variables["start_round"]) + int(job.variables["num_rounds"]) - 1
    return any(record["round"] >= last for record in records if record["phase"] == "train")


def reason(log: Path) -> str:
    """The last error line of FLARE's log, else its last line."""
    text = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.is_file() else []
    errors = [line for line in text if "ERROR" in line or "Error" in line]
    return errors[-1].strip()[-300:] if errors else last_lines(log, 1)


def collect(run: Path, server_run_dir: Path, job: BuiltJob, facts: Mapping[str, Any]) -> None:
    """Write records, final and best model and ``run.json`` of a finished run; of a job that trains nothing its result.

    The best model is the one with the highest mean of the key metric over the sites: FLARE's own choice among the
    models that began a round, unless the last evaluation found the final model better. Without any validation case it
    is the final model. What an earlier part of a resumed run left in ``run/earlier`` counts as well.

    Raises:
        RunError: The server left no model.
    """
    later = read_records(server_run_dir / RECORDS_FILE)
    take_curves(server_run_dir, run)
    if job.result:
        shutil.copyfile(server_run_dir / job.result, run / job.result)
        write_whole(run / RECORDS_FILE, as_lines(later))
        write_whole(run / RUN_FILE, json.dumps({**facts_of(job), **facts}, indent=1) + "\n")
        return
    app = server_run_dir / "app_server"
    final = app / FLARE_FINAL
    if not final.is_file():
        raise RunError(f"the run left no global model ({final})")
    start_round = int(job.variables["start_round"])
    earlier = [r for r in read_records(run / EARLIER / RECORDS_FILE) if r["round"] < start_round]
    write_whole(run / RECORDS_FILE, as_lines([*earlier, *later]))
    shutil.copyfile(final, run / FINAL_MODEL)
    best = choose_best(earlier, later)
    source = {"final": final, "later": app / FLARE_BEST, "earlier": run / EARLIER / FLARE_BEST}[best.where]
    found = source.is_file()
    shutil.copyfile(source if found else final, run / BEST_MODEL)
    content = {
        **facts_of(job),
        "bundle": job.bundle,
        "profile": job.variables["profile"],
        "rounds": start_round + job.variables["num_rounds"],
        "local_epochs": job.variables["local_epochs"],
        "seed": job.variables["seed"],
        "best_round": best.round if found and best.where != "final" else "final",
        "parameters": count_parameters(final),
        **facts,
    }
    write_whole(run / RUN_FILE, json.dumps(content, indent=1) + "\n")


def facts_of(job: BuiltJob) -> dict[str, Any]:
    """What ``run.json`` says of any job."""
    return {
        "job": job.name,
        "options": dict(job.variables),
        "content_hash": job.content_hash,
        "versions": versions(),
        "machine": {"system": platform.system(), "processor": platform.machine()},
    }


def announce(job: BuiltJob) -> str:
    """What is about to be done, in a few words."""
    rounds = job.variables.get("num_rounds")
    if rounds is None:
        return f"{job.name}: {len(job.sites)} sites"
    last = int(job.variables["start_round"]) + int(rounds)
    return f"{job.name}: {last} rounds, {len(job.sites)} sites, profile {job.variables['profile']}"


@dataclass(frozen=True)
class Best:
    """Which model of a run is the best."""

    where: Literal["final", "later", "earlier"]
    """The last model, or FLARE's best of this part of the run, or of an earlier one."""
    round: int


def choose_best(earlier: list[dict[str, Any]], later: list[dict[str, Any]]) -> Best:
    """The best model by the mean of the sites' votes; among equals the latest. Random weights are no candidate."""
    rated = [(mean, key[1], "earlier") for key, mean in mean_votes(earlier).items() if key[1] > 0]
    for (phase, round_index), mean in mean_votes(later).items():
        if phase == "final":
            rated.append((mean, round_index, "final"))
        elif round_index > 0:
            rated.append((mean, round_index, "later"))
    if not rated:
        return Best("final", -1)
    _, round_index, where = max(rated, key=lambda entry: entry[:2])
    return Best(where, round_index)  # type: ignore[arg-type]


def count_parameters(model: Path) -> int:
    """Number of values in a checkpoint's ``model``."""
    import torch

    state = torch.load(model, map_location="cpu", weights_only=True)["model"]
    return sum(value.numel() for value in state.values())


def versions() -> dict[str, str]:
    """What a run was made with."""
    packages = {"brats_fl": "brats-fl", "monai": "monai", "nvflare": "nvflare", "torch": "torch"}
    return {**{name: version(package) for name, package in packages.items()}, "python": platform.python_version()}


def now() -> str:
    """The time in UTC, ISO 8601, to the second."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
