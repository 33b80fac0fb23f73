"""A bundle's configuration and network, found from its folder and a profile.

MONAI and PyTorch are imported where they are used: the command line asks for paths and keys only, and their import
takes seconds.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from brats_fl.errors import ModelError
from brats_fl.reading import Reader
from brats_fl.typed import shorten

if TYPE_CHECKING:
    import torch


def is_bundle(folder: Path) -> bool:
    """Whether a folder is a bundle that trains: it holds ``configs/train.json``."""
    return (folder / "configs" / "train.json").is_file()


def bundle_names(folder: Path) -> list[str]:
    """Names of the bundles in a folder, sorted."""
    return sorted(path.name for path in folder.iterdir() if is_bundle(path))


def config_files(bundle: Path, profile: str, overlays: Sequence[str] = ()) -> list[str]:
    """Paths of the bundle's train configuration, its profile and its overlays, in the order in which they apply.

    The profile comes before the overlays: ``small`` has epochs of its own, and in a federation they follow from the
    rounds.

    A profile is data, numbers and lists of them: a name that comes with a job or a run folder is not trusted to be one.

    Raises:
        ModelError: The bundle has no such profile.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", profile):
        raise ModelError(f"profile must be a plain name of small letters, digits and _ (got {shorten(profile)})")
    names = ["train", *([] if profile == "full" else [profile]), *overlays]
    make_importable(bundle)
    paths = [bundle / "configs" / f"{name}.json" for name in names]
    profiles = ", ".join(profiles_of(bundle))
    for path in paths:
        if not path.is_file():
            raise ModelError(f"{bundle.name} has no {path.name}; profiles are {profiles} ({path})")
    if profile not in profiles_of(bundle):
        raise ModelError(f"{paths[1]}: is no profile, which holds numbers and lists of them; profiles are {profiles}")
    return [str(path) for path in paths]


def profiles_of(bundle: Path) -> list[str]:
    """Names of the bundle's profiles: ``full``, the training configuration as it is, and the overlays that are data."""
    overlays = [path for path in sorted((bundle / "configs").glob("*.json")) if _is_profile(path)]
    return ["full", *(path.stem for path in overlays)]


def _is_profile(overlay: Path) -> bool:
    try:
        return all(is_plain(value) for value in read_config(overlay).values())
    except ModelError:
        return False


def read_config(path: Path) -> dict[str, Any]:
    """A configuration of a bundle as it is written, with nothing in it evaluated.

    Raises:
        ModelError: It cannot be read.
    """
    return Reader(ModelError, "mend it, or install the bundle again").json_object(path)


def is_plain(value: object) -> bool:
    """Whether a value is a number, a truth value or a list of numbers."""
    if isinstance(value, list):
        return all(isinstance(part, (int, float)) and not isinstance(part, bool) for part in value)
    return isinstance(value, (bool, int, float))


def make_importable(bundle: Path) -> None:
    """Let this process import the bundle's own classes, ``scripts.MODULE.CLASS``, where it has some as MONAI's may."""
    if (bundle / "scripts").is_dir() and str(bundle) not in sys.path:
        sys.path.insert(0, str(bundle))


def network_definition(bundle: Path, profile: str) -> dict[str, Any]:
    """The bundle's ``network_def`` with the profile applied, as plain data."""
    from monai.bundle import ConfigParser

    parser = ConfigParser()
    parser.read_config(config_files(bundle, profile))
    definition = parser.get("network_def")
    return json.loads(json.dumps(definition))


def build_network(bundle: Path, profile: str, seed: int) -> torch.nn.Module:
    """The bundle's network with random weights of a seed.

    Every part of the project that needs the network outside a workflow (server, export, baselines) gets it here.
    """
    return build_defined(network_definition(bundle, profile), seed)


def build_defined(definition: Mapping[str, Any], seed: int) -> torch.nn.Module:
    """The network of a ``network_def`` with random weights of a seed."""
    import torch
    from monai.bundle import ConfigParser

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return ConfigParser({"network_def": dict(definition)}).get_parsed_content("network_def")
