"""Where bundles, jobs, shared apps and the POC project lie: in this checkout, else where the wheel brought them."""

from __future__ import annotations

from pathlib import Path

from brats_fl.provenance import INSTALLED_BUNDLES, LIBRARY, installed_package

ROOT = Path(__file__).resolve().parents[2]
"""Root of the checkout, where there is one."""


def find_place(folder: str, package: str) -> Path:
    """A folder of the checkout that this module lies in, else the wheel's package of the same files."""
    in_checkout = ROOT / folder
    return in_checkout if (ROOT / "pyproject.toml").is_file() and in_checkout.is_dir() else installed_package(package)


BUNDLES = find_place("bundles", INSTALLED_BUNDLES)
JOBS = find_place("jobs", "brats_fl_jobs")
APP_SERVER = find_place("app_server", "brats_fl_app_server")
APP_CLIENT = find_place("app_client", "brats_fl_app_client")
POC_WORKSPACE = find_place("poc_workspace", "brats_fl_poc")
CUSTOM = LIBRARY.parent
"""Folder of the library, as a job brings it."""
