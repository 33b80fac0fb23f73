"""What a run's bundle was set to, read from the bundle that its job brought or stated, and from no other."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from brats_fl.bundle import is_bundle
from brats_fl.provenance import bundle_digest
from brats_fl.reading import read_if_sound
from brats_fl_tools.report.run_folder import RunFolder
from brats_fl_tools.repository import BUNDLES
from brats_fl_tools.runs.folder import JOB_FOLDER


def read_settings(run: RunFolder) -> Mapping[str, Any]:
    """Variables and definitions of the run's ``train.json``, with profile and options applied; empty where unknown.

    A value that is an expression stays one: nothing is evaluated.
    """
    bundle, options = find_bundle(run), run.info.get("options")
    if bundle is None or not isinstance(options, Mapping):
        return {}
    profile = str(run.info.get("profile") or "full")
    settings: dict[str, Any] = {}
    for name in ("train", *([profile] if profile != "full" else [])):
        content = read_if_sound(bundle / "configs" / f"{name}.json")
        if not content:
            return {}
        for key, value in content.items():
            _set(settings, key, value)
    return settings | {key: value for key, value in options.items() if key in settings}


def _set(settings: dict[str, Any], key: str, value: Any) -> None:
    """Set a key as MONAI's bundle does: ``network_def#channels`` is one within another."""
    *outer, last = key.split("#")
    for name in outer:
        if not isinstance(settings.setdefault(name, {}), dict):
            settings[name] = {}
        settings = settings[name]
    settings[last] = value


def find_bundle(run: RunFolder) -> Path | None:
    """The bundle in the run's job; of a job without code the installed one, if it is what the job stated."""
    job, name = run.path / JOB_FOLDER / str(run.info.get("job")), str(run.info.get("bundle"))
    brought = next((path for path in sorted(job.glob(f"*/bundles/{name}")) if is_bundle(path)), None)
    if brought is not None:
        return brought
    installed = BUNDLES / name
    stated = _read_required(job).get("bundle_sha256")
    return installed if stated and is_bundle(installed) and bundle_digest(installed) == stated else None


def _read_required(job: Path) -> Mapping[str, Any]:
    for path in sorted(job.glob("*/config/config_fed_server.json")):
        required = read_if_sound(path).get("required_code")
        if isinstance(required, Mapping):
            return required
    return {}
