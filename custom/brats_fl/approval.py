"""What a hospital has agreed to run: the hash of a job as it arrives, and the site's list of approved ones.

The hash is over all that a site receives of a job and that changes how it runs there: the files of its app and, of the
job's meta data, how it is launched, what it is given and its privacy scope. It is the same before and after FLARE has
sent the job: FLARE adds signatures, and lays out JSON anew. Of a job that goes on where another ended the number of its
first round alone differs, and that is left out: so one approval serves until the job is done.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from brats_fl.errors import KitError, NotApprovedError
from brats_fl.files import is_there, write_whole
from brats_fl.provenance import hash_bytes, hash_text
from brats_fl.reading import Reader

APPROVED_FILE: Final = "approved_jobs.json"
"""The site's list, in ``local`` of its kit."""

ADDED_BY_FLARE: Final = frozenset({".__nvfl_sig.json", ".__nvfl_submitter.crt"})
"""Signatures and the submitter's certificate: FLARE puts them into each folder of a job."""

READER: Final = Reader(KitError, "no job runs here until it is mended: remove it, and approve each job again")
CLIENT_CONFIG: Final = "config/config_fed_client.json"
FIRST_ROUND: Final = "start_round"
DEFAULT_STUDY: Final = "default"
_HASH = re.compile("[0-9a-f]{64}")
SPECS: Final[Mapping[str, str]] = {"launcher_spec": "default", "resource_spec": "@default"}
"""Entry of a job's meta data, by site -> its key for all sites."""


@dataclass(frozen=True)
class Approval:
    """A job that the hospital has agreed to run."""

    hash: str
    job: str
    study: str
    """Empty of a job that trains nothing."""
    by: str
    """Who agreed."""
    when: str
    """UTC, ISO 8601."""


def approval_hash(app: Path, meta: Mapping[str, Any], site: str) -> str:
    """SHA-256 of what runs at a site.

    Args:
        app: Folder of the site's app.
        meta: The job's meta data.
        site: The site's name.
    """
    files = {
        path.relative_to(app).as_posix(): hash_bytes(_canonical(path.read_bytes(), path.relative_to(app).as_posix()))
        for path in app.rglob("*")
        if path.is_file() and path.name not in ADDED_BY_FLARE
    }
    return hash_text(json.dumps([files, terms_of(meta, site)], sort_keys=True))


def _canonical(content: bytes, name: str) -> bytes:
    """A file so that only a change of what it says changes it; what is no JSON, byte by byte."""
    if not name.endswith(".json"):
        return content
    try:
        said = json.loads(content.decode())  # as FLARE reads it: UTF-8, and no other encoding that Python would guess
    except (ValueError, RecursionError):
        return content
    if name == CLIENT_CONFIG and isinstance(said, dict) and _is_count(said.get(FIRST_ROUND)):
        del said[FIRST_ROUND]
    return json.dumps(said, sort_keys=True).encode()


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def terms_of(meta: Mapping[str, Any], site: str) -> dict[str, Any]:
    """What of a job's meta data changes how it runs at a site; nothing that is empty."""
    terms = {"scope": meta.get("scope"), "study": _study_of_flare(meta.get("study"))}
    for name, everywhere in SPECS.items():
        spec = meta.get(name)
        terms[name] = (
            {key: spec[key] for key in (everywhere, site) if spec.get(key)} if isinstance(spec, dict) else spec
        )
    return {name: value for name, value in terms.items() if value}


def _study_of_flare(value: Any) -> Any:
    """The study of FLARE that a job was submitted in, for which a site may have another image and other data.

    None of FLARE's default one, and of the hash that a built job has in this place until FLARE writes its own there.
    """
    is_plain = value == DEFAULT_STUDY or (isinstance(value, str) and _HASH.fullmatch(value))
    return None if is_plain else value


def check_approved(file: Path, hash_of_job: str) -> None:
    """Refuse a job that is not on the site's list.

    Raises:
        NotApprovedError: It is not.
        KitError: The list is damaged.
    """
    if all(approval.hash != hash_of_job for approval in read_approvals(file)):
        raise NotApprovedError(
            f"{file} does not hold {hash_of_job}; read the job, and agree with `brats-fl kit approve KIT JOB_FOLDER`"
        )


def read_approvals(file: Path) -> tuple[Approval, ...]:
    """The site's list, empty where there is none yet.

    Raises:
        KitError: It cannot be read, or is no such list.
    """
    if not is_there(file):
        return ()
    return READER.at(tuple[Approval, ...], READER.json_object(file), ["approved"], file)


def add_approval(file: Path, approval: Approval) -> None:
    """Put a job on the site's list; the later word counts where it is there already."""
    _write(file, (*(known for known in read_approvals(file) if known.hash != approval.hash), approval))


def withdraw_approval(file: Path, start: str) -> Approval:
    """Take a job off the site's list.

    Args:
        file: The list.
        start: Of the job's hash, as many digits as tell it from the others.

    Raises:
        KitError: It is none, or several begin so.
    """
    approvals = read_approvals(file)
    found = [approval for approval in approvals if start and approval.hash.startswith(start)]
    if len(found) != 1:
        known = ", ".join(approval.hash[:12] for approval in found or approvals) or "none"
        raise KitError(f"{file}: the hash must be that of one approved job (got {start!r}); there are {known}")
    _write(file, tuple(approval for approval in approvals if approval != found[0]))
    return found[0]


def _write(file: Path, approvals: tuple[Approval, ...]) -> None:
    write_whole(file, json.dumps({"approved": [asdict(approval) for approval in approvals]}, indent=1) + "\n")
