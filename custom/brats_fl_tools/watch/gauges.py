"""The same facts in Prometheus' text format, for those who have Grafana.

Format: https://prometheus.io/docs/instrumenting/exposition_formats, version 0.0.4.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from brats_fl_tools.watch.view import View

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
NAMESPACE: Final = "brats_fl"

Sample = tuple[Mapping[str, str], float]


def as_gauges(view: View) -> str:
    """One family after the other; what is not known is left out."""
    return "".join(
        f"{line}\n" for name, meaning, samples in _families(view) for line in _family(name, meaning, samples)
    )


def _families(view: View) -> Iterator[tuple[str, str, list[Sample]]]:
    sites = view.hospitals
    yield "running", "1 while the job runs", [({}, float(view.is_running))]
    yield "round", "Round that goes on, from 0 as in rounds.jsonl", [({}, view.round)]
    yield "rounds_done", "Rounds that are done", [({}, view.rounds_done)]
    yield "rounds", "Rounds that were asked for", _known(view.rounds)
    yield "seconds_left", "Seconds until the last round is done, at the pace so far", _known(view.seconds_left)
    yield "seconds_a_round", "Mean seconds of a round", _known(view.seconds_a_round)
    yield "rejected_updates", "Updates that did not come into the model", [({}, view.rejections)]
    yield (
        "site_state",
        "1 for the state that a hospital is in",
        [({"site": s.name, "state": s.state}, 1) for s in sites],
    )
    yield "site_round", "Last round that a hospital answered", _of_sites(view, "round")
    yield "site_dice", "Mean Dice of the last model on a hospital's validation cases", _of_sites(view, "dice")
    yield "site_loss", "Training loss of a hospital's last round", _of_sites(view, "loss")
    yield "site_seconds", "Seconds of a hospital's last round", _of_sites(view, "seconds")
    for way in ("down", "up"):
        yield f"site_bytes_{way}", f"Bytes {way} so far", _of_sites(view, f"bytes_{way}")


def _known(value: float | None) -> list[Sample]:
    return [] if value is None else [({}, value)]


def _of_sites(view: View, name: str) -> list[Sample]:
    values = ((one.name, getattr(one, name)) for one in view.hospitals)
    return [({"site": site}, value) for site, value in values if value is not None]


def _family(name: str, meaning: str, samples: list[Sample]) -> Iterator[str]:
    if samples:
        yield f"# HELP {NAMESPACE}_{name} {meaning}"
        yield f"# TYPE {NAMESPACE}_{name} gauge"
    for labels, value in samples:
        inside = ",".join(f'{key}="{_escape(text)}"' for key, text in labels.items())
        yield f"{NAMESPACE}_{name}{f'{{{inside}}}' if inside else ''} {value:.10g}"


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
