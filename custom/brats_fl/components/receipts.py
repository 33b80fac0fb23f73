"""A site's receipt: what it received and what it sent in a round, signed by its FLARE key, kept and sent along.

It is made after all filters, of what leaves. Without certificates, as in the simulator, there is none.
"""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
from nvflare.apis.dxo import DXO, DataKind, MetaKey, from_shareable
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable

from brats_fl.aggregation import count_of_cases
from brats_fl.components.exchange import payloads_of
from brats_fl.digests import digest_of
from brats_fl.exchange import MASKED, Payloads
from brats_fl.ledger import LEDGER_FILE, Receipt, Signed, receipt_bytes
from brats_fl.own_ledger import keep_receipt
from brats_fl.signatures import find_signer

RECEIPT_HEADER = "brats_fl_receipt"
"""Header of an update: the receipt, its signature and the site's certificate."""


def sent_in(dxo: DXO) -> Payloads:
    """What an update holds, plain or masked; the server's ledger and the site's receipt ask here alike.

    Raises:
        ModelError: It is no update.
    """
    if dxo.data_kind == DataKind.APP_DEFINED and set(dxo.data) == {MASKED}:
        return {MASKED: {"words": np.asarray(dxo.data[MASKED])}}
    return payloads_of(dxo, DataKind.WEIGHT_DIFF)


def add_receipt(result: Shareable, received: Payloads, round_index: int, fl_ctx: FLContext) -> None:
    """Put the site's receipt into the header of an update, and keep it in the kit.

    Args:
        result: An update, as it leaves.
        received: What the site was sent.
        round_index: Of the round.
        fl_ctx: Of the task.

    Raises:
        ModelError: What it states as its cases is no number of cases: the site's own ledger would not be read again.
        KitError: The site's key cannot be used.
        LedgerError: The site's own ledger is damaged.
        OSError: It cannot be written.
    """
    workspace = fl_ctx.get_engine().get_workspace()
    signer = find_signer(Path(workspace.get_startup_kit_dir()))
    if signer is None:
        return
    dxo = from_shareable(result)
    receipt = Receipt(
        job=str(fl_ctx.get_job_id()),
        site=str(fl_ctx.get_identity_name()),
        round=round_index,
        received=digest_of(received),
        sent=digest_of(sent_in(dxo)),
        cases=count_of_cases(dxo.get_meta_prop(MetaKey.NUM_STEPS_CURRENT_ROUND)),
        time=datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )
    signed = Signed(receipt, signer.sign(receipt_bytes(receipt)), signer.certificate)
    keep_receipt(Path(workspace.get_site_config_dir()) / LEDGER_FILE, receipt)
    result.set_header(RECEIPT_HEADER, asdict(signed))
