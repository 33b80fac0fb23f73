"""Where the parts of this checkout lie: bundles, jobs and the apps that jobs share."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUNDLES = ROOT / "bundles"
JOBS = ROOT / "jobs"
APP_SERVER = ROOT / "app_server"
APP_CLIENT = ROOT / "app_client"
CUSTOM = ROOT / "custom"
POC_WORKSPACE = ROOT / "poc_workspace"
