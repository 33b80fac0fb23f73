"""A run's record as an RO-Crate: a folder with a description that catalogues and archives of research data read.

It follows RO-Crate 1.2, Process Run Crate 0.5 and the Federated Learning profile 0.1: one action, whose objects are the
hospitals' cases and the job, whose result is the model. Cases, their names, pictures and masks are not in it, nor the
paths of a machine.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

from brats_fl.constants import REGIONS
from brats_fl.errors import FolderError, LedgerError
from brats_fl.files import write_whole
from brats_fl.ledger import LEDGER_FILE
from brats_fl.numbers import is_finite
from brats_fl.provenance import hash_file
from brats_fl.reading import Reader, read_if_sound
from brats_fl.round_records import RECORDS_FILE
from brats_fl_tools.one_writer import writes
from brats_fl_tools.own_folders import MARKER_FILE, appearing_folder
from brats_fl_tools.runs.folder import (
    BEST_MODEL,
    FINAL_MODEL,
    JOB_FOLDER,
    OF_THE_MACHINE,
    RUN_FILE,
    now,
    write_facts,
)
from brats_fl_tools.weights import MODEL_CARD

CRATE_FILE: Final = "ro-crate-metadata.json"
METRICS_FILE: Final = "metrics.json"
PROFILES: Final = (
    "https://w3id.org/ro/wfrun/process/0.5",
    "https://esciencelab.org.uk/federated-learning-ro-crate-profile/federated-learning-profile.html",
)
SOFTWARE: Final = {
    "nvflare": ("NVIDIA FLARE", "https://github.com/NVIDIA/NVFlare"),
    "monai": ("MONAI", "https://github.com/Project-MONAI/MONAI"),
}
"""Package, as ``run.json`` names it -> its name, and where it is from."""

MEANINGS: Final = {
    LEDGER_FILE: "The record of the rounds: each line has the hash of the one before, sites sign what they sent",
    RECORDS_FILE: "A line a round and site: cases, loss, metrics, times, bytes, or why it did not answer",
    RUN_FILE: "What was run, with which software, settings and data lists",
    BEST_MODEL: "The global model that the hospitals' validation cases found best; weights as PyTorch saves them",
    FINAL_MODEL: "The global model after the last round; weights as PyTorch saves them",
    METRICS_FILE: "Figures on test cases",
    MODEL_CARD: "Model card",
    "meta.json": "The job's meta data, as FLARE reads them",
    "config_fed_server.json": "What the server ran",
    "config_fed_client.json": "What each hospital ran",
}
"""File -> what it is."""

DICE: Final = "https://doi.org/10.1109/TMI.2014.2377694"
"""The BraTS benchmark, Menze et al. 2015, which defines Dice of the three regions."""

FORMATS: Final = {
    ".json": "application/json",
    ".jsonl": "application/jsonl",
    ".pt": "application/zip",
    ".md": "text/markdown",
}

_SPDX = re.compile(r"[A-Za-z0-9.+-]{1,64}")
_URL = re.compile(r"https?://[!-~]{3,200}")

Entity = dict[str, Any]


@writes("out")
def write_crate(run: Path, out: Path, licence: str, author: str = "", force: bool = False) -> Path:
    """Write a crate of a run that was collected; return the description's path.

    Args:
        run: Run folder, with its ledger.
        out: Folder to write.
        licence: Of the crate and its models: an SPDX identifier or an address.
        author: Name of the consortium or organisation that answers for it; empty to leave it open.
        force: Replace an earlier crate there.

    Raises:
        LedgerError: The run has no ledger, no facts or no job, or the licence is neither.
        FolderError: The folder holds something else, or lies in the job.
    """
    if not (run / LEDGER_FILE).is_file():
        raise LedgerError(f"{run / LEDGER_FILE}: no such file; collect the run first, with `brats-fl collect {run}`")
    address = address_of(licence)
    reader, job = Reader(LedgerError, "collect the run again"), run / JOB_FOLDER
    info = reader.json_object(run / RUN_FILE)
    reader.at(str, info, ["job"], run / RUN_FILE)
    if not job.is_dir():
        reader.refuse(job, "no such folder, where what was run lies")
    if out.resolve().is_relative_to(job.resolve()):
        raise FolderError(f"{out}: lies in {job}, of which the crate has a copy; choose another --out")
    with appearing_folder(out, "crate", force) as crate:
        for name in (LEDGER_FILE, RECORDS_FILE, BEST_MODEL, FINAL_MODEL, METRICS_FILE, MODEL_CARD):
            if (run / name).is_file():
                shutil.copyfile(run / name, crate / name)
        shutil.copytree(job, crate / JOB_FOLDER)
        told = {key: value for key, value in info.items() if key not in OF_THE_MACHINE}
        write_facts(crate, told)
        context = ["https://w3id.org/ro/crate/1.2/context", {"sha256": "http://schema.org/sha256"}]
        content = {"@context": context, "@graph": list(describe(crate, told, address, author))}
        write_whole(crate / CRATE_FILE, json.dumps(content, indent=2) + "\n")
    return out / CRATE_FILE


def address_of(licence: str) -> str:
    """A licence as an address.

    Raises:
        LedgerError: It is neither an SPDX identifier nor an address.
    """
    if _URL.fullmatch(licence):
        return licence
    if _SPDX.fullmatch(licence):
        return f"https://spdx.org/licenses/{licence}"
    raise LedgerError(f"--license must be an SPDX identifier such as CC-BY-4.0, or an address (got {licence!r})")


def describe(crate: Path, info: Mapping[str, Any], licence: str, author: str) -> Iterator[Entity]:
    """All entities of a crate's description."""
    parts = ("*.*", f"{JOB_FOLDER}/*/meta.json", f"{JOB_FOLDER}/*/*/config/*.json")
    paths = sorted(path for part in parts for path in crate.glob(part) if path.name not in (CRATE_FILE, MARKER_FILE))
    files = [describe_file(crate, path) for path in paths]
    files.append(describe_job_folder(info, files))
    cases = list(describe_cases(info))
    measured = list(describe_metrics(read_if_sound(crate / METRICS_FILE)))
    tools = [
        {
            "@id": url,
            "@type": "SoftwareApplication",
            "name": name,
            "url": url,
            "version": str(info["versions"][package]),
        }
        for package, (name, url) in SOFTWARE.items()
        if package in info.get("versions", {})
    ]
    yield {
        "@id": CRATE_FILE,
        "@type": "CreativeWork",
        "about": {"@id": "./"},
        "conformsTo": {"@id": "https://w3id.org/ro/crate/1.2"},
    }
    yield {
        "@id": "./",
        "@type": "Dataset",
        "name": f"Federated training {info.get('job')}",
        "description": describe_in_words(info),
        "datePublished": now(),
        "license": {"@id": licence},
        **({"author": {"@id": "#author"}, "publisher": {"@id": "#author"}} if author else {}),
        "conformsTo": references(PROFILES),
        "hasPart": references(entity["@id"] for entity in (*files, *cases)),
        "mentions": {"@id": "#training"},
        "mainEntity": {"@id": FINAL_MODEL},
    }
    name = licence.rsplit("/", 1)[-1]
    yield {"@id": licence, "@type": "CreativeWork", "name": name, "description": f"Licence {name}: {licence}"}
    yield from ({"@id": profile, "@type": ["CreativeWork", "Profile"], "name": profile} for profile in PROFILES)
    if author:
        yield {"@id": "#author", "@type": "Organization", "name": author}
    yield describe_action(info, author, [*cases, *files], measured, tools)
    yield from (*tools, *cases, *files, *measured)


def describe_action(
    info: Mapping[str, Any], author: str, parts: list[Entity], measured: list[Entity], tools: list[Entity]
) -> Entity:
    """The training: from cases and job to models and figures, with what software and when."""
    made = (LEDGER_FILE, RECORDS_FILE, RUN_FILE, BEST_MODEL, FINAL_MODEL, METRICS_FILE, MODEL_CARD)
    ids = [entity["@id"] for entity in parts]
    return {
        "@id": "#training",
        "@type": "CreateAction",
        "name": f"Federated training {info.get('job')}",
        "description": describe_in_words(info),
        **({"agent": {"@id": "#author"}} if author else {}),
        "instrument": references(tool["@id"] for tool in tools),
        "object": references(key for key in ids if key not in made),
        "result": references([*(key for key in ids if key in made), *(entity["@id"] for entity in measured)]),
        **times_of(info),
    }


def times_of(info: Mapping[str, Any]) -> Entity:
    """Start and end, where the run tells them; a resumed run's end is its start and what its parts took."""
    try:
        started = datetime.fromisoformat(str(info.get("started")))
        ended = started + timedelta(seconds=float(info["seconds"]))
    except (ValueError, KeyError, TypeError, OverflowError):
        return {}
    return {"startTime": started.isoformat(), "endTime": ended.isoformat(timespec="seconds")}


def describe_in_words(info: Mapping[str, Any]) -> str:
    """What the crate is of, in a sentence or two."""
    text = (
        f"{info.get('rounds')} rounds of {info.get('bundle')} ({info.get('profile')}) over "
        f"{', '.join(map(str, info.get('invited', [])))}: the job, the models, and the record of every round. "
        "`brats-fl ledger verify` checks it. The hospitals' cases are not in it."
    )
    gone = [one.get("hospital") for one in info.get("withdrawals", ()) if isinstance(one, Mapping)]
    return f"{text} Done again without {', '.join(map(str, gone))}, who withdrew." if gone else text


def describe_cases(info: Mapping[str, Any]) -> Iterator[Entity]:
    """The hospitals' cases, which are with the hospitals: who, and how many where the run tells it."""
    counts = info.get("sites")
    for site in info.get("invited", []):
        of_site = counts.get(site) if isinstance(counts, Mapping) else None
        number = ", ".join(f"{n} {split}" for split, n in of_site.items()) if of_site else "number not told"
        yield {
            "@id": f"#cases-of-{site}",
            "@type": "Dataset",
            "name": f"Cases of {site}",
            "description": f"Four MRI scans and a segmentation a case; {number}. They did not leave the hospital.",
        }


def describe_metrics(metrics: Mapping[str, Any]) -> Iterator[Entity]:
    """Mean Dice over test cases by region, of a run that was evaluated."""
    dice = metrics.get("overall", {}).get("dice", {}) if isinstance(metrics.get("overall"), dict) else {}
    for region in (*REGIONS, "mean"):
        if isinstance(dice, dict) and is_finite(dice.get(region)):
            yield {
                "@id": f"#dice-{region}",
                "@type": "PropertyValue",
                "name": f"Mean Dice over test cases, {region.upper() if region in REGIONS else 'mean of regions'}",
                "propertyID": f"{DICE}#dice-{region}",
                "value": dice[region],
            }


def describe_file(crate: Path, path: Path) -> Entity:
    """A file of the crate, with its size and hash."""
    name = path.relative_to(crate).as_posix()
    what = MEANINGS.get(path.name)
    entity = {"@id": name, "@type": "File", "name": name, **({"description": what} if what else {})}
    kind = FORMATS.get(path.suffix)
    card = {"subjectOf": {"@id": MODEL_CARD}} if path.suffix == ".pt" and (crate / MODEL_CARD).is_file() else {}
    size = {"contentSize": str(path.stat().st_size), "sha256": hash_file(path)}
    return {**entity, **size, **({"encodingFormat": kind} if kind else {}), **card}


def describe_job_folder(info: Mapping[str, Any], files: Sequence[Entity]) -> Entity:
    """The job as FLARE was given it; its hash is what hospitals approve."""
    return {
        "@id": f"{JOB_FOLDER}/{info.get('job')}/",
        "@type": "Dataset",
        "name": f"Job {info.get('job')}",
        "description": "The FLARE job: settings, and the code of server and sites where it brings it.",
        "hasPart": [{"@id": one["@id"]} for one in files if one["@id"].startswith(f"{JOB_FOLDER}/")],
        "identifier": str(info.get("content_hash")),
    }


def references(keys: Any) -> list[Entity]:
    """References to entities."""
    return [{"@id": key} for key in keys]
