"""A contract that nothing enforces lets nothing out: asked by whatever answers for a site, before it does anything."""

from __future__ import annotations

from pathlib import Path

from nvflare.apis.fl_context import FLContext

from brats_fl.errors import EgressError
from brats_fl.files import is_there
from brats_fl.sharing.egress import CONTRACT_FILE, FILTER


def refuse_unfiltered(fl_ctx: FLContext) -> None:
    """Raise ``EgressError`` where a hospital has a contract and this process no component that holds a reply to it.

    ``local/privacy.json``, which has FLARE build it, may be lost, or be written over by that of another provisioning.
    """
    engine = fl_ctx.get_engine()
    contract = Path(engine.get_workspace().get_site_config_dir()) / CONTRACT_FILE
    if is_there(contract) and engine.get_component(FILTER) is None:
        raise EgressError(
            f"{contract}: no component of this site holds what leaves to it ({FILTER} of privacy.json beside it is not "
            "there), so nothing leaves; run `brats-fl kit setup`, then `brats-fl kit check`"
        )
