"""Prints as JSON what a Python environment holds; fed to the ``python3`` that a kit's scripts would call.

It is a program of its own, which needs nothing but that interpreter, and looks whether all the rest is there.
"""

from __future__ import annotations

import importlib.util
import json
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Any

PACKAGES = {"brats_fl": "brats-fl", "nvflare": "nvflare", "monai": "monai", "torch": "torch"}
"""Module -> distribution."""

SLOW = ("monai",)
"""Only looked for: importing it takes longer than all the rest together."""


OPTIONAL = ("tensorboard", "mlflow")
"""Asked for by some jobs only; not imported."""


def probe() -> dict[str, Any]:
    """Interpreter, versions, what cannot be imported, what is there beyond, the code, and the GPUs that torch sees."""
    facts: dict[str, Any] = {"executable": sys.executable, "python": platform.python_version()}
    facts["failed"] = {module: why for module in PACKAGES if (why := failure(module))}
    facts["optional"] = [module for module in OPTIONAL if importlib.util.find_spec(module)]
    facts["versions"] = {name: version_of(name) for name in PACKAGES.values()}
    facts["code"] = {} if "brats_fl" in facts["failed"] else installed_code()
    facts["gpus_gib"] = [] if "torch" in facts["failed"] else gpu_memory()
    return facts


def failure(module: str) -> str | None:
    """Why a module cannot be imported; None where it can."""
    try:
        if module not in SLOW:
            importlib.import_module(module)
        elif importlib.util.find_spec(module) is None:
            return f"no module named {module!r}"
    except Exception as error:  # whatever a broken installation raises
        return f"{type(error).__name__}: {error}"
    return None


def version_of(distribution: str) -> str | None:
    """Version of an installed distribution; None where there is none."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def installed_code() -> dict[str, dict[str, str]]:
    """Bundle -> what a job for it has to state about the code, as ``brats_fl.provenance`` says it."""
    from brats_fl.errors import JobError
    from brats_fl.provenance import INSTALLED_BUNDLES, installed_package, required_code

    try:
        bundles = installed_package(INSTALLED_BUNDLES)
    except JobError:
        return {}
    return {path.parents[1].name: required_code(path.parents[1]) for path in bundles.glob("*/configs/train.json")}


def gpu_memory() -> list[float]:
    """Memory of each GPU that torch can use, in GiB."""
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return [round(torch.cuda.get_device_properties(i).total_memory / 2**30, 1) for i in range(count)]


if __name__ == "__main__":
    print(json.dumps(probe()))
