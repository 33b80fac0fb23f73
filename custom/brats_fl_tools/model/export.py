"""``brats-fl export``: a run's global model becomes the bundle's weights, as TorchScript and ONNX too on request."""

from __future__ import annotations

import io
import json
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from brats_fl.bundle import build_network
from brats_fl.errors import BratsFLError, ModelError
from brats_fl.failures import explain
from brats_fl.files import write_whole
from brats_fl.provenance import hash_file
from brats_fl_tools.jobs.options import ForceOption
from brats_fl_tools.model.trained import READER, TUNED_FILE, check_model, profile_of, resolve_bundle, tuned_settings
from brats_fl_tools.one_writer import writes

if TYPE_CHECKING:
    import torch

EXAMPLE_SHAPES = ((2, 4, 64, 32, 48), (1, 4, 32, 96, 64))
"""Inputs that the exported graphs are run with before they are called exported; the first one is traced for ONNX.

All of the first one's sizes differ and none is 1, or the exporter would take them for fixed.
"""

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
    """
    profile = profile_of(model)
    check_model(bundle, model, profile)
    models = bundle / "models"
    asked_for = {"model.pt": True, "model.ts": torchscript, "model.onnx": onnx}
    tuned = tuned_settings(model)
    wanted = [models / name for name, asked in asked_for.items() if asked]
    # An export of other weights that stayed beside the new ones would be taken for theirs.
    existing = [models / name for name in (*asked_for, TUNED_FILE) if (models / name).exists()]
    if existing and not force:
        raise ModelError(f"{existing[0]} exists; add --force to replace it")
    from brats_fl.network.checkpoints import read_state_for

    network = build_network(bundle, profile, seed=0)
    network.load_state_dict(read_state_for(model, network))
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
    return [*wanted, *([_write_tuned(model, models)] if tuned else [])]


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

    names = {0: "batch", 2: "height", 3: "width", 4: "depth"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter about its own parts; what it wrote is checked below
        torch.onnx.export(
            network,
            (torch.randn(EXAMPLE_SHAPES[0]),),
            str(path),
            input_names=["image"],
            output_names=["pred"],
            dynamic_axes={"image": names, "pred": names},
            dynamo=False,  # the newer exporter gives the same logits, and takes 21 s where this one takes 2 s
        )
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    _check_same(path, network, lambda image: torch.from_numpy(session.run(None, {"image": image.numpy()})[0]))


def _check_same(path: Path, network: torch.nn.Module, exported: Callable[[torch.Tensor], torch.Tensor]) -> None:
    import torch

    for shape in EXAMPLE_SHAPES:
        image = torch.randn(shape)
        with torch.no_grad():
            difference = float((network(image) - exported(image)).abs().max())
        if not difference < TOLERANCE:
            raise ModelError(
                f"{path.name} computes logits that differ by {difference:.2g} from the network's; not written"
            )
