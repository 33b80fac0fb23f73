from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from brats_fl import precision

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def forget_what_was_measured() -> Iterator[None]:
    measure = precision.cpu_bfloat16_pays
    measure.cache_clear()
    yield
    measure.cache_clear()


def pretend(monkeypatch: pytest.MonkeyPatch, capability: str, bf16: bool, seconds: dict[bool, float]) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: bf16)
    monkeypatch.setattr(precision, "_seconds", lambda kernel, patch, enabled: seconds[enabled])


@pytest.mark.parametrize(("capability", "bf16"), [("AVX2", True), ("DEFAULT", True), ("AVX512", False)])
def test_processor_without_bfloat16_instructions_is_not_even_timed(monkeypatch, capability, bf16):
    pretend(monkeypatch, capability, bf16, seconds={})  # timing would raise KeyError

    assert precision.cpu_bfloat16_pays() is False


@pytest.mark.parametrize(("seconds", "pays"), [(0.5, True), (0.79, True), (0.81, False), (2.0, False)])
def test_bfloat16_pays_when_it_takes_less_than_four_fifths_of_the_time(monkeypatch, seconds, pays):
    pretend(monkeypatch, "AVX512", True, seconds={True: seconds, False: 1.0})

    assert precision.cpu_bfloat16_pays() is pays


def dtype_inside(amp: bool) -> torch.dtype:
    with precision.autocast(CPU, amp):
        return torch.nn.Conv3d(1, 1, 1)(torch.ones(1, 1, 2, 2, 2)).dtype


@pytest.mark.parametrize(
    ("amp", "pays", "dtype"),
    [(True, True, torch.bfloat16), (True, False, torch.float32), (False, True, torch.float32)],
)
def test_forward_pass_is_bfloat16_only_where_it_is_wanted_and_pays(monkeypatch, amp, pays, dtype):
    monkeypatch.setattr(precision, "cpu_bfloat16_pays", lambda: pays)

    assert dtype_inside(amp) == dtype


def test_measuring_draws_no_random_number():
    torch.manual_seed(0)
    before = torch.get_rng_state()

    precision.cpu_bfloat16_pays()
    precision._seconds(torch.ones(1, 1, 3, 3, 3), torch.ones(1, 1, 4, 4, 4), False)

    assert torch.equal(torch.get_rng_state(), before)
