"""Computes the models of a run again, from the updates that were kept, and holds them to the ledger's digests."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from brats_fl.aggregation import capped_weights
from brats_fl.algorithms import Algorithm, Contribution, load_algorithm
from brats_fl.compression import Compression, as_it_arrives, check_compression, decompress
from brats_fl.digests import digest_of, digest_of_model
from brats_fl.errors import LedgerError
from brats_fl.exchange import WEIGHTS, Array, Payloads
from brats_fl.kept_updates import START_FILE, UPDATES_FOLDER, read_kept, update_file
from brats_fl.ledger import LEDGER_FILE, Line
from brats_fl.round_records import MEAN_PHASE
from brats_fl.running_mean import RunningMean
from brats_fl_tools.runs.folder import JOB_FOLDER


@dataclass
class Replay:
    """The server's side of a run, done again."""

    run: Path
    algorithm: Algorithm
    max_share: float
    model: dict[str, Array]
    state: Payloads = field(default_factory=dict)
    compression: Compression = "none"

    def repeat(self, line: Line) -> None:
        """Do a round.

        Raises:
            LedgerError: An update or the result is not the one that the ledger names; with the site or field.
            ModelError: An update is missing or damaged.
        """
        contributions = self._contributions(line)
        if any(record["phase"] == MEAN_PHASE and record["status"] != "ok" for record in line.records):
            for _ in contributions:  # each is held to its digest all the same
                pass
            change: Mapping[str, Array] = {name: np.zeros_like(value) for name, value in self.model.items()}
        else:
            change, self.state = self.algorithm.server_update(self.model, self.state, self._given(contributions))
        arrived = as_it_arrives(change, self.compression)
        self.model = {name: value + arrived[name] for name, value in self.model.items()}
        for name, digest in (("change", digest_of_model(change)), ("model", digest_of_model(self.model))):
            if digest != getattr(line, name):
                raise LedgerError(
                    f"round {line.round}: {name} is {digest[:16]}, the ledger has {getattr(line, name)[:16]}"
                )

    def _given(self, contributions: Iterable[Contribution]) -> list[Contribution]:
        """What the algorithm was given of them."""
        if not self.algorithm.needs_mean_only:
            return list(contributions)
        running = RunningMean(self.max_share)
        for part in contributions:
            running.add(part)
        return [running.take()]

    def _contributions(self, line: Line) -> Iterator[Contribution]:
        facts = {r["site"]: r for r in line.records if r["phase"] == "train" and r["status"] == "ok"}
        cases = {site: int(facts.get(site, {}).get("cases", 0)) for site in line.updates}
        weights = capped_weights(cases, self.max_share)
        for site in sorted(line.updates):
            payloads = read_kept(update_file(self.run / UPDATES_FOLDER, line.round or 0, site))
            if digest_of(payloads) != line.updates[site].digest:
                raise LedgerError(f"round {line.round}: the kept update of {site} is not the one that the ledger names")
            if self.compression != "none":
                payloads[WEIGHTS] = decompress(payloads[WEIGHTS], self.model, self.compression)
            steps = int(facts.get(site, {}).get("steps", 0))
            yield Contribution(site, cases[site], weights[site], steps, payloads)


def replay_run(run: Path, lines: Sequence[Line]) -> Iterator[str]:
    """Do all rounds of a run again; a line for each that came out as it was.

    Raises:
        LedgerError: No updates were kept, the ledger has no rounds, or a round comes out as another.
        ModelError: What was kept is damaged.
    """
    folder = run / UPDATES_FOLDER
    if not lines or lines[0].kind != "start":
        raise LedgerError(f"{run / LEDGER_FILE}: is not there, or has no beginning; see `brats-fl ledger verify {run}`")
    if not (folder / START_FILE).is_file():
        raise LedgerError(
            f"{run}: the server kept no updates, so that nothing can be computed again; a run keeps them with "
            "--set keep_updates=true"
        )
    replay = begin(run, lines[0], read_kept(folder / START_FILE)[WEIGHTS])
    for line in lines:
        if line.kind == "round":
            replay.repeat(line)
            yield f"round {line.round}: {len(line.updates)} updates give the model {line.model[:16]}"


def begin(run: Path, start: Line, model: dict[str, Array]) -> Replay:
    """The server as it was before the first round.

    Raises:
        LedgerError: The kept model is not the one that the ledger begins with.
        JobError: There is no such algorithm or compression.
    """
    if digest_of_model(model) != start.model:
        raise LedgerError(f"{START_FILE}: is not the model that the ledger begins with")
    settings: Mapping[str, Any] = start.settings
    code = run / JOB_FOLDER / Path(str(start.job.get("name"))).name / "app_server" / "custom"
    algorithm = load_algorithm(str(settings.get("algorithm")), settings.get("algorithm_settings") or {}, code)
    share = settings.get("max_share", 1.0)
    compression = check_compression(settings.get("compression", "none"))
    return Replay(run, algorithm, float(share), model, algorithm.server_state(model), compression)
