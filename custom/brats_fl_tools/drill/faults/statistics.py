"""A hospital that releases nonsense as its statistics."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final

from brats_fl.constants import SITES
from brats_fl.errors import StatisticsError
from brats_fl.round_records import read_records
from brats_fl_tools.drill.faults.searching import expect_nothing_leaked
from brats_fl_tools.drill.faults.verdicts import SITE, Fault, expect, expect_finished
from brats_fl_tools.drill.federation import Drill


def nonsense_released(drill: Drill) -> str:
    """Text, lists and numbers near the largest in place of a hospital's counts, sums and histograms."""
    with drill.broken({SITE: {"release": True}}):
        outcome = drill.run("nonsense-released", 0, job="brats_statistics", tiny=False)
    expect_finished(outcome)
    told = json.loads((outcome.run / "statistics.json").read_text(encoding="utf-8"))
    counted = {site for statistics in told.values() for sites in statistics.values() for site in sites}
    expect(SITE not in counted, f"what {SITE} released is in the statistics")
    missing = sorted({*SITES} - {SITE} - counted)
    expect(not missing, f"{', '.join(missing)} are missing from the statistics")
    codes = {record["status"] for record in read_records(outcome.run / "rounds.jsonl") if record["site"] == SITE}
    expect(StatisticsError.code in codes, f"the records say {', '.join(codes) or 'nothing'} of {SITE}")
    expect_nothing_leaked(drill)
    return f"{SITE}: {StatisticsError.code}; statistics of the 4 others, nothing of {SITE} in them"


FAULTS: Final[Mapping[str, Fault]] = {
    "nonsense-released": Fault("refused by the server, recorded; the others' statistics are made", nonsense_released),
}
