"""What was run, with what, and on what machine: what somebody needs to know to do it again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from brats_fl.constants import SPLITS
from brats_fl.typed import typed
from brats_fl_tools.pages import formats
from brats_fl_tools.report.participants import (
    Part,
    describe_state,
    invited_sites,
    number_of_rounds,
    participants,
)
from brats_fl_tools.report.run_folder import RunFolder, finite
from brats_fl_tools.withdrawn import Withdrawal


def list_facts(run: RunFolder, model: str, cases: int | None) -> list[tuple[str, str]]:
    """Name and value of what was run, for the page's head; what is not known is left out."""
    facts = _of_evaluation(run) if run.is_evaluation else _of_run(run)
    facts |= {"Model evaluated": model, f"{run.case_noun}s".capitalize(): cases}
    return [(name, str(value)) for name, value in facts.items() if value is not None]


def _of_run(run: RunFolder) -> dict[str, Any]:
    info = run.info
    parameters, seconds = info.get("parameters"), finite(info.get("seconds"))
    return {
        "Job": info.get("job"),
        "Bundle": info.get("bundle"),
        "Profile": info.get("profile"),
        "Hospitals": _count_hospitals(run),
        "Rounds": number_of_rounds(run),
        "Not finished": describe_state(run),
        "Local epochs a round": info.get("local_epochs"),
        "Parameters": f"{parameters:,}" if isinstance(parameters, int) else parameters,
        "Started": _as_time(info.get("started")),
        "Took": formats.format_duration(seconds) if seconds is not None else None,
        "Resumed": _describe_parts(run),
        "Started from": _describe_start(info),
        "Done again without": _describe_withdrawal(info),
        "Seed": info.get("seed"),
        machine_title(run): describe_machine(info.get("machine")),
    }


def _of_evaluation(run: RunFolder) -> dict[str, Any]:
    facts = run.evaluation
    return {
        "Bundle": facts.get("bundle"),
        "Profile": facts.get("profile"),
        "Hospitals": len(run.sites),
        "Split": facts.get("split"),
        "Finished": _as_time(facts.get("finished")),
        "Seconds a case": facts.get("seconds_per_case"),
        "Machine": describe_machine(facts.get("machine")),
    }


def _as_time(text: Any) -> str | None:
    return str(text).replace("T", " ") if text else None


def _count_hospitals(run: RunFolder) -> str:
    trained, invited = sum(one.part is Part.TRAINED for one in participants(run)), len(invited_sites(run))
    return f"{invited}" if trained == invited else f"{trained} of {invited} invited"


def _describe_start(info: Mapping[str, Any]) -> str | None:
    """The checkpoint of the first round; None where that began with random weights."""
    digest = info.get("start_sha256")
    return f"a given model, SHA-256 {str(digest)[:12]}" if digest else None


def _describe_withdrawal(info: Mapping[str, Any]) -> str | None:
    """Who had withdrawn from the study that this run does again; None of another run."""
    found = typed(tuple[Withdrawal, ...], info.get("withdrawals", []))
    return (
        "; ".join(
            f"{one.who}, from round {one.first_round} on"
            + f", what it gave before round {one.from_round} stays" * bool(one.from_round and one.first_round)
            for one in found
        )
        or None
    )


def _describe_parts(run: RunFolder) -> str | None:
    """At which rounds a run was taken up again; None of one that went through."""
    parts = run.info.get("parts")
    later = [part["first_round"] for part in parts[1:]] if isinstance(parts, list) else []
    return (
        f"at round {formats.list_words([str(number) for number in later])}; the time between is not in it"
        if later
        else None
    )


def machine_title(run: RunFolder) -> str:
    """Whose machine is known: in the simulator all is done on one, of a federation the server tells of itself alone."""
    return "Machine" if run.info.get("mode") == "simulator" else "Machine of the server"


def describe_machine(facts: Any) -> str | None:
    """Processor, cores, memory and GPUs in words; of an older run what it noted, None where it noted nothing."""
    if not isinstance(facts, Mapping) or not facts:
        return None
    words = [str(facts[name]) for name in ("processor",) if facts.get(name)]
    if isinstance(cores := facts.get("cores"), int):
        words.append(formats.format_count(cores, "core"))
    if (memory := finite(facts.get("memory_gib"))) is not None:
        words.append(f"{memory:g} GiB of memory")
    if isinstance(gpus := facts.get("gpus"), list):
        words.append(_count_gpus(gpus))
    return ", ".join(words) or None


def _count_gpus(gpus: list[Any]) -> str:
    names = [str(gpu) for gpu in gpus]
    counted = [f"{names.count(name)} x {name}" if names.count(name) > 1 else name for name in dict.fromkeys(names)]
    return ", ".join(counted) or "no GPU"


def written_by(run: RunFolder) -> str:
    """Version of the software that the run, or the evaluation, was made with; empty where it is not told."""
    versions = run.info.get("versions", run.evaluation.get("versions"))
    return str(versions.get("brats_fl", "")) if isinstance(versions, Mapping) else ""


def list_details(run: RunFolder) -> list[tuple[str, str]]:
    """Options, versions, machines, commit and the model's hash."""
    details = []
    for name, title in (("options", "option"), ("versions", "version")):
        entries = run.info.get(name)
        if isinstance(entries, Mapping):
            details += [(f"{title}: {key}", str(value)) for key, value in entries.items()]
    details += [
        (title, str(run.info[name]))
        for name, title in (
            ("commit", "commit of the code"),
            ("content_hash", "job: content hash"),
            ("start_sha256", "start: sha256"),
            ("study_sha256", "partition: study sha256"),
        )
        if run.info.get(name)
    ]
    if machine := describe_machine(run.info.get("machine")):
        details.append((machine_title(run).lower(), machine))
    return details + _list_evaluation(run)


def _list_evaluation(run: RunFolder) -> list[tuple[str, str]]:
    facts = run.evaluation
    versions = facts.get("versions")
    known = {
        **{name.replace("_", " "): facts.get(name) for name in ("model", "model_sha256", "seconds_per_case", "commit")},
        "machine": describe_machine(facts.get("machine")),
        **{f"sha256 of {name}": digest for name, digest in facts.get("models_sha256", {}).items()},
        **({f"version: {key}": value for key, value in versions.items()} if isinstance(versions, Mapping) else {}),
    }
    return [(f"evaluation: {name}", str(value)) for name, value in known.items() if value is not None]


def count_cases(run: RunFolder) -> list[tuple[str, list[int | None]]]:
    """Training, validation and testing cases per site as ``run.json`` has them; empty where it has none."""
    if not run.counts:
        return []
    return [(site, [run.counts.get(site, {}).get(split) for split in SPLITS]) for site in run.sites]
