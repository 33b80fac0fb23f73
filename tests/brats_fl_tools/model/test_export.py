"""A run's model becomes the bundle's weights; every export computes what the network computes."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import onnxruntime
import pytest
import torch
import typer
from tests.run_folders import SITES, write_rows
from tests.shared_data import METADATA_SCHEMA

from brats_fl.bundle import build_network, bundle_names
from brats_fl.errors import ModelError, RunError
from brats_fl.network import onnx_graph
from brats_fl.provenance import bundle_digest, hash_file
from brats_fl_tools.model.documents import BEGIN, END
from brats_fl_tools.model.export import export, export_model
from brats_fl_tools.model.exported import EXPORTS_FILE, note_exports
from brats_fl_tools.report import PAGE_IN_3D, REPORT_FILE
from brats_fl_tools.repository import BUNDLES
from brats_fl_tools.sync_bundles import format_config

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
    (folder / "run.json").write_text(json.dumps({"job": "brats_unet_fedavg", "profile": profile}))
    for seed, name in enumerate(("global_model.pt", "final_model.pt")):
        state = build_network(bundle, profile, seed).state_dict()
        torch.save({"model": state, "train_conf": {"train": {}}}, folder / name)
    return folder


@pytest.mark.parametrize("bundle", NAMES, indirect=True)
def test_exports_agree_with_the_network_on_images_of_different_sizes(bundle: Path, tmp_path: Path):
    model = run_folder(tmp_path / "run", bundle) / "global_model.pt"

    written = export_model(model, bundle, torchscript=True, onnx=True)

    names = ["model.pt", "model.ts", "model.onnx", "README.md", "metadata.json"]
    assert [path.name for path in written] == names
    exported = {"model.onnx", "model.pt", "model.ts"}
    assert {path.name for path in (bundle / "models").iterdir()} == {*exported, EXPORTS_FILE}
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


def test_no_page_of_the_run_is_exported(bundle: Path, tmp_path: Path):
    run = run_folder(tmp_path / "run", bundle)
    for name in (REPORT_FILE, PAGE_IN_3D):
        (run / name).write_text("scans")

    export(run, bundle)

    assert not list(bundle.rglob("*.html"))


def test_final_model_is_exported_on_request(bundle: Path, tmp_path: Path):
    run = run_folder(tmp_path / "run", bundle)

    export(run, bundle, which="final")

    assert "| How the final model was chosen | it is the model after the last round |" in section_of(bundle)
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
    (run / "run.json").write_text(json.dumps({"job": "brats_unet_fedavg", "profile": "full"}))

    with pytest.raises(ModelError, match=r" \(8, 4, 3, 3, 3\) in place of \(16, 4, 3, 3, 3\)"):
        export(run, bundle)


def test_earlier_export_is_replaced_with_force_only(bundle: Path, tmp_path: Path):
    run = run_folder(tmp_path / "run", bundle)
    export(run, bundle)
    earlier = (bundle / "models" / "model.pt").stat().st_mtime_ns

    with pytest.raises(ModelError, match="exists; add --force to replace it"):
        export(run, bundle)
    assert (bundle / "models" / "model.pt").stat().st_mtime_ns == earlier

    export(run, bundle, force=True)
    assert (bundle / "models" / "model.pt").stat().st_mtime_ns > earlier


@pytest.mark.parametrize("name", ["model.pt", "model.onnx", "model-1.pt", "ensemble.json"])
def test_what_no_export_wrote_is_not_replaced_with_force_either(bundle: Path, tmp_path: Path, name: str):
    run = run_folder(tmp_path / "run", bundle)
    (bundle / "models").mkdir()
    (bundle / "models" / name).write_bytes(b"weights of somebody")

    with pytest.raises(ModelError, match=rf"{name}: is not as `brats-fl export` wrote it.*; move it away"):
        export(run, bundle, force=True)
    assert (bundle / "models" / name).read_bytes() == b"weights of somebody"


def test_export_that_was_changed_since_is_not_replaced(bundle: Path, tmp_path: Path):
    run = run_folder(tmp_path / "run", bundle)
    export(run, bundle)
    (bundle / "models" / "model.pt").write_bytes(b"trained further")

    with pytest.raises(ModelError, match=r"model\.pt: is not as `brats-fl export` wrote it"):
        export(run, bundle, force=True)


def test_new_weights_do_not_stay_beside_the_old_ones_exports(bundle: Path, tmp_path: Path):
    run = run_folder(tmp_path / "run", bundle)
    (bundle / "models").mkdir()
    (bundle / "models" / "model.ts").write_bytes(b"an export of other weights")
    note_exports(bundle / "models", [bundle / "models" / "model.ts"])

    with pytest.raises(ModelError, match=r"model\.ts exists; add --force"):
        export(run, bundle)
    export(run, bundle, force=True)

    assert {path.name for path in (bundle / "models").iterdir()} == {"model.pt", EXPORTS_FILE}


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


def write_tested_run(folder: Path, bundle: Path, dice: Sequence[float], of: str = "global_model.pt") -> Path:
    """A run folder whose table has test cases of two hospitals, with the same Dice in every region."""
    run_folder(folder, bundle)
    digest, sites = hash_file(folder / of), {site: {"training": 4, "validation": 1, "testing": 3} for site in SITES}
    info = {"job": "brats_unet_fedavg", "bundle": bundle.name, "profile": "small", "rounds": 3, "sites": sites}
    (folder / "run.json").write_text(json.dumps(info | {"study_sha256": "5" * 64}))
    (folder / "evaluation.json").write_text(json.dumps({"model_sha256": digest, "seen_in_training": []}))
    rows = [(f"secret-{n}", SITES[n % 2], "testing", [one] * 3, [float(n)] * 3) for n, one in enumerate(dice)]
    write_rows(folder, rows)
    return folder


def section_of(bundle: Path) -> str:
    card = (bundle / "docs" / "README.md").read_text(encoding="utf-8")
    return card.partition(BEGIN)[2].partition(END)[0]


def metadata_of(bundle: Path) -> dict[str, Any]:
    return json.loads((bundle / "configs" / "metadata.json").read_text(encoding="utf-8"))


def test_bundle_says_on_what_the_weights_were_trained_and_tested_and_names_no_case(bundle: Path, tmp_path: Path):
    run = write_tested_run(tmp_path / "run", bundle, [0.9, 0.8, 0.7, 0.6, 0.5])

    export_model(run / "global_model.pt", bundle)

    section, digest = section_of(bundle), hash_file(run / "global_model.pt")
    assert f"- Model: SHA-256 {digest}, here {hash_file(bundle / 'models' / 'model.pt')}\n" in section
    assert "- Bundle: brats_attention_unet (small), brats_unet_fedavg, 3 rounds\n" in section
    assert f"- Data split: SHA-256 {'5' * 64}" in section
    assert "| hospital-1 | 4 | 1 | 3 |" in section
    assert "5 test cases that it never saw in training; 95 % intervals over cases." in section
    assert re.search(r"\| mean Dice \| 0\.700 \| 0\.\d{3} to 0\.\d{3} \|", section)  # (.9 + .8 + .7 + .6 + .5) / 5
    assert "| HD95 in mm, median, whole tumour | 2.0 | missed in 0 |" in section  # of 0 1 2 3 4
    assert "- Licence of the weights: _to be written_" in section
    assert "| Data sources, dates, consent and approval | _to be written_ |" in section
    assert "95 % intervals over cases |" in section
    assert "| How the final model was chosen | by mean Dice on validation cases of the hospitals |" in section
    assert "secret" not in (bundle / "docs" / "README.md").read_text(encoding="utf-8")
    metadata = metadata_of(bundle)
    assert metadata["eval_metrics"] == {"tc_dice": 0.7, "wt_dice": 0.7, "et_dice": 0.7, "mean_dice": 0.7}
    assert metadata["trained"]["cases"]["hospital-2"] == {"training": 4, "validation": 1, "testing": 3}
    assert (metadata["trained"]["model_sha256"], metadata["trained"]["test_cases"]) == (digest, 5)
    assert metadata["weights_licence"] == "_to be written_"
    if METADATA_SCHEMA.is_file():
        jsonschema.validate(metadata, json.loads(METADATA_SCHEMA.read_text(encoding="utf-8")))


def test_section_stands_before_what_all_bundles_share_and_is_code_for_nobody(bundle: Path, tmp_path: Path):
    code, card = bundle_digest(bundle), (bundle / "docs" / "README.md").read_text(encoding="utf-8")

    export_model(run_folder(tmp_path / "run", bundle) / "global_model.pt", bundle)

    written = (bundle / "docs" / "README.md").read_text(encoding="utf-8")
    before, _, after = written.partition(BEGIN)
    assert before == card.partition("## Data\n")[0]
    assert after.partition(END)[2] == "\n## Data\n" + card.partition("## Data\n")[2]
    assert "## Data\n" not in after.partition(END)[0]
    assert bundle_digest(bundle) == code


def test_second_export_changes_nothing_and_keeps_what_a_person_wrote(bundle: Path, tmp_path: Path):
    run = write_tested_run(tmp_path / "run", bundle, [0.9, 0.8, 0.7, 0.6, 0.5])
    export_model(run / "global_model.pt", bundle)
    readme, metadata = bundle / "docs" / "README.md", bundle / "configs" / "metadata.json"
    readme.write_text("Of our consortium.\n" + readme.read_text(encoding="utf-8") + "The end.\n", encoding="utf-8")
    metadata.write_text(format_config(metadata_of(bundle) | {"weights_licence": "CC-BY-4.0", "version": "0.2.0"}))
    before = readme.read_bytes(), metadata.read_bytes()

    export_model(run / "global_model.pt", bundle, force=True)

    assert (readme.read_bytes(), metadata.read_bytes()) == before


def test_run_without_test_cases_or_with_those_of_another_model_leaves_the_figures_empty(bundle: Path, tmp_path: Path):
    run = run_folder(tmp_path / "untested", bundle)
    export_model(run / "global_model.pt", bundle)
    assert "No test case was evaluated: `brats-fl evaluate" in section_of(bundle)
    assert "| mean Dice | not tested |  |" in section_of(bundle)
    assert metadata_of(bundle)["eval_metrics"] == {}

    other = write_tested_run(tmp_path / "other", bundle, [0.9] * 5, of="final_model.pt")
    export_model(other / "global_model.pt", bundle, force=True)
    assert f"evaluated with another model, SHA-256 {hash_file(other / 'final_model.pt')}." in section_of(bundle)
    assert metadata_of(bundle)["eval_metrics"] == {}

    (other / "evaluation.json").unlink()
    export_model(other / "global_model.pt", bundle, force=True)
    assert "and no word on which model it is of" in section_of(bundle)


def test_few_test_cases_have_no_interval(bundle: Path, tmp_path: Path):
    run = write_tested_run(tmp_path / "run", bundle, [0.9, 0.7])

    export_model(run / "global_model.pt", bundle)

    assert "| mean Dice | 0.800 | fewer than 5 cases |" in section_of(bundle)


def test_card_of_a_study_is_taken_for_the_very_weights_that_it_is_of(bundle: Path, tmp_path: Path):
    run = run_folder(tmp_path / "run", bundle)
    model, exported = run / "global_model.pt", bundle / "models" / "model.pt"
    (run / "model_card.md").write_text(f"# A\n\n- Model: SHA-256 {hash_file(model)}\n", encoding="utf-8")

    export_model(model, bundle)

    assert section_of(bundle) == f"## A\n\n- Model: SHA-256 {hash_file(model)}, here {hash_file(exported)}\n"
    (run / "model_card.md").write_text(f"- Model: SHA-256 {'0' * 64}\n", encoding="utf-8")
    export_model(model, bundle, force=True)
    assert "- Verdict: none, no study judged the model\n" in section_of(bundle)


def test_documents_that_cannot_be_filled_stop_the_export_before_anything_is_written(bundle: Path, tmp_path: Path):
    run, readme = run_folder(tmp_path / "run", bundle), bundle / "docs" / "README.md"
    readme.write_text(BEGIN, encoding="utf-8")
    with pytest.raises(
        ModelError, match=r"docs/README\.md: must have the lines <!-- brats-fl export .* once each, in this order"
    ):
        export_model(run / "global_model.pt", bundle)

    readme.unlink()
    (run / "evaluation.csv").write_text("case,site\n")
    with pytest.raises(RunError, match=r"evaluation\.csv: has no column 'split'"):
        export_model(run / "global_model.pt", bundle)

    assert not (bundle / "models").exists()
