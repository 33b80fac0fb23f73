"""The fault drill: each fault injected into a live federation of six hosts."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.integration.test_federation import CASES
from tests.tiny_sites import make_tiny_sites

from brats_fl_tools.drill.command import inject, small_disks
from brats_fl_tools.drill.faults import FAULTS
from brats_fl_tools.drill.federation import Drill
from brats_fl_tools.drill.hosts import hosts, why_no_hosts
from brats_fl_tools.drill.houses import HOSTS, SERVER_NAME
from brats_fl_tools.runs import host_federation as fed

REASON = why_no_hosts()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(REASON is not None, reason=f"no hosts on this machine: {REASON}"),
]


@pytest.fixture(scope="module")
def drill(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Drill]:
    """A federation of six hosts with kits from a provisioning; nothing of it is left afterwards."""
    root = tmp_path_factory.mktemp("drill")
    sites = make_tiny_sites(root / "sites", CASES)
    with hosts(root / "out", HOSTS, SERVER_NAME) as made, small_disks(root / "out"):
        federation = Drill(made, sites, tuple(FAULTS))
        try:
            federation.start()
            federation.wait_connected()
            yield federation
        finally:
            federation.stop()
            assert fed.processes(federation.federation) == []


@pytest.mark.parametrize("name", FAULTS)
def test_federation_survives(drill: Drill, name: str) -> None:
    result = inject(drill, name)

    assert result.passed, result.happened
    if result.skipped:
        pytest.skip(result.happened)
