"""Where a job's bundle lies: in the job, or installed at the site."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from nvflare.apis.fl_constant import FLContextKey
from nvflare.apis.fl_context import FLContext

from brats_fl.provenance import check_library, find_bundle


def app_root(fl_ctx: FLContext) -> Path:
    """Folder of the running app; FLARE renames it at each site."""
    return Path(str(fl_ctx.get_prop(FLContextKey.APP_ROOT)))


def locate_bundle(name: str, required: Mapping[str, str] | None, fl_ctx: FLContext) -> Path:
    """Root of the job's bundle, once the code that runs is known to be the job's; see ``find_bundle``."""
    return find_bundle(name, app_root(fl_ctx), required or {})


def check_code(required: Mapping[str, str] | None, fl_ctx: FLContext) -> None:
    """Raise ``CodeMismatchError`` unless the library that runs is the job's; see ``check_library``."""
    check_library(app_root(fl_ctx) / "custom", required or {})
