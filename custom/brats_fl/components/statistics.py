"""FLARE's federated statistics over what each hospital releases: ``brats_fl.sharing.site_statistics``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from nvflare.apis.dxo import from_shareable
from nvflare.apis.filter import Filter
from nvflare.apis.fl_constant import ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable
from nvflare.apis.signal import Signal
from nvflare.app_common.abstract.statistics_spec import Bin, DataType, Feature, Histogram, HistogramType, Statistics
from nvflare.app_common.app_constant import StatisticsConstants
from nvflare.app_common.executors.statistics.statistics_executor import StatisticsExecutor
from nvflare.fuel.utils import fobs

from brats_fl.cases.datalists import find_datalist
from brats_fl.components.bundle_location import check_code
from brats_fl.components.contract_in_force import refuse_unfiltered
from brats_fl.components.executor import failure
from brats_fl.errors import BratsFLError, JobError, StatisticsError
from brats_fl.files import is_there
from brats_fl.numbers import is_finite
from brats_fl.privacy.budget import find_budget
from brats_fl.round_records import MOST
from brats_fl.sharing.case_features import FEATURES, feature_of
from brats_fl.sharing.site_statistics import Release, read_protection, released

DATASET = "cases"

EPSILON_HEADER: Final = "brats_fl_epsilon"
"""Of an answer: how much noise is in it. It is a setting, not a figure of a case, and costs no privacy."""

TOLD: Final = frozenset(name for names in StatisticsConstants.ordered_statistics.values() for name in names)
"""Names of FLARE's statistics."""


class SiteStatistics(Statistics):
    """Answers FLARE's questions from the hospital's release, and from nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self.release: Release | None = None

    def prepare(self, datalist: Path, budget: Path | None = None) -> None:
        """Make or find the release; raises as ``released``."""
        if self.release is None:
            self.release = released(datalist, read_protection(), budget)

    @property
    def given(self) -> Release:
        """The release; ``JobError`` before ``prepare``: the job has another executor than ours."""
        if self.release is None:
            raise JobError("statistics were asked for before the hospital's release was made; build the job again")
        return self.release

    def features(self) -> dict[str, list[Feature]]:
        """Names of what is counted."""
        return {DATASET: [Feature(feature.name, DataType.FLOAT) for feature in FEATURES]}

    def count(self, dataset_name: str, feature_name: str) -> int:
        """Noised number of cases, at least 1."""
        return max(1, round(self.given.count))

    def mean(self, dataset_name: str, feature_name: str) -> float:
        """Mean over cases."""
        return self.given.mean(feature_of(feature_name))

    def sum(self, dataset_name: str, feature_name: str) -> float:
        """Sum over cases."""
        return self.mean(dataset_name, feature_name) * self.count(dataset_name, feature_name)

    def stddev(self, dataset_name: str, feature_name: str) -> float:
        """Standard deviation."""
        return self.given.deviation(feature_of(feature_name))

    def variance_with_mean(
        self, dataset_name: str, feature_name: str, global_mean: float, global_count: float
    ) -> float:
        """The hospital's part of the variance over all hospitals."""
        feature = feature_of(feature_name)
        own = self.given.deviation(feature) ** 2 + (self.given.mean(feature) - global_mean) ** 2
        return self.count(dataset_name, feature_name) * own / max(global_count - 1, 1)

    def histogram(
        self, dataset_name: str, feature_name: str, num_of_bins: int, global_min_value: float, global_max_value: float
    ) -> Histogram:
        """The noised histogram; ``JobError`` where the job asks for other bins than those there are."""
        feature = feature_of(feature_name)
        if (num_of_bins, global_min_value, global_max_value) != (feature.bins, feature.low, feature.high):
            raise JobError(
                f"{feature_name} has {feature.bins} bins from {feature.low} to {feature.high}; the job asks for "
                f"{num_of_bins} from {global_min_value} to {global_max_value}: a site does not count anew for a job"
            )
        edges = feature.edges.tolist()
        bins = zip(edges[:-1], edges[1:], self.given.histograms[feature_name], strict=True)
        return Histogram(HistogramType.STANDARD, [Bin(low, high, count) for low, high, count in bins])


class SiteStatisticsExecutor(StatisticsExecutor):
    """FLARE's executor with a release made first; what goes wrong leaves the site as a code.

    Args:
        generator_id: Id of the ``SiteStatistics``.
        required_code: What must be installed where the job brings no code; see ``brats_fl.provenance``.
    """

    def __init__(self, generator_id: str, required_code: Mapping[str, str] | None = None) -> None:
        super().__init__(generator_id)
        self.required_code = required_code

    def execute(self, task_name: str, shareable: Shareable, fl_ctx: FLContext, abort_signal: Signal) -> Shareable:
        """Answer a task of FLARE's statistics controller, which goes on without a site that answers with an error."""
        try:
            refuse_unfiltered(fl_ctx)
            check_code(self.required_code, fl_ctx)
            site, engine = fl_ctx.get_identity_name(), fl_ctx.get_engine()
            kit = Path(engine.get_workspace().get_root_dir())
            datalist, budget = find_datalist(site, kit), find_budget(site, kit)
            statistics = engine.get_component(self.generator_id)
            statistics.prepare(datalist, budget if is_there(budget) else None)
        except BratsFLError as error:
            text, code = str(error), error.code
        except Exception as error:
            text, code = repr(error), "EXECUTION_EXCEPTION"
        else:
            answer = super().execute(task_name, shareable, fl_ctx, abort_signal)
            answer.set_header(EPSILON_HEADER, statistics.given.epsilon)
            return answer
        self.log_error(fl_ctx, f"{task_name} failed: {text}", fire_event=False)
        return failure(code, ReturnCode.EXECUTION_RESULT_ERROR)


class ReleaseFilter(Filter):
    """At the server: an answer that is no statistics is a failure of the site, and the job goes on without it.

    FLARE's controller adds up whatever a site states: a text ends the job, and is written into the log.
    """

    def process(self, shareable: Shareable, fl_ctx: FLContext) -> Shareable:
        """The answer, or a failure in its place."""
        if shareable.get_return_code() not in (None, ReturnCode.OK):
            return shareable
        try:
            check_answer(from_shareable(shareable).data)
        except Exception as error:  # of what a site sends, FLARE's reader raises whatever it likes
            reason = str(error) if isinstance(error, StatisticsError) else type(error).__name__
            peer = fl_ctx.get_peer_context()
            self.log_error(fl_ctx, f"statistics of {peer.get_identity_name() if peer else '?'} are refused: {reason}")
            return failure(StatisticsError.code, ReturnCode.EXECUTION_RESULT_ERROR)
        return shareable


def check_answer(data: Mapping[str, Any]) -> None:
    """Refuse what is not of the form and the size of statistics; what a site states does not stand in the message.

    Args:
        data: Of a site's answer to a task of FLARE's statistics controller.

    Raises:
        StatisticsError: It is none.
    """
    task = data[StatisticsConstants.STATISTICS_TASK_KEY]
    if task not in StatisticsConstants.ordered_statistics:
        raise StatisticsError("they answer no task of the job")
    features = data.get(StatisticsConstants.STATS_FEATURES)
    if features is not None:
        _check_names(fobs.loads(features), {DATASET})
    for statistic, told in fobs.loads(data[task]).items():
        if statistic not in TOLD:
            raise StatisticsError("they hold another statistic than those of the job")
        _check_names(told, {DATASET})
        _check_names(told[DATASET], {feature.name for feature in FEATURES})
        if not all(_is_told(statistic, name, value) for name, value in told[DATASET].items()):
            raise StatisticsError(f"their {statistic} is no plausible number or histogram")


def _check_names(told: Any, known: set[str]) -> None:
    if not isinstance(told, Mapping) or not set(told) <= known:
        raise StatisticsError("they name other data than the job asks for")


def _is_told(statistic: str, name: str, value: Any) -> bool:
    if statistic != StatisticsConstants.STATS_HISTOGRAM:
        return value is None or (is_finite(value) and abs(value) <= MOST)
    edges = feature_of(name).edges
    if not isinstance(value, Histogram) or not isinstance(value.bins, list) or len(value.bins) != len(edges) - 1:
        return False
    numbers = [number for part in value.bins for number in (part.low_value, part.high_value, part.sample_count)]
    if not all(is_finite(number) and abs(number) <= MOST for number in numbers):
        return False
    lows, highs = ([getattr(part, end) for part in value.bins] for end in ("low_value", "high_value"))
    return bool(np.allclose(lows, edges[:-1]) and np.allclose(highs, edges[1:]))
