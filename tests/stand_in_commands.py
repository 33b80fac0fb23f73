"""Stands in for ``python -m brats_fl_tools`` where a test is about who starts commands: writes what they would.

``STAND_IN_FAILS`` names the folder of a run that fails, ``STAND_IN_WAITS`` one that is trained to the half and waits.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

HEADER = "case,site,split,region,dice,hd95_mm,volume_ml,reference_volume_ml\n"
FACTS = {"bundle": "brats_unet", "profile": "small", "split": "testing", "model": "m", "seen_in_training": []}


def main() -> None:
    verb, out = sys.argv[1], Path(sys.argv[sys.argv.index("--out") + 1] if "--out" in sys.argv else sys.argv[2])
    print(f"{verb} {out.name}", flush=True)
    if os.environ.get("STAND_IN_FAILS") == out.name:
        print("error: hospital-1: a scan is missing", flush=True)
        sys.exit(1)
    out.mkdir(parents=True, exist_ok=True)
    if verb in ("simulate", "resume"):
        train(out, waits=os.environ.get("STAND_IN_WAITS") == out.name)
    else:
        evaluate(out)


def train(out: Path, waits: bool) -> None:
    if waits:
        (out / "workspace/server/simulate_job/app_server").mkdir(parents=True)
        (out / "workspace/server/simulate_job/app_server/FL_global_model.pt").touch()
        (out / "run.json").write_text(json.dumps({"state": "running"}), encoding="utf-8")
        time.sleep(60)
    (out / "run.json").write_text(json.dumps({"state": "finished"}), encoding="utf-8")


def evaluate(out: Path) -> None:
    (out / "evaluation.json").write_text(json.dumps(FACTS), encoding="utf-8")
    rows = [f"a,hospital-1,testing,{region},0.5,3.0,1.0,1.0\n" for region in ("tc", "wt", "et")]
    (out / "evaluation.csv").write_text(HEADER + "".join(rows), encoding="utf-8")


if __name__ == "__main__":
    main()
