"""Several models used as one: what they must have in common, and what a configuration takes of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from brats_fl.bundle import is_bundle, make_importable, profiles_of
from brats_fl.errors import ModelError
from brats_fl.provenance import hash_file
from brats_fl.reading import Reader
from brats_fl_tools.model.trained import (
    TUNED_FILE,
    TrainedModel,
    find_bundle,
    find_model,
    resolve_bundle,
    tuned_settings,
)
from brats_fl_tools.weights import ENSEMBLE_FILE, EXPORTED

if TYPE_CHECKING:
    from monai.bundle import ConfigParser

LOAD_PATH = "checkpointloader#load_path"
"""Key of that configuration with the places of the weights."""

READER = Reader(ModelError, "export the models into the bundle again")

INPUT = ("in_channels", "out_channels")
"""Of the network's definition: scans and regions."""


def find_models(
    models: Sequence[Path], bundles: Sequence[Path] = (), profile: str | None = None
) -> tuple[TrainedModel, ...]:
    """The models that paths stand for, in the order of their digests: the same models are the same ensemble.

    Args:
        models: As ``find_model`` takes them.
        bundles: Of the models: none, one for all, or one each.
        profile: Of all; None where each tells its own.

    Raises:
        ModelError: As ``find_model``, one is there twice, or they do not take the same input.
    """
    if len(bundles) not in (0, 1, len(models)):
        raise ModelError(f"give one bundle, or one for each of the {len(models)} models (got {len(bundles)})")
    own: Sequence[Path | None] = list(bundles) * len(models) if len(bundles) == 1 else bundles or [None] * len(models)
    pairs = zip(models, own, strict=True)
    found = [one for model, bundle in pairs for one in _find_each(model, bundle, profile)]
    if len(found) > 1:
        found.sort(key=lambda model: hash_file(model.weights))
        refuse_unlike(found)
    return tuple(found)


def find_models_of(
    first: Path, others: Sequence[Path], bundle: Path | None, profile: str | None
) -> tuple[TrainedModel, ...]:
    """The models of ``BUNDLE --model A --model B``, or, where the first path is no bundle, of it and the others.

    Args:
        first: A bundle of the other models; without others a model, and with others that it is no bundle of one more.
        others: Models, as ``find_model`` takes them.
        bundle, profile: Of all; None where each tells its own.

    Raises:
        ModelError: As ``find_models``, or the bundle is given twice.
    """
    own = find_bundle(first) if others else None
    if own is None:
        return find_models([first, *others], [bundle] if bundle else [], profile)
    if bundle:
        raise ModelError(f"{first} and --bundle {bundle} are two bundles for one set of models; leave --bundle out")
    models = find_models(others, [own], profile)
    tell_unused([own], models)
    return models


def tell_unused(bundles: Sequence[Path], models: Sequence[TrainedModel]) -> None:
    """Say which weights are used, where a bundle that was given for its network holds others."""
    for bundle in map(resolve_bundle, bundles):
        held = {one for one in (bundle / EXPORTED, *(bundle / "models").glob("model-*.pt")) if one.is_file()}
        if held and held.isdisjoint(used := [model.weights for model in models]):
            typer.echo(
                f"note: {', '.join(map(str, used))} is used, not what lies in {(bundle / EXPORTED).parent}", err=True
            )


def _find_each(model: Path, bundle: Path | None, profile: str | None) -> Sequence[TrainedModel]:
    """The model that a path stands for, or those of the ensemble that was exported into a bundle."""
    holder = None if model.is_file() else find_bundle(model)
    if holder is None or not (holder / "models" / ENSEMBLE_FILE).is_file():
        return [find_model(model, bundle, profile)]
    if bundle and resolve_bundle(bundle) != holder:
        raise ModelError(f"{holder} holds several models with networks of their own; give it as the bundle of them")
    return read_exported(holder, profile)


def read_exported(bundle: Path, profile: str | None = None) -> list[TrainedModel]:
    """The models that were exported into a bundle as one, each with its own network and window.

    Args:
        bundle: Its folder, with ``models/ensemble.json``.
        profile: Of the bundle; None for the one of their voxel size.

    Raises:
        ModelError: The configuration was not written by ``export``, or the bundle has no such voxel size.
    """
    file = bundle / "models" / ENSEMBLE_FILE
    content = READER.json_object(file)
    members = READER.at(list[dict[str, Any]], content, ["network_def", "members"], file)
    windows = READER.at(list[list[int]], content, ["inferer", "windows"], file)
    spacing = READER.at(list[float], content, ["spacing_mm"], file)
    numbers = range(1, len(members) + 1)
    if len(members) < 2 or len(windows) != len(members) or content.get(LOAD_PATH) != [place_of(one) for one in numbers]:
        READER.refuse(file, f"must have a window and a place in {LOAD_PATH} for each of two networks or more")
    fitting = [
        one
        for one in ([profile] if profile else profiles_of(bundle))
        if input_of(TrainedModel(bundle, file, one))["spacing_mm"] == spacing
    ]
    if not fitting:
        READER.refuse(file, f"has voxels of {spacing} mm, and profiles of {bundle.name} have others")
    return [
        TrainedModel(bundle, file.with_name(name_of(one)), fitting[0], {"network_def": member, "patch_size": window})
        for one, member, window in zip(numbers, members, windows, strict=True)
    ]


def name_of(number: int) -> str:
    """File of the weights of one of several models in an export, counted from 1."""
    return f"model-{number}.pt"


def place_of(number: int) -> str:
    """The same as the exported configuration names it."""
    return f"$@ckpt_dir + '/{name_of(number)}'"


def refuse_unlike(models: Sequence[TrainedModel]) -> None:
    """Raise ``ModelError`` where models cannot be put together: one is there twice, or their input is not the same."""
    digests: dict[str, TrainedModel] = {}
    for model in models:
        if before := digests.get(digest := hash_file(model.weights)):
            raise ModelError(f"{model.weights} and {before.weights} are the same weights, which would count twice")
        digests[digest] = model
    refuse_unlike_input(models)
    scripted = {model.bundle for model in models if (model.bundle / "scripts").is_dir()}
    if len(scripted) > 1:
        names = " and ".join(sorted(str(bundle) for bundle in scripted))
        raise ModelError(f"{names} both bring `scripts` of their own, of which Python finds one; use models of one")


def refuse_unlike_input(models: Sequence[TrainedModel]) -> None:
    """Raise ``ModelError`` where what two models take or give is not the same."""
    wanted = input_of(models[0])
    for model in models[1:]:
        for name, value in input_of(model).items():
            if value != wanted[name]:
                found = f"{name} is {_short(value)} and {_short(wanted[name])}"
                raise ModelError(
                    f"{describe(model)} and {describe(models[0])} cannot be put together: {found}; their input and "
                    "their regions must be the same"
                )


def input_of(model: TrainedModel) -> dict[str, Any]:
    """What a model takes and gives: voxel size, scans and regions, and how scans are prepared."""
    config = _inference(model)
    network = config.get("network_def")
    return {
        "spacing_mm": config.get("spacing_mm"),
        **{name: network.get(name) for name in INPUT},
        "preprocessing": config.get("preprocessing"),
    }


def _inference(model: TrainedModel) -> ConfigParser:
    """The bundle's inference with the profile."""
    from monai.bundle import ConfigParser

    parser = ConfigParser()
    parser.read_config(inference_files(model))
    parser.update(dict(model.own))
    return parser


def inference_files(model: TrainedModel) -> list[str]:
    """The bundle's inference and its profile.

    Raises:
        ModelError: The bundle has none.
    """
    make_importable(model.bundle)
    names = ["inference", *([] if model.profile == "full" else [model.profile])]
    paths = [model.bundle / "configs" / f"{name}.json" for name in names]
    for path in paths:
        if not path.is_file():
            raise ModelError(f"{model.bundle} has no configs/{path.name}; `make bundles` gives a new bundle the files")
    return [str(path) for path in paths]


def ensemble_parts(models: Sequence[TrainedModel], inferer: str) -> dict[str, Any]:
    """What takes the place of a configuration's network and inferer, where there are several models.

    Args:
        models: Two or more.
        inferer: Key of the inferer in the configuration.
    """
    configs = [_inference(model) for model in models]
    return {
        "network_def": {
            "_target_": "brats_fl.network.ensembles.Ensemble",
            "members": [config.get("network_def") for config in configs],
        },
        inferer: {
            "_target_": "brats_fl.network.ensembles.EnsembleInferer",
            "windows": [config.get("patch_size") for config in configs],
            "overlap": "@overlap",
            "mirror_axes": "@mirror_axes",
            "amp": "@amp",
        },
    }


def post_processing(models: Sequence[TrainedModel]) -> dict[str, Any]:
    """What was chosen for a model; of several nothing is taken, as it was chosen for one's probabilities.

    Raises:
        ModelError: As ``tuned_settings``.
    """
    if len(models) == 1:
        return tuned_settings(models[0].weights)
    if tuned := [str(file) for model in models if (file := model.weights.with_name(TUNED_FILE)).is_file()]:
        typer.echo(f"note: {', '.join(tuned)} is for one model alone; their mean has the bundle's defaults", err=True)
    return {}


def digests_of(models: Sequence[TrainedModel]) -> dict[str, str]:
    """Name of each model -> SHA-256 of its file."""
    found: dict[str, str] = {}
    for model in models:
        name = short_name(model.weights)
        while name in found:
            name += "'"
        found[name] = hash_file(model.weights)
    return found


def short_name(weights: Path) -> str:
    """``unet/global_model.pt`` of a run folder, ``brats_unet/model.pt`` of a bundle."""
    folder = weights.parents[1] if is_bundle(weights.parents[1]) else weights.parent
    return f"{folder.name}/{weights.name}"


def describe(model: TrainedModel) -> str:
    """A model for a message."""
    return f"{model.weights} ({model.bundle.name}, profile {model.profile})"


def title(models: Sequence[TrainedModel]) -> Mapping[str, str]:
    """Model, bundle and profile in words; where several have the same it stands once."""
    bundles, profiles = dict.fromkeys(m.bundle.name for m in models), dict.fromkeys(m.profile for m in models)
    name = models[0].weights.name if len(models) == 1 else f"mean of {len(models)} models"
    return {"model": name, "bundle": " and ".join(bundles), "profile": " and ".join(profiles)}


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) < 40 else "its own"
