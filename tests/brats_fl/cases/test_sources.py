"""A transform whose code changes, or the code that it rests on, gives other entries in the cache."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from monai.transforms import CastToTyped, Compose, CropForegroundd, Spacingd
from tests.tiny_sites import write_tiny_case

from brats_fl.cases import transforms
from brats_fl.cases.cache import CaseCache
from brats_fl.cases.cache_folder import list_entries
from brats_fl.cases.sources import hash_sources

OWN = """
from monai.transforms import Transform
from own_numbers import FACTOR

def is_bright(voxels):
    return voxels > 10

class Multiplied(Transform):
    def __call__(self, data):
        return {**data, "image": data["image"] * FACTOR}
"""

Write = Callable[..., ModuleType]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Function that writes modules and gives back the transforms among them, imported anew."""
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # Python goes by the second in which a file was written
    monkeypatch.syspath_prepend(tmp_path / "own")
    (tmp_path / "own").mkdir()

    def write(**sources: str) -> ModuleType:
        for name, source in sources.items():
            (tmp_path / "own" / f"{name}.py").write_text(source)
        importlib.invalidate_caches()
        for name in ("own_transforms", "own_numbers"):
            monkeypatch.delitem(sys.modules, name, raising=False)
        return importlib.import_module("own_transforms")

    return write


@pytest.fixture
def item(tmp_path: Path) -> dict[str, Any]:
    case = write_tiny_case(tmp_path / "hospital-1", "case-1")
    return {"case": case.case, "image": list(case.image), "label": case.label, "labels": case.labels}


def cached_image(own: ModuleType, item: dict[str, Any], folder: Path) -> torch.Tensor:
    steps = [transforms.LoadCased(), own.Multiplied(), CastToTyped("image", dtype=torch.float16)]
    return CaseCache([item], Compose(steps), folder)[0]["image"]


def test_transform_with_changed_code_gives_another_entry_with_its_own_result(write: Write, item, tmp_path: Path):
    cache = tmp_path / "cache"
    first = cached_image(write(own_numbers="FACTOR = 2\n", own_transforms=OWN), item, cache)
    again = cached_image(write(), item, cache)
    assert len(list_entries(cache)) == 1

    changed = cached_image(write(own_transforms=OWN.replace("* FACTOR", "* FACTOR * 2")), item, cache)
    beneath = cached_image(write(own_numbers="FACTOR = 4\n"), item, cache)

    assert torch.equal(first, again)
    assert torch.equal(changed, first * 2)
    assert torch.equal(beneath, first * 4)
    assert len(list_entries(cache)) == 3


def test_modules_that_define_steps_settings_and_bases_are_hashed_and_monai_is_not(write: Write):
    own = write(own_numbers="FACTOR = 2\n", own_transforms=OWN)

    class Derived(own.Multiplied):  # type: ignore[misc, name-defined]
        pass

    modules = ["own_numbers", "own_transforms"]
    assert list(hash_sources([own.Multiplied()])) == modules
    assert list(hash_sources([CropForegroundd("image", "image", select_fn=own.is_bright)])) == modules
    assert set(hash_sources([Derived()])) > set(modules)
    assert hash_sources([Spacingd("image", [1, 1, 1]), CastToTyped("image", dtype=torch.float16)]) == {}


def test_what_our_transforms_rest_on_counts_and_the_rest_of_the_library_does_not():
    of_cases = {f"brats_fl.cases.{name}" for name in ("scans", "scan_values", "nifti", "grids", "regions")}
    modules = {*of_cases, "brats_fl.constants", "brats_fl.errors"}

    assert set(hash_sources([transforms.LoadCased()])) == {"brats_fl.cases.transforms", *modules}


def test_module_of_a_package_s_own_is_followed_however_it_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(tmp_path)
    package = tmp_path / "own_package"
    package.mkdir()
    sources = {
        "__init__": "",
        "a": "from monai.transforms import Identity\nfrom . import b\nfrom .c import x\nclass Step(Identity):\n pass\n",
        "b": "import own_package.d\nimport json\n",
        "c": "from brats_fl.constants import NCR\nx = 1\n",
        "d": "",
        "e": "not imported by a",
    }
    for name, source in sources.items():
        (package / f"{name}.py").write_text(source)
    step = importlib.import_module("own_package.a").Step()

    found = hash_sources([step])

    assert set(found) == {f"own_package{name}" for name in ("", ".a", ".b", ".c", ".d")} | {"brats_fl.constants"}
    (package / "d.py").write_text("# changed\n")
    changed = hash_sources([step])
    assert {name for name in found if found[name] != changed[name]} == {"own_package.d"}


def test_threads_hash_the_same_sources_at_the_same_time():
    steps = [transforms.LabelToRegionsd()]

    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda _: hash_sources(steps), range(12)))

    assert all(one == found[0] for one in found)
    assert "brats_fl.cases.transforms" in found[0]
