"""Named payloads as FLARE sends them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from nvflare.apis.dxo import DXO, DataKind, from_shareable
from nvflare.app_common.filters.exclude_vars import ExcludeVars
from tests.flare import Engine, as_sent

from brats_fl.components.exchange import as_dxo, payloads_of
from brats_fl.errors import ModelError

WEIGHTS = {"w": np.ones(2, np.float32)}
CONTROL = {"w": np.full(2, 5.0, np.float32)}


def through_the_wire(dxo: DXO) -> DXO:
    from nvflare.fuel.utils import fobs

    return from_shareable(fobs.loads(as_sent(dxo.to_shareable())))


def test_weights_alone_are_a_dxo_as_flare_sends_it():
    dxo = as_dxo({"weights": WEIGHTS}, DataKind.WEIGHT_DIFF, {"cases": 3})

    assert (dxo.data_kind, dxo.get_meta_prop("cases")) == (DataKind.WEIGHT_DIFF, 3)
    assert list(dxo.data) == ["w"]


def test_several_payloads_come_back_as_they_were_sent_with_the_meta_of_the_whole():
    sent = as_dxo({"weights": WEIGHTS, "control": CONTROL}, DataKind.WEIGHT_DIFF, {"cases": 3})

    received = through_the_wire(sent)

    payloads = payloads_of(received, DataKind.WEIGHT_DIFF)
    assert {name: arrays["w"].tolist() for name, arrays in payloads.items()} == {
        "weights": [1.0, 1.0],
        "control": [5.0, 5.0],
    }
    assert received.get_meta_prop("cases") == 3


def test_flares_filters_see_each_payload_of_a_collection(tmp_path):
    weights, control = ({"head": np.ones(1), "body": np.ones(1)} for _ in range(2))
    sent = as_dxo({"weights": weights, "control": control}, DataKind.WEIGHT_DIFF).to_shareable()

    filtered = ExcludeVars(exclude_vars="^head$").process(sent, Engine(tmp_path, "hospital-1").new_context())

    payloads = payloads_of(from_shareable(filtered), DataKind.WEIGHT_DIFF)
    assert {name: sorted(arrays) for name, arrays in payloads.items()} == {"weights": ["body"], "control": ["body"]}


@pytest.mark.parametrize(
    "bad",
    [
        DXO(DataKind.WEIGHTS, data=dict(WEIGHTS)),
        DXO(DataKind.COLLECTION, data={"control": DXO(DataKind.WEIGHTS, data=dict(CONTROL))}),
        DXO(DataKind.COLLECTION, data={"weights": dict(WEIGHTS)}),
        DXO(DataKind.COLLECTION, data={"weights": DXO(DataKind.WEIGHT_DIFF, data=dict(WEIGHTS)), "control": 3}),
    ],
)
def test_message_that_holds_no_update_is_refused(bad: Any):
    with pytest.raises(ModelError):
        payloads_of(bad, DataKind.WEIGHT_DIFF)
