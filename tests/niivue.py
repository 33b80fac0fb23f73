"""NiiVue's package, where somebody fetched it: it is not in the repository, and tests fetch nothing."""

import os
from pathlib import Path

import pytest

from brats_fl_tools.report.viewer import FETCH, NIIVUE
from brats_fl_tools.repository import ROOT

VARIABLE = "BRATS_FL_NIIVUE"
"""Where the package is, if it is not in the root of the repository."""


def niivue_package() -> Path:
    """The package; the test is skipped where there is none."""
    path = Path(os.environ.get(VARIABLE, ROOT / f"niivue-niivue-{NIIVUE}.tgz"))
    if not path.is_file():
        pytest.skip(f"no {path}: `{FETCH}` in {ROOT} writes it")
    return path
