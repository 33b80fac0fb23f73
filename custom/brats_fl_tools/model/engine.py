"""``--engine``: what computes the masks of `segment` and `evaluate`."""

from __future__ import annotations

from typing import Annotated

import typer

from brats_fl.network.engine_packages import PACKAGES, TORCH, check_engine


def known_engine(engine: str) -> str:
    """An engine that is installed.

    Raises:
        ModelError: It is not.
    """
    if engine not in PACKAGES:
        raise typer.BadParameter(f"--engine must be one of {', '.join(PACKAGES)} (got {engine!r})")
    check_engine(engine)
    return engine


EngineOption = Annotated[
    str,
    typer.Option(
        "--engine",
        help="torch; or onnx (ONNX Runtime) or openvino, on the CPU: the same masks but where a logit is 0.",
        callback=known_engine,
    ),
]


def engine_settings(engine: str, inferer: str) -> dict[str, str]:
    """What an engine sets in a bundle's configuration.

    Args:
        engine: One of ``PACKAGES``; of torch nothing is set.
        inferer: Key of the inferer in the configuration.
    """
    return {} if engine == TORCH else {f"{inferer}#engine": engine, "device": "$torch.device('cpu')"}
