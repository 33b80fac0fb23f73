"""``brats-fl export``: a run's global model becomes the bundle's weights, as TorchScript and ONNX too on request."""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from brats_fl.errors import BratsFLError, ModelError
from brats_fl.failures import explain
from brats_fl.files import write_whole
from brats_fl.provenance import hash_file
from brats_fl_tools.jobs.options import ForceOption
from brats_fl_tools.model.documents import card_of, facts_of, read_documents, read_run_of
from brats_fl_tools.model.ensemble import (
    LOAD_PATH,
    ensemble_parts,
    find_models,
    input_of,
    name_of,
    place_of,
    refuse_unlike_input,
)
from brats_fl_tools.model.exported import note_exports, refuse_existing
from brats_fl_tools.model.trained import (
    READER,
    TUNED_FILE,
    TrainedModel,
    build_trained,
    bundle_of,
    profile_of,
    resolve_bundle,
    tuned_settings,
)
from brats_fl_tools.one_writer import writes
from brats_fl_tools.report.model_card import describe_ensemble
from brats_fl_tools.weights import ENSEMBLE_FILE
from brats_fl_tools.withdrawn import refuse_withdrawn

if TYPE_CHECKING:
    import torch

NO_GRAPH = (
    "a graph of several models sees one window at a time, and the mean is taken over whole brains: its masks would be "
    "others than those of `segment`; leave --torchscript and --onnx out, or export each model alone"
)


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder.")],
    bundle: Annotated[Path, typer.Option("--bundle", help="Folder of the bundle, or its name.")],
    which: Annotated[str, typer.Option("--which", help="best (global_model.pt) or final (final_model.pt).")] = "best",
    others: Annotated[
        list[Path] | None,
        typer.Option(
            "--model", help="Another run folder or checkpoint: their mean probability is exported. Repeatable."
        ),
    ] = None,
    torchscript: Annotated[bool, typer.Option("--torchscript", help="Also write models/model.ts.")] = False,
    onnx: Annotated[bool, typer.Option("--onnx", help="Also write models/model.onnx.")] = False,
    force: ForceOption = False,
) -> None:
    """Write BUNDLE/models/model.pt from a run folder (with --torchscript model.ts, with --onnx model.onnx).

    BUNDLE/docs/README.md and configs/metadata.json say what the weights are: data, figures, limits; what a person
    wrote there stays. With --model, of several runs: models/model-1.pt, model-2.pt and so on, and models/ensemble.json,
    which makes the bundle's inference take the mean of their probabilities.
    """
    files = {"best": "global_model.pt", "final": "final_model.pt"}
    if which not in files:
        raise typer.BadParameter(f"--which must be best or final (got {which!r})")
    if others:
        if torchscript or onnx:
            raise ModelError(NO_GRAPH)
        weights = [one / files[which] if one.is_dir() else one for one in (run, *others)]
        for path in export_ensemble(weights, resolve_bundle(bundle), force):
            typer.echo(path)
        typer.echo(f"name models/{ENSEMBLE_FILE} last in --config_file, after configs/inference.json, when you use it")
        return
    written = export_model(run / files[which], resolve_bundle(bundle), torchscript, onnx, force)
    for path in written:
        typer.echo(path)
    overlays = [f"configs/{profile}.json"] if (profile := profile_of(run / files[which])) != "full" else []
    overlays += [f"models/{path.name}" for path in written if path.name == TUNED_FILE]
    if overlays:
        last = " and ".join(overlays)
        typer.echo(f"trained with profile {profile}: name {last} last in --config_file when you use it")


@writes("bundle", within="models")
def export_model(
    model: Path, bundle: Path, torchscript: bool = False, onnx: bool = False, force: bool = False
) -> list[Path]:
    """Write the exports and return their paths; each appears whole or not at all.

    Raises:
        ModelError: The model does not fit the bundle, a file exists already, or an export computes something else.
        RunError: A file of the model's run is damaged; nothing is written.
    """
    refuse_withdrawn(model)
    profile = profile_of(model)
    network = build_trained(TrainedModel(bundle, model, profile))
    models = bundle / "models"
    asked_for = {"model.pt": True, "model.ts": torchscript, "model.onnx": onnx}
    tuned = tuned_settings(model)
    wanted = [models / name for name, asked in asked_for.items() if asked]
    # An export of other weights that stayed beside the new ones would be taken for theirs.
    existing = refuse_existing(models, force)
    documents, digest, run = read_documents(bundle), hash_file(model), read_run_of(model)
    card, facts = card_of(model, digest, run), facts_of(digest, run)
    network.eval()
    models.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=models) as folder:
        scratch = [Path(folder) / path.name for path in wanted]
        writers = {"model.pt": _write_weights, "model.ts": _write_torchscript, "model.onnx": _write_onnx}
        for path in scratch:
            _write(writers[path.name], network, path)
        for path in set(existing) - set(wanted):
            path.unlink()
        for source, target in zip(scratch, wanted, strict=True):
            source.replace(target)
    written = [*wanted, *([_write_tuned(model, models)] if tuned else [])]
    note_exports(models, written)
    card = card.replace(digest, f"{digest}, here {hash_file(models / 'model.pt')}", 1)
    return [*written, *documents.write(card, facts)]


@writes("bundle", within="models")
def export_ensemble(weights: Sequence[Path], bundle: Path, force: bool = False) -> list[Path]:
    """Write the weights of several models, and a configuration that makes them the bundle's network; return the paths.

    It holds the other networks' definitions, windows and voxel size: ``configs/inference.json`` and it are enough.

    Raises:
        ModelError: The models do not go together or with the bundle, or files exist already.
    """
    for path in weights:
        refuse_withdrawn(path)
    found = find_models(weights, [] if all(bundle_of(path.resolve()) for path in weights) else [bundle])
    refuse_unlike_input([*found, replace(found[0], bundle=bundle)])
    existing = refuse_existing(bundle / "models", force)
    documents, digests = read_documents(bundle), [hash_file(model.weights) for model in found]
    (bundle / "models").mkdir(exist_ok=True)
    names = [name_of(number) for number in range(1, len(found) + 1)]
    with tempfile.TemporaryDirectory(dir=bundle / "models") as folder:
        for name, model in zip(names, found, strict=True):
            _write(_write_weights, build_trained(model), Path(folder) / name)
        parts = {
            **ensemble_parts(found, "inferer"),
            "spacing_mm": input_of(found[0])["spacing_mm"],
            LOAD_PATH: [place_of(number) for number in range(1, len(found) + 1)],
        }
        write_whole(Path(folder) / ENSEMBLE_FILE, json.dumps(parts, indent=4) + "\n")
        for path in existing:
            path.unlink()
        for name in (*names, ENSEMBLE_FILE):
            (Path(folder) / name).replace(bundle / "models" / name)
    written = [bundle / "models" / name for name in (*names, ENSEMBLE_FILE)]
    note_exports(bundle / "models", written)
    facts = {"eval_metrics": {}, "trained": {"models_sha256": digests}}
    return [*written, *documents.write(describe_ensemble(digests), facts)]


def _write_tuned(model: Path, models: Path) -> Path:
    """Post-processing that was chosen for the model, beside its export."""
    content = READER.json_object(model.with_name(TUNED_FILE))
    content["tuned"]["model_sha256"] = hash_file(models / "model.pt")
    write_whole(models / TUNED_FILE, json.dumps(content, indent=1) + "\n")
    return models / TUNED_FILE


def _write(writer: Callable[[torch.nn.Module, Path], None], network: torch.nn.Module, path: Path) -> None:
    """Call a writer; what fails in torch or its exporters names the file."""
    try:
        writer(network, path)
    except (BratsFLError, OSError):
        raise
    except Exception as error:
        raise ModelError(f"{path.name} could not be written: {explain(error)}") from error


def _write_weights(network: torch.nn.Module, path: Path) -> None:
    from brats_fl.network.checkpoints import save_whole

    save_whole(path, network.state_dict())


def _write_torchscript(network: torch.nn.Module, path: Path) -> None:
    import torch

    buffer = io.BytesIO()  # of a full disk torch says what nobody understands
    torch.jit.save(torch.jit.script(network), buffer)
    write_whole(path, buffer.getbuffer())
    _check_same(path, network, torch.jit.load(str(path)))


def _write_onnx(network: torch.nn.Module, path: Path) -> None:
    import onnxruntime
    import torch

    from brats_fl.network.onnx_graph import as_onnx

    write_whole(path, as_onnx(network))
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    _check_same(path, network, lambda image: torch.from_numpy(session.run(None, {"image": image.numpy()})[0]))


def _check_same(path: Path, network: torch.nn.Module, exported: Callable[[torch.Tensor], torch.Tensor]) -> None:
    import torch

    from brats_fl.network.onnx_graph import EXAMPLE_SHAPES, TOLERANCE, difference_of

    for shape in EXAMPLE_SHAPES:
        image = torch.randn(shape)
        with torch.no_grad():
            difference = difference_of(network(image), exported(image))
        if not difference < TOLERANCE:
            raise ModelError(
                f"{path.name} computes logits that differ by {difference:.2g} from the network's; not written"
            )
