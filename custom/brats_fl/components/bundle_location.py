"""Where a job's bundle lies."""

from __future__ import annotations

from pathlib import Path

from nvflare.apis.fl_constant import FLContextKey
from nvflare.apis.fl_context import FLContext

from brats_fl.errors import JobError


def locate_bundle(name: str, fl_ctx: FLContext) -> Path:
    """Root of the bundle that came with the job, in ``custom/bundles`` of the running app.

    Raises:
        JobError: The job holds no such bundle.
    """
    app_root = Path(str(fl_ctx.get_prop(FLContextKey.APP_ROOT)))
    bundle = app_root / "custom" / "bundles" / name
    if not (bundle / "configs" / "train.json").is_file():
        raise JobError(f"the job holds no bundle {name!r}; build it with `brats-fl job build` ({bundle})")
    return bundle
