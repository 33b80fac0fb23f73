"""``brats-fl export``: a run's global model becomes the bundle's weights, as TorchScript and ONNX too on request."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer

from brats_fl.errors import ModelError
from brats_fl.training import build_network
from brats_fl_tools.evaluate import check_model, profile_of, read_state, resolve_bundle
from brats_fl_tools.jobs import ForceOption

EXAMPLE_SHAPE = (1, 4, 64, 64, 64)
"""Input that the exported graphs are run with once before they are called exported."""

TOLERANCE = 1e-3
"""Largest difference of logits between the network and an exported graph; float32 kernels differ by about 1e-5."""


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder.")],
    bundle: Annotated[Path, typer.Option("--bundle", help="Folder of the bundle, or its name.")],
    which: Annotated[str, typer.Option("--which", help="best (global_model.pt) or final (final_model.pt).")] = "best",
    torchscript: Annotated[bool, typer.Option("--torchscript", help="Also write models/model.ts.")] = False,
    onnx: Annotated[bool, typer.Option("--onnx", help="Also write models/model.onnx.")] = False,
    force: ForceOption = False,
) -> None:
    """Write BUNDLE/models/model.pt from a run folder (with --torchscript model.ts, with --onnx model.onnx)."""
    files = {"best": "global_model.pt", "final": "final_model.pt"}
    if which not in files:
        raise typer.BadParameter(f"--which must be best or final (got {which!r})")
    for path in export_model(run / files[which], resolve_bundle(bundle), torchscript, onnx, force):
        typer.echo(path)
    if (profile := profile_of(run / files[which])) != "full":
        typer.echo(f"trained with profile {profile}: name configs/{profile}.json last in --config_file when you use it")


def export_model(
    model: Path, bundle: Path, torchscript: bool = False, onnx: bool = False, force: bool = False
) -> list[Path]:
    """Write the exports and return their paths; each appears whole or not at all.

    Raises:
        ModelError: The model does not fit the bundle, a file exists already, or an export computes something else.
    """
    profile = profile_of(model)
    check_model(bundle, model, profile)
    models = bundle / "models"
    wanted = [models / name for name, on in (("model.pt", True), ("model.ts", torchscript), ("model.onnx", onnx)) if on]
    existing = [path for path in wanted if path.exists()]
    if existing and not force:
        raise ModelError(f"{existing[0]} exists; add --force to replace it")
    state = read_state(model)
    network = build_network(bundle, profile, seed=0)
    network.load_state_dict(state)
    network.eval()
    models.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=models) as folder:
        scratch = [Path(folder) / path.name for path in wanted]
        writers = {"model.pt": _write_weights, "model.ts": _write_torchscript, "model.onnx": _write_onnx}
        for path in scratch:
            writers[path.name](network, path)
        for source, target in zip(scratch, wanted, strict=True):
            source.replace(target)
    return wanted


def _write_weights(network: torch.nn.Module, path: Path) -> None:
    torch.save(network.state_dict(), path)


def _write_torchscript(network: torch.nn.Module, path: Path) -> None:
    torch.jit.script(network).save(str(path))
    example = torch.randn(EXAMPLE_SHAPE)
    with torch.no_grad():
        _check_same(path, network(example), torch.jit.load(str(path))(example))


def _write_onnx(network: torch.nn.Module, path: Path) -> None:
    import onnxruntime

    example = torch.randn(EXAMPLE_SHAPE)
    axes = {0: "batch", 2: "height", 3: "width", 4: "depth"}
    torch.onnx.export(
        network,
        (example,),
        str(path),
        input_names=["image"],
        output_names=["pred"],
        dynamic_axes={"image": axes, "pred": axes},
        dynamo=False,  # the graph of the tracing exporter keeps spatial sizes free; the other fixes them
    )
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    other = torch.randn(1, 4, 32, 96, 64)
    with torch.no_grad():
        for image in (example, other):
            _check_same(path, network(image), torch.from_numpy(session.run(None, {"image": image.numpy()})[0]))


def _check_same(path: Path, wanted: torch.Tensor, got: torch.Tensor) -> None:
    difference = float(np.abs(wanted.numpy() - got.numpy()).max())
    if not difference < TOLERANCE:
        raise ModelError(f"{path.name} computes logits that differ by {difference:.2g} from the network's; not written")
