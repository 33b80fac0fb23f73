from __future__ import annotations

import json
import platform
from pathlib import Path

from brats_fl import machine
from brats_fl.machine import as_gpu, describe_machine


def test_machine_is_described_without_its_name() -> None:
    facts = describe_machine()

    assert facts["processor"]
    assert facts["cores"] >= 1
    assert facts["memory_gib"] > 0
    assert isinstance(facts["gpus"], list)
    assert platform.node() not in json.dumps(facts)


def test_processor_is_named_by_its_model_where_the_system_tells_it(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(machine, "CPU_FILE", tmp_path / "cpuinfo")
    (tmp_path / "cpuinfo").write_text(
        "processor\t: 0\nmodel name\t: Some CPU @ 2.0GHz\nmodel name\t: Some CPU @ 2.0GHz\n"
    )

    assert describe_machine()["processor"] == "Some CPU @ 2.0GHz"


def test_gpu_has_its_memory_in_gib() -> None:
    assert as_gpu("NVIDIA A100-PCIE-40GB, 40960") == "NVIDIA A100-PCIE-40GB, 40 GiB"
    assert as_gpu("Unified one, [N/A]") == "Unified one"


def test_machine_without_an_nvidia_driver_has_no_gpu(monkeypatch) -> None:
    monkeypatch.setattr(machine, "GPU_QUERY", ("no-such-command",))

    assert machine.find_gpus() == []
