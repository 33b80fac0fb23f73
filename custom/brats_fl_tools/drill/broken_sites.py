"""How what runs on a host is broken: a module that Python runs before everything else, and a plan beside it.

The honest code knows nothing of it: Python runs a ``sitecustomize`` module that it finds on its path. Every host has
one; it does nothing where there is no plan, so that a fault needs no restart of a hospital.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from brats_fl.files import write_whole

HARNESS_FILE: Final = "sitecustomize.py"
PLAN_FILE: Final = "plan.json"

HARNESS: Final = f"""import pathlib

if (plan := pathlib.Path(__file__).with_name("{PLAN_FILE}")).is_file():
    from brats_fl_tools.drill.injected import break_process

    break_process(plan)
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

EDITED_BEFORE_SIGNING: Final = """import sys

if any(argument.endswith("brats-fl") for argument in sys.orig_argv):
    import json
    import pathlib

    import nvflare.lighter.utils as signing

    honest = signing.sign_folders

    def sign_folders(folder, *arguments, **keywords):
        for path in pathlib.Path(folder).rglob("config_fed_client.json"):
            config = json.loads(path.read_text())
            path.write_text(json.dumps({{**config, "overrides": {{**config["overrides"], **{edits!r}}}}}))
        honest(folder, *arguments, **keywords)

    signing.sign_folders = sign_folders
"""
"""A lead who edits what was built and signs it properly; ``edits`` are settings of the bundle."""


def write_fault(folder: Path, code: str) -> str:
    """Write code that runs before everything else; the value for ``PYTHONPATH`` of what is to run it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / HARNESS_FILE).write_text(code, encoding="utf-8")
    return str(folder)


def write_harness(folder: Path) -> str:
    """Write the module that breaks a process where there is a plan; the value for ``PYTHONPATH``."""
    return write_fault(folder, HARNESS)


def write_plan(folder: Path, plan: Mapping[str, Any]) -> None:
    """Have processes that are started from now on broken; see ``injected.break_process`` for what a plan says."""
    write_whole(folder / PLAN_FILE, json.dumps(plan))


def remove_plan(folder: Path) -> None:
    """Have processes that are started from now on left alone."""
    (folder / PLAN_FILE).unlink(missing_ok=True)
