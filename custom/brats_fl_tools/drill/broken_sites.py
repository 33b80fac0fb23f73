"""Sites that misbehave: code that a host runs before everything else and that breaks its own training.

The honest code knows nothing of it: Python runs a ``sitecustomize`` module that it finds on its path, and this one
replaces ``train_round`` in the site's trainer.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

CANARY: Final = "canary-7391"
"""Stands in every text that a broken site produces, and must not be found at the server."""

BODIES: Final[Mapping[str, str]] = {
    "raises": f'raise RuntimeError("{CANARY} /secret/path/case-001.nii.gz")',
    "nan": "return change(honest(training, task), lambda name, value: value * float('nan'))",
    "huge": "return change(honest(training, task), lambda name, value: value * 1e6)",
    "shapes": "return change(honest(training, task), lambda name, value: value[..., None])",
    "keys": f"""result = honest(training, task)
        first = next(iter(result.update))
        update = {{("{CANARY}" if name == first else name): value for name, value in result.update.items()}}
        return dataclasses.replace(result, payloads={{"weights": update}})""",
    "cases": """result = honest(training, task)
        return dataclasses.replace(result, statistics={**result.statistics, "cases": 10**9})""",
    "nonsense": f"""result = honest(training, task)
        stated = {{"steps": "{CANARY}", "train_seconds": ["{CANARY}"], "{CANARY}": "{CANARY}" * 100_000}}
        votes = {{"val_mean_dice": 1e6, "{CANARY} site=hospital-1": 0.5}}
        return dataclasses.replace(result, statistics={{**result.statistics, **stated}}, metrics=votes)""",
    "slow": """begin = time.monotonic()
        result = honest(training, task)
        time.sleep(9 * (time.monotonic() - begin))
        return result""",
}

TEMPLATE: Final = """import sys

if "brats_fl.trainer_process" in sys.orig_argv:
    import dataclasses
    import time

    import brats_fl.training

    honest = brats_fl.training.train_round

    def change(result, of):
        update = {{name: of(name, value) for name, value in result.update.items()}}
        return dataclasses.replace(result, payloads={{"weights": update}})

    def train_round(training, task):
        {body}

    brats_fl.training.train_round = train_round
"""

ALTERED_AFTER_SIGNING: Final = """import sys

if any(argument.endswith("brats-fl") for argument in sys.orig_argv):
    import pathlib

    import nvflare.lighter.utils as signing

    honest = signing.sign_folders

    def sign_folders(folder, *arguments, **keywords):
        honest(folder, *arguments, **keywords)
        for path in pathlib.Path(folder).rglob("config_fed_client.json"):
            path.write_text(path.read_text().replace('"seed": 0', '"seed": 1'))

    signing.sign_folders = sign_folders
"""


def write_fault(folder: Path, code: str) -> str:
    """Write the module; the value for ``PYTHONPATH`` on the host that is to run it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sitecustomize.py").write_text(code, encoding="utf-8")
    return str(folder)


def broken_training(kind: str) -> str:
    """Code of a site that breaks its training in a way of ``BODIES``."""
    return TEMPLATE.format(body=BODIES[kind])
