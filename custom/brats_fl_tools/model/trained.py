"""A trained model as a user names it: a bundle, a run folder or a checkpoint; and which bundle and profile it is of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from brats_fl.bundle import build_defined, build_network, bundle_names, is_bundle, network_definition, profiles_of
from brats_fl.errors import ModelError
from brats_fl.provenance import hash_file
from brats_fl.reading import Reader, read_if_sound
from brats_fl.scoring.finishing import PostProcessing
from brats_fl_tools.repository import BUNDLES
from brats_fl_tools.runs.folder import RUN_FILE
from brats_fl_tools.weights import find_weights

if TYPE_CHECKING:
    from torch import nn

READER = Reader(ModelError, "remove it, or run `brats-fl tune` again")

TUNED_FILE = "postprocessing.json"
"""Beside a model: what `brats-fl tune` chose for it. A bundle's configuration takes it as an overlay, too."""


@dataclass(frozen=True)
class TrainedModel:
    """Weights and what they are weights of."""

    bundle: Path
    weights: Path
    profile: str
    own: Mapping[str, Any] = field(default_factory=dict)
    """Network and window, where it is of an ensemble in the bundle, whose networks need not be the bundle's."""


def find_model(model: Path, bundle: Path | None = None, profile: str | None = None) -> TrainedModel:
    """The model that a bundle's name or folder, a run folder or a checkpoint stands for; its weights fit its bundle.

    What is not given is told by the run folder, else by what the weights fit.

    Raises:
        ModelError: There is none, its bundle cannot be told, or the weights do not fit.
    """
    from brats_fl.network.checkpoints import read_state

    weights = find_weights(model)
    read_state(weights)  # a file that is no checkpoint is told as that
    own = resolve_bundle(bundle) if bundle else bundle_of(weights)
    known = profile or profile_in_run(weights)
    if own is not None and known is not None:
        check_model(own, weights, known)
        return TrainedModel(own, weights, known)
    fitting = list(_fitting(weights, own, known))
    if own is not None and not fitting:
        check_model(own, weights, profiles_of(own)[0])  # says what differs
    if len(fitting) != 1:
        found = ", ".join(f"{found.bundle.name} with profile {found.profile}" for found in fitting) or "no bundle here"
        raise ModelError(f"{weights} fits {found}; say which it is of with --bundle and --profile")
    return fitting[0]


def _fitting(weights: Path, bundle: Path | None, profile: str | None) -> Iterator[TrainedModel]:
    """Bundles and profiles whose network has exactly these weights."""
    from brats_fl.network.checkpoints import read_state_for

    for candidate in [bundle] if bundle else [BUNDLES / name for name in bundle_names(BUNDLES)]:
        for one in [profile] if profile else profiles_of(candidate):
            try:
                read_state_for(weights, build_network(candidate, one, seed=0))
            except ModelError:
                continue
            yield TrainedModel(candidate, weights, one)


def tuned_settings(weights: Path) -> dict[str, Any]:
    """Post-processing that `brats-fl tune` chose for these weights, as variables of the bundle; empty where it did not.

    Raises:
        ModelError: What lies beside the weights was chosen for others, or is none.
    """
    file = weights.with_name(TUNED_FILE)
    if not file.is_file():
        return {}
    content = READER.json_object(file)
    chosen_for = READER.at(str, content, ["tuned", "model_sha256"], file)
    names = [one.name for one in fields(PostProcessing)]
    chosen = READER.typed(PostProcessing, {name: READER.at(object, content, [name], file) for name in names}, file)
    if chosen_for != hash_file(weights):
        READER.refuse(file, "was chosen for other weights")
    return asdict(chosen) | {"thresholds": list(chosen.thresholds)}


def bundle_of(weights: Path) -> Path | None:
    """Bundle that a checkpoint lies in, or that its run folder names; None where neither is so."""
    if is_bundle(weights.parents[1]):
        return weights.parents[1]
    named = _in_run(weights, "bundle")  # of a run folder that anybody may have made: a name of ours, and no path
    return BUNDLES / named if named in bundle_names(BUNDLES) else None


def profile_in_run(weights: Path) -> str | None:
    """Profile that the run folder of a checkpoint tells; None where it tells none."""
    return _in_run(weights, "profile")


def profile_of(model: Path) -> str:
    """Profile of the run folder that a model lies in, else ``full``."""
    return profile_in_run(model) or "full"


def _in_run(weights: Path, key: str) -> str | None:
    value = read_if_sound(weights.parent / RUN_FILE).get(key)
    return value if isinstance(value, str) else None


def find_bundle(bundle: Path) -> Path | None:
    """Folder of a bundle given by path or by name; None where it is none."""
    return next((one.resolve() for one in (bundle, BUNDLES / bundle) if is_bundle(one)), None)


def resolve_bundle(bundle: Path) -> Path:
    """Folder of a bundle given by path or by name.

    Raises:
        ModelError: There is no such bundle.
    """
    if found := find_bundle(bundle):
        return found
    names = ", ".join(bundle_names(BUNDLES))
    raise ModelError(f"{bundle}: no bundle there; give a folder with configs/train.json or one of {names}")


def build_trained(model: TrainedModel) -> nn.Module:
    """The network of a model, with its weights.

    Raises:
        ModelError: The checkpoint is missing, unreadable or of another network.
    """
    from brats_fl.network.checkpoints import read_state_for

    definition = model.own.get("network_def") or network_definition(model.bundle, model.profile)
    network = build_defined(definition, seed=0)
    try:
        network.load_state_dict(read_state_for(model.weights, network))
    except ModelError as error:
        raise ModelError(f"{model.bundle.name} with profile {model.profile}: {error}") from None
    return network


def check_model(bundle: Path, model: Path, profile: str) -> None:
    """Raise ``ModelError`` where a checkpoint is missing, unreadable or of another architecture."""
    build_trained(TrainedModel(bundle, model, profile))
