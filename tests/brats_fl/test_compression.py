"""Weights in fewer bytes: what comes back, what is refused, and how far off it may be."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from brats_fl.compression import (
    BLOCK,
    COMPRESSIONS,
    STEPS,
    Compression,
    as_it_arrives,
    check_compression,
    compress,
    decompress,
    dequantise,
    quantise,
    share_of_bytes,
)
from brats_fl.errors import JobError, ModelError


def floats(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def packed(scales: list[float], values: list[int]) -> np.ndarray:
    return np.concatenate([np.array(scales, "<f4").view(np.int8), np.array(values, np.int8)])


def test_values_become_steps_of_the_largest_of_their_block_by_127_rounded_to_the_nearest():
    sent = quantise(floats(127.0, -127.0, 2.4, 2.6, 0.0))

    assert sent.tolist() == packed([1.0], [127, -127, 2, 3, 0]).tolist()
    assert dequantise(sent, (5,)).tolist() == [127.0, -127.0, 2.0, 3.0, 0.0]


def test_each_block_of_256_has_a_scale_of_its_own_and_zeros_stay_zero():
    values = np.concatenate([np.full(BLOCK, 254.0), np.zeros(BLOCK), np.full(3, -0.5 * STEPS)]).astype(np.float32)

    sent = quantise(values)

    assert sent.shape == (3 * 4 + 515,)
    assert sent[:12].view("<f4").tolist() == [2.0, 0.0, 0.5]
    assert dequantise(sent, values.shape).tolist() == values.tolist()


def test_shape_comes_back_and_the_last_block_may_be_short():
    values = np.arange(300, dtype=np.float32).reshape(3, 100)

    arrived = dequantise(quantise(values), (3, 100))

    assert (arrived.dtype, arrived.shape) == (np.float32, (3, 100))
    # Blocks of 0 to 255 and of 256 to 299: off by no more than half a step.
    assert np.abs(arrived - values).ravel()[:256].max() <= 255 / 254
    assert np.abs(arrived - values).ravel()[256:].max() <= 299 / 254


@given(
    arrays.arrays(
        np.float32,
        arrays.array_shapes(max_dims=3, max_side=20),
        elements=st.floats(-(2.0**100), 2.0**100, width=32),
    )
)
def test_no_value_is_off_by_more_than_a_254th_of_the_largest_of_its_block(values: np.ndarray):
    arrived = dequantise(quantise(values), values.shape)

    for start in range(0, values.size, BLOCK):
        block, got = (x.ravel()[start : start + BLOCK].astype(np.float64) for x in (values, arrived))
        largest = np.abs(block).max()
        # 1e-5: a scale, a quotient and a product are rounded to float32. Below 1.5e-36 a block counts as zero.
        assert np.abs(got - block).max() <= largest / 254 * (1 + 1e-5 * 254) + 1.5e-36


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("compression", ["int8", "float16"])
def test_values_that_are_not_finite_are_refused_by_the_name_of_their_array(bad: float, compression: Compression):
    with pytest.raises(ModelError, match=r"conv\.weight: it holds NaN or"):
        compress({"ok": floats(1, 2, 3), "conv.weight": floats(1, bad, 3)}, compression)


def test_value_beyond_float16_is_refused_and_int8_is_named():
    with pytest.raises(ModelError, match="w: it holds NaN or a value above 65,504, the largest of float16; use int8"):
        compress({"w": floats(70_000.0)}, "float16")


def test_single_value_travels_whole_where_its_scale_would_make_it_longer():
    weights = {"prelu": floats(0.25), "two": floats(127.0, 1.0)}

    sent = compress(weights, "int8")

    assert {name: (value.dtype.name, value.nbytes) for name, value in sent.items()} == {
        "prelu": ("float32", 4),
        "two": ("int8", 6),
    }
    assert {name: value.tolist() for name, value in decompress(sent, weights, "int8").items()} == {
        "prelu": [0.25],
        "two": [127.0, 1.0],
    }


def test_float16_takes_half_the_bytes_and_comes_back_as_float32():
    weights = {"w": floats(0.1, -2.0)}

    sent = compress(weights, "float16")

    assert sent["w"].nbytes == 4
    assert decompress(sent, weights, "float16")["w"].tolist() == [float(np.float16(0.1)), -2.0]


def test_without_compression_weights_are_the_same_arrays():
    weights = {"w": floats(0.1)}

    assert compress(weights, "none") is weights
    assert as_it_arrives(weights, "none") is weights


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_share_of_the_bytes_is_that_of_a_large_array(compression: Compression):
    values = np.ones((16, BLOCK), np.float32)

    assert compress({"w": values}, compression)["w"].nbytes == share_of_bytes(compression) * values.nbytes


def test_1024_bytes_become_260():
    assert quantise(np.ones(BLOCK, np.float32)).nbytes == 260


LIKE = {"conv.weight": np.zeros((2, 2), np.float32), "prelu": floats(0.25)}
GOOD = compress({"conv.weight": np.ones((2, 2), np.float32), "prelu": floats(0.5)}, "int8")
HOSTILE = {
    "another dtype": np.zeros(8, np.uint8),
    "floats": np.zeros((2, 2), np.float32),
    "too short": np.zeros(7, np.int8),
    "too long": np.zeros(9, np.int8),
    "another number of scales": packed([1.0, 1.0], [1, 1, 1, 1]),
    "of two dimensions": np.zeros((2, 4), np.int8),
    # As large as memory, and none of it is there: it must be refused before anything is made of it.
    "huge": np.broadcast_to(np.int8(0), (2**60,)),
    "NaN as a scale": packed([float("nan")], [1, 1, 1, 1]),
    "infinite scale": packed([float("inf")], [1, 1, 1, 1]),
    "scale that makes values infinite": packed([3e38], [1, 1, 1, 127]),
    "scale below zero": packed([-1.0], [1, 1, 1, 1]),
    "-128": packed([1.0], [1, 1, 1, -128]),
    "objects": np.array([None] * 8),
    "no array": [0] * 8,
    "nothing": None,
}


@pytest.mark.parametrize("what", HOSTILE)
def test_array_that_is_none_of_the_network_is_refused_by_its_name(what: str):
    with pytest.raises(ModelError, match=r"conv\.weight (is|has|holds)"):
        decompress({**GOOD, "conv.weight": HOSTILE[what]}, LIKE, "int8")


@pytest.mark.parametrize(("name", "value"), [("prelu", floats(1.0).astype(np.float64)), ("conv.weight", floats(1, 2))])
def test_array_that_travels_whole_or_as_float16_is_typed_as_well(name: str, value: np.ndarray):
    compression: Compression = "int8" if name == "prelu" else "float16"
    with pytest.raises(ModelError, match=f"{name} is float"):
        decompress({**compress(LIKE, compression), name: value}, LIKE, compression)


def test_float16_that_is_not_finite_is_refused():
    sent: dict[str, Any] = {**compress(LIKE, "float16"), "conv.weight": np.full((2, 2), np.inf, np.float16)}

    with pytest.raises(ModelError, match=r"conv\.weight holds NaN or infinite values"):
        decompress(sent, LIKE, "float16")


@pytest.mark.parametrize("arrays", [{"prelu": GOOD["prelu"]}, {**GOOD, "secret": floats(1.0)}])
def test_names_that_are_not_the_networks_are_counted_and_not_shown(arrays: dict[str, Any]):
    with pytest.raises(ModelError, match=r"keys differ from the network's: [01] missing, [01] unknown") as refused:
        decompress(arrays, LIKE, "int8")

    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("word", ["int4", "", 8, None])
def test_word_that_is_no_compression_is_refused_with_those_that_are(word: Any):
    with pytest.raises(JobError, match="compression must be one of none, float16, int8"):
        check_compression(word)
