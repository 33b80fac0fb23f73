"""A run's model becomes the bundle's weights; every export computes what the network computes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
import typer

from brats_fl.bundle import build_network, bundle_names
from brats_fl.errors import ModelError
from brats_fl.network import onnx_graph
from brats_fl.provenance import hash_file
from brats_fl_tools.model.export import export, export_model
from brats_fl_tools.repository import BUNDLES

NAMES = bundle_names(BUNDLES)
SIZES = ((1, 4, 32, 32, 32), (2, 4, 48, 64, 32))


@pytest.fixture
def bundle(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy of a bundle without weights."""
    name = getattr(request, "param", "brats_attention_unet")
    return Path(shutil.copytree(BUNDLES / name, tmp_path / name, ignore=shutil.ignore_patterns("models", "eval")))


def run_folder(folder: Path, bundle: Path, profile: str = "small") -> Path:
    """A run folder with a model that FLARE's persistor could have written, best and final of different seeds."""
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps({"profile": profile}))
    for seed, name in enumerate(("global_model.pt", "final_model.pt")):
        state = build_network(bundle, profile, seed).state_dict()
        torch.save({"model": state, "train_conf": {"train": {}}}, folder / name)
    return folder


@pytest.mark.parametrize("bundle", NAMES, indirect=True)
def test_exports_agree_with_the_network_on_images_of_different_sizes(bundle: Path, tmp_path: Path):
    model = run_folder(tmp_path / "run", bundle) / "global_model.pt"

    written = export_model(model, bundle, torchscript=True, onnx=True)

    assert [path.name for path in written] == ["model.pt", "model.ts", "model.onnx"]
    assert sorted(path.name for path in (bundle / "models").iterdir()) == ["model.onnx", "model.pt", "model.ts"]
    network = build_network(bundle, "small", seed=0).eval()
    script = torch.jit.load(str(bundle / "models" / "model.ts"))
    session = onnxruntime.InferenceSession(str(bundle / "models" / "model.onnx"), providers=["CPUExecutionProvider"])
    for size in SIZES:
        image = torch.randn(size, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            wanted = network(image)
            np.testing.assert_allclose(script(image), wanted, atol=1e-4)
        np.testing.assert_allclose(session.run(None, {"image": image.numpy()})[0], wanted, atol=1e-3)


def test_weights_are_a_plain_state_dict_of_the_best_model(bundle: Path, tmp_path: Path):
    run = run_folder(tmp_path / "run", bundle)

    export(run, bundle)

    state = torch.load(bundle / "models" / "model.pt", weights_only=True)
    best = build_network(bundle, "small", seed=0).state_dict()
    assert list(state) == list(best)
    assert all(torch.equal(state[name], best[name]) for name in best)


def test_final_model_is_exported_on_request(bundle: Path, tmp_path: Path):
    run = run_folder(tmp_path / "run", bundle)

    export(run, bundle, which="final")

    state = torch.load(bundle / "models" / "model.pt", weights_only=True)
    final = build_network(bundle, "small", seed=1).state_dict()
    assert all(torch.equal(state[name], final[name]) for name in final)


def test_user_is_told_which_profile_the_weights_need(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    export(run_folder(tmp_path / "run", bundle), bundle)

    out = capsys.readouterr().out
    assert str(bundle / "models" / "model.pt") in out
    assert "trained with profile small: name configs/small.json last in --config_file" in out


def test_model_of_another_architecture_is_refused_and_nothing_is_written(bundle: Path, tmp_path: Path):
    run = run_folder(tmp_path / "run", BUNDLES / "brats_unet")

    with pytest.raises(ModelError, match=r"brats_attention_unet with profile small: .* of another network"):
        export(run, bundle)

    assert not (bundle / "models").exists()


def test_model_of_another_profile_is_refused(bundle: Path, tmp_path: Path):
    run = run_folder(tmp_path / "run", bundle)
    (run / "run.json").write_text(json.dumps({"profile": "full"}))

    with pytest.raises(ModelError, match=r" \(8, 4, 3, 3, 3\) in place of \(16, 4, 3, 3, 3\)"):
        export(run, bundle)


def test_existing_weights_are_replaced_with_force_only(bundle: Path, tmp_path: Path):
    run = run_folder(tmp_path / "run", bundle)
    (bundle / "models").mkdir()
    (bundle / "models" / "model.pt").write_bytes(b"the old weights")

    with pytest.raises(ModelError, match="exists; add --force to replace it"):
        export(run, bundle)
    assert (bundle / "models" / "model.pt").read_bytes() == b"the old weights"

    export(run, bundle, force=True)
    assert (bundle / "models" / "model.pt").stat().st_size > 1e6


def test_new_weights_do_not_stay_beside_the_old_ones_exports(bundle: Path, tmp_path: Path):
    run = run_folder(tmp_path / "run", bundle)
    (bundle / "models").mkdir()
    (bundle / "models" / "model.ts").write_bytes(b"an export of other weights")

    with pytest.raises(ModelError, match=r"model\.ts exists; add --force"):
        export(run, bundle)
    export(run, bundle, force=True)

    assert [path.name for path in (bundle / "models").iterdir()] == ["model.pt"]


def test_export_that_computes_something_else_is_not_written(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    run = run_folder(tmp_path / "run", bundle)
    monkeypatch.setattr(onnx_graph, "TOLERANCE", 0.0)  # no difference is small enough

    with pytest.raises(ModelError, match=r"model\.ts computes logits that differ"):
        export(run, bundle, torchscript=True)

    assert list((bundle / "models").iterdir()) == []


def test_unknown_choice_is_wrong_usage(bundle: Path, tmp_path: Path):
    with pytest.raises(typer.BadParameter, match="must be best or final"):
        export(tmp_path, bundle, which="last")


def test_export_that_fails_names_the_file_and_leaves_nothing(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def fail(*_: object) -> None:
        raise RuntimeError("aten::unknown is not\nsupported")

    monkeypatch.setattr(torch.jit, "script", fail)
    model = run_folder(tmp_path / "run", bundle) / "global_model.pt"

    with pytest.raises(ModelError, match=r"^model\.ts could not be written: RuntimeError: aten::unknown is not"):
        export_model(model, bundle, torchscript=True)

    assert list((bundle / "models").iterdir()) == []


def test_card_goes_along_with_the_very_weights_that_it_is_of(bundle: Path, tmp_path: Path):
    run = run_folder(tmp_path / "run", bundle)
    model = run / "global_model.pt"
    (run / "model_card.md").write_text(f"- Model: SHA-256 {hash_file(model)}\n", encoding="utf-8")

    written = export_model(model, bundle)

    exported = bundle / "models"
    assert [path.name for path in written] == ["model.pt", "model_card.md"]
    assert (exported / "model_card.md").read_text(encoding="utf-8") == (
        f"- Model: SHA-256 {hash_file(model)}, here {hash_file(exported / 'model.pt')}\n"
    )

    (run / "model_card.md").write_text(f"- Model: SHA-256 {'0' * 64}\n", encoding="utf-8")
    assert [path.name for path in export_model(model, bundle, force=True)] == ["model.pt"]
    assert not (exported / "model_card.md").exists()
