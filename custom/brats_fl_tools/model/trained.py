"""A trained model as a user names it: a bundle, a run folder or a checkpoint; and which bundle and profile it is of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any

from brats_fl.bundle import build_defined, build_network, bundle_names, is_bundle, network_definition, profiles_of
from brats_fl.errors import ModelError, UnfitError
from brats_fl.provenance import hash_file
from brats_fl.reading import Reader, read_if_sound
from brats_fl.scoring.finishing import PostProcessing
from brats_fl_tools.repository import BUNDLES
from brats_fl_tools.runs.folder import RUN_FILE
from brats_fl_tools.weights import find_weights, tell_left_out

if TYPE_CHECKING:
    from torch import Tensor, nn

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
    state = read_state(weights)
    own = resolve_bundle(bundle) if bundle else bundle_of(weights)
    known = profile or profile_in_run(weights)
    bundles = [own] if own else [BUNDLES / name for name in bundle_names(BUNDLES)]
    return _fitting(
        [TrainedModel(one, weights, each) for one in bundles for each in ([known] if known else profiles_of(one))],
        state,
    )


def _fitting(candidates: Sequence[TrainedModel], state: Mapping[str, Tensor]) -> TrainedModel:
    """The one of some bundles and profiles whose network has exactly these weights.

    Raises:
        ModelError: None has, and the text says what differs from the nearest, or several have.
    """
    from brats_fl.network.checkpoints import fit_state

    weights = candidates[0].weights
    fitting: list[tuple[TrainedModel, Mapping[str, Tensor]]] = []
    faults: list[tuple[float, str]] = []
    for candidate in candidates:
        name = f"{candidate.bundle.name} with profile {candidate.profile}"
        try:
            fitting.append((candidate, fit_state(state, build_network(candidate.bundle, candidate.profile, seed=0))))
        except ModelError as error:
            far = error.differences if isinstance(error, UnfitError) else inf  # there is no such profile
            faults.append((far, f"{name}: {error}"))
    if not fitting:
        near = "" if len(candidates) == 1 else f"fits no bundle here, and of {len(candidates)} the nearest is "
        raise ModelError(f"{weights}: {near}{min(faults)[1]}")
    if len(fitting) > 1:
        found = ", ".join(f"{one.bundle.name} with profile {one.profile}" for one, _ in fitting)
        raise ModelError(f"{weights} fits {found}; say which it is of with --bundle and --profile")
    tell_left_out(weights, state, fitting[0][1])
    return fitting[0][0]


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
