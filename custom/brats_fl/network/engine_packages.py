"""The engines that may compute a network's logits in inference, and the packages that each of them needs."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import sys
from collections.abc import Mapping
from typing import Any, Final

from brats_fl.errors import ModelError

TORCH: Final = "torch"

PACKAGES: Final[Mapping[str, tuple[str, ...]]] = {
    TORCH: (TORCH,),
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "openvino": ("onnx", "onnxscript", "openvino"),
}
"""Engine -> what it needs, itself the last. The extra of brats-fl that brings it has the engine's name."""


def check_engine(engine: str) -> None:
    """Raise unless an engine is known and installed.

    Raises:
        ValueError: There is no such engine.
        ModelError: It is not installed.
    """
    if engine not in PACKAGES:
        raise ValueError(f"engine must be one of {', '.join(PACKAGES)} (got {engine!r})")
    if missing := missing_packages(engine):
        raise ModelError(
            f"engine {engine}: {' and '.join(missing)} not installed; pip install 'brats-fl[{engine}]', or leave the "
            f"engine at {TORCH}"
        )


def missing_packages(engine: str) -> list[str]:
    """What an engine needs and is not installed."""
    return [name for name in PACKAGES[engine] if importlib.util.find_spec(name) is None]


def describe_engine(engine: str) -> str:
    """``torch 2.13.0``, ``onnxruntime 1.32.0`` or ``openvino 2026.4.1``."""
    package = PACKAGES[engine][-1]
    return f"{package} {importlib.metadata.version(package)}"


def import_openvino() -> Any:
    """OpenVINO without ``openvino_telemetry``, which it can do without.

    That writes an identity to the home folder and sends it to OpenVINO's makers, with what is used, at each import.
    """
    modules: dict[str, Any] = sys.modules
    modules.setdefault("openvino_telemetry", None)  # whoever imports it is told that it is not there
    return importlib.import_module("openvino")
