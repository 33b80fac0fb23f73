"""``brats-fl pretrain``: weights to start from, of synthetic cases alone, and a file that says what they are."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from brats_fl.cases.datalists import DATALIST_FILE, read_datalist
from brats_fl.constants import REGIONS, SPLITS
from brats_fl.errors import DataListError, FolderError, JobError
from brats_fl.files import CASE_TABLE_FILE, write_whole
from brats_fl.provenance import find_commit, hash_file
from brats_fl.reading import Reader
from brats_fl_tools.baseline.command import DEFAULT_JOB, JobOption, write_baseline
from brats_fl_tools.baseline.parts import LISTS_FOLDER, POOLED
from brats_fl_tools.data.synthetic import is_synthetic
from brats_fl_tools.jobs.options import ForceOption, JobFlags, takes_job_options
from brats_fl_tools.jobs.source import read_source
from brats_fl_tools.one_writer import writes
from brats_fl_tools.own_folders import claim, refuse_foreign
from brats_fl_tools.report.run_facts import RUN_FACTS, read_facts
from brats_fl_tools.runs.folder import RUN_FILE, now, versions
from brats_fl_tools.runs.lists import SEEN_FILE
from brats_fl_tools.runs.workload import profile_here, workload_of
from brats_fl_tools.sample.write import MAX_CASES, MIN_CASES, write_sample
from brats_fl_tools.weights import BEST_MODEL, PRETRAINED

CARD_FILE: Final = "model.json"
"""Beside the weights: what they are. It names neither places nor machines, and goes out with them."""

WHAT: Final = "Weights to start a training from, of synthetic cases alone: no patient's scan has gone into them."
CASES_PER_SITE: Final = 6
CENTRAL: Final = "central"
READER: Final = Reader(DataListError, "remove the folder, and run the command again")


@takes_job_options
def pretrain(
    out: Annotated[Path, typer.Option("--out", help="Folder to write; the sample and the run stay in it.")],
    flags: JobFlags,
    job: JobOption = DEFAULT_JOB,
    cases_per_site: Annotated[
        int, typer.Option("--cases-per-site", min=MIN_CASES, max=MAX_CASES, help="Synthetic cases of a site, of five.")
    ] = CASES_PER_SITE,
    sample_seed: Annotated[int, typer.Option("--sample-seed", min=0, help="Of the synthetic cases.")] = 0,
    force: ForceOption = False,
) -> None:
    """Write OUT/model.pt, weights trained on synthetic cases alone, and OUT/model.json, which says what they are.

    They may be published, and `--start-from OUT` starts a job from them. Run again, it goes on where it was stopped.
    """
    write_pretrained(out, flags, job, cases_per_site, sample_seed, force)


@writes("out")
def write_pretrained(
    out: Path, flags: JobFlags, job: str, cases_per_site: int, sample_seed: int, force: bool = False
) -> None:
    """Make the sample, train on it as ``baseline central`` does, and write weights and card.

    Raises:
        JobError: The job trains nothing, or is to start from a model.
        FolderError: ``out`` holds weights already, and ``force`` is not given, or something else.
        DataListError: A case of the sample is none of it any more.
    """
    source = read_source(job)
    if not source.trains:
        raise JobError(f"{source.name}: trains nothing; give --job with a job that does")
    if flags.start_from is not None:
        raise JobError("--start-from: nobody could say what such a model had seen; pretrain starts from random weights")
    refuse_foreign(out, "pretraining", force=True)
    if (out / PRETRAINED).is_file() and not force:
        raise FolderError(f"{out / PRETRAINED} exists; choose another --out or add --force")
    claim(out, "pretraining")
    flags = replace(flags, profile=profile_here(source, flags.profile))
    sites = out / f"sample-{sample_seed}-{cases_per_site}{'-full' * (flags.profile == 'full')}"
    if not (sites / "cases.csv").is_file():
        write_sample(sites, cases_per_site, sample_seed, flags.profile == "full", typer.echo)
    options = write_baseline("central", sites, out / CENTRAL, flags, job, force)
    counts = count_cases(out / CENTRAL / LISTS_FOLDER / POOLED / DATALIST_FILE)
    sample = {"seed": sample_seed, "cases_per_site": cases_per_site, "cases": counts}
    work = workload_of(source, replace(options, sites=(POOLED,)))
    steps = {"steps": work.rounds * work.steps, "batch_size": work.batch_size}
    write_weights(out, {"what": WHAT, "sample": sample, **steps})


def count_cases(datalist: Path) -> dict[str, int]:
    """Cases of each split, of which every one is synthetic.

    Raises:
        DataListError: One is not.
    """
    found = read_datalist(datalist)
    cases = [(split, case) for split in SPLITS for case in found.split(split)]
    for split, case in cases:
        if not is_synthetic(case):
            raise DataListError(f"{datalist}: {split} holds {case.case}, which bears no mark of a synthetic case")
    return dict(Counter(split for split, _ in cases))


def write_weights(out: Path, facts: Mapping[str, Any]) -> None:
    """Write the weights of the pooled run's best model, without all else that a server keeps, and their card."""
    from brats_fl.network.checkpoints import read_state, save_whole

    run = out / CENTRAL / POOLED
    info = read_facts(READER, run / RUN_FILE, RUN_FACTS)
    (out / CARD_FILE).unlink(missing_ok=True)  # no card beside the weights of another model
    save_whole(out / PRETRAINED, read_state(run / BEST_MODEL))
    shutil.copyfile(run / SEEN_FILE, out / SEEN_FILE)
    card = {
        **facts,
        "model_sha256": hash_file(out / PRETRAINED),
        **{key: info.get(key) for key in ("job", "bundle", "profile", "rounds", "seed", "content_hash", "parameters")},
        "dice_on_synthetic_test_cases": mean_dice(run / CASE_TABLE_FILE),
        "versions": versions(),
        **({"commit": commit} if (commit := find_commit()) else {}),
        "finished": now(),
    }
    write_whole(out / CARD_FILE, json.dumps(card, indent=1) + "\n")
    typer.echo(f"{out / PRETRAINED}: SHA-256 {card['model_sha256']}; start from it with --start-from {out}")


def mean_dice(table: Path) -> dict[str, float]:
    """Mean Dice per region of a table of cases."""
    import pandas as pd

    means = pd.read_csv(table).groupby("region")["dice"].mean()
    return {region: round(float(means[region]), 3) for region in REGIONS}
