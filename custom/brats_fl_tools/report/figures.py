"""The report's diagrams: learning curves, Dice per case, time and bytes per round."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from brats_fl.constants import KEY_METRIC, REGIONS
from brats_fl_tools.pages.diagrams import Diagram, paint_strips, stack_bars
from brats_fl_tools.pages.formats import REGION_NAMES, format_count, format_difference
from brats_fl_tools.pages.svg import INK, MARKERS, MUTED, PALETTE, SURFACE, draw, legend_below
from brats_fl_tools.report.curves import (
    Curve,
    Trend,
    gap_curve,
    late_trend,
    mean_curve,
    metric_curves,
    region_curves,
    site_curves,
)
from brats_fl_tools.report.participants import invited_sites, train_rounds
from brats_fl_tools.report.ranking import FEWEST_FOR_RANK
from brats_fl_tools.report.run_folder import VALIDATION_SPLIT, RunFolder
from brats_fl_tools.report.timing import WORK, RoundTime, round_times


def learning_curves(run: RunFolder) -> list[Diagram]:
    """Validation Dice per hospital and region, its gap, and training loss; those that have figures."""
    dice = metric_curves(run, KEY_METRIC)
    regions = region_curves(run)
    loss = site_curves(run, lambda record: record.loss)
    diagrams = []
    if dice:
        caption = (
            "Each point is the global model as the hospital received it, on the hospital's own validation "
            "cases; the last point is the final model. Thick: the mean of the hospitals that reported."
        ) + describe_trend(late_trend(mean_curve(dice)))
        painter = _curve_painter({**dice, "mean": mean_curve(dice)}, run, "Mean Dice", best=True)
        diagrams.append(_diagram("dice", "Validation Dice of the global model", caption, dice, painter))
    if any(regions.values()):
        caption = "The same, one line a region: the mean of the hospitals that reported."
        painter = _curve_painter({REGION_NAMES[name]: curve for name, curve in regions.items()}, run, "Dice")
        diagrams.append(_diagram("regions", "Validation Dice per region", caption, regions, painter))
    enough = {site: curve for site, curve in dice.items() if _validation_cases(run, site) >= FEWEST_FOR_RANK}
    gap = {"best less lowest": gap_curve(enough)}
    if gap["best less lowest"]:
        caption = (
            "Best less lowest of the hospitals in the first diagram that have at least "
            f"{format_count(FEWEST_FOR_RANK, 'validation case')}: small means that the model serves them alike."
        )
        painter = _curve_painter(gap, run, "Difference in mean Dice")
        diagrams.append(_diagram("gap", "Validation gap between hospitals", caption, gap, painter))
    if loss:
        caption = "Mean loss of the local training in each round; no point where the hospital was missing."
        painter = _curve_painter(loss, run, "Loss", unit_range=False)
        diagrams.append(_diagram("loss", "Training loss", caption, loss, painter))
    return diagrams


def describe_trend(trend: Trend | None) -> str:
    """Whether more rounds would pay, in a sentence behind a caption."""
    if trend is None:
        return ""
    moved = (
        f" Over the last {trend.rounds} rounds the mean lies {format_difference(trend.gain, 'dice')} from that of the "
        f"{trend.rounds} before"
    )
    if trend.still_rises:
        return f"{moved}, more than it moves by chance from round to round ({trend.noise:.3f}): more rounds may pay."
    return (
        f"{moved}, and moves by {trend.noise:.3f} by chance: it is level at its end. A longer run is another one: its "
        "learning rate falls more slowly."
    )


def _validation_cases(run: RunFolder, site: str) -> int:
    return run.counts.get(site, {}).get(VALIDATION_SPLIT) or 0


def _diagram(
    name: str, title: str, caption: str, curves: Mapping[str, Curve], paint: Callable[[Axes], None]
) -> Diagram:
    ends = "; ".join(f"{key} {curve[0][1]:.3f} to {curve[-1][1]:.3f}" for key, curve in curves.items() if curve)
    return Diagram(draw(name, f"{title} over the rounds, first to last: {ends}", paint), title, caption)


def _curve_painter(
    curves: Mapping[str, Curve], run: RunFolder, label: str, *, unit_range: bool = True, best: bool = False
) -> Callable[[Axes], None]:
    def paint(axes: Axes) -> None:
        for index, (name, curve) in enumerate(curves.items()):
            rounds, values = _with_gaps(curve)
            if name == "mean":
                axes.plot(rounds, values, color=INK, linewidth=3, label=name, zorder=1.9)  # under the others
                continue
            colour, marker = (
                PALETTE[index % len(PALETTE)],
                MARKERS[index % len(MARKERS)] if len(rounds) <= 40 else "",
            )
            dashes = "-" if index < len(PALETTE) else "--"
            axes.plot(rounds, values, dashes, color=colour, marker=marker, label=name, markeredgecolor=SURFACE)
        if best and isinstance(chosen := run.info.get("best_round"), int) and not isinstance(chosen, bool):
            axes.axvline(chosen, color=MUTED, linestyle=":", label="best on validation", zorder=1)
        axes.set_xlabel("Round")
        axes.set_ylabel(label)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if unit_range:
            axes.set_ylim(0, max(1e-6, min(1.0, _ceiling(curves))))
        legend_below(axes)

    return paint


def _ceiling(curves: Mapping[str, Curve]) -> float:
    highest = max((number for curve in curves.values() for _, number in curve), default=1.0)
    return float(np.ceil(highest * 10 + 0.5) / 10)


def _with_gaps(curve: Curve) -> tuple[list[int], list[float]]:
    """A curve with a NaN behind each value whose next round has none, so that the line breaks there."""
    points = dict(curve)
    # Not every round from the first to the last: a record may hold any number.
    rounds = sorted({*points, *(at + 1 for at in points if at < max(points))})
    return rounds, [points.get(at, float("nan")) for at in rounds]


def case_strips(run: RunFolder) -> list[Diagram]:
    """Dice of every case of the run's split by hospital, for the mean and for each region."""
    return [_case_strip(run, column) for column in ("mean", *REGIONS)]


def _case_strip(run: RunFolder, column: str) -> Diagram:
    values = {
        site: [result.value("dice", column) for result in run.scored(run.split) if result.site == site]
        for site in run.sites
    }
    values = {site: numbers for site, numbers in values.items() if numbers}

    def paint(axes: Axes) -> None:
        paint_strips(axes, values)
        axes.set_ylim(-0.03, 1.03)
        axes.set_ylabel("Dice")

    summary = "; ".join(
        f"{site}: {format_count(len(numbers), 'case')} from {min(numbers):.2f} to {max(numbers):.2f}, "
        f"median {np.median(numbers):.2f}"
        for site, numbers in values.items()
    )
    title = f"Dice per {run.case_noun}: {REGION_NAMES[column]}"
    caption = "A point is a case. The box spans the middle half, its bar is the median."
    return Diagram(draw(f"strip-{column}", f"{title}. {summary}", paint), title, caption)


def cost_diagrams(run: RunFolder) -> list[Diagram]:
    """Time per round, time per hospital and bytes per round; only those with data."""
    times = round_times(run)
    diagrams = []
    if times:
        by_round = {number: [time for time in times if time.round == number] for number in train_rounds(run)}
        diagrams.append(_round_diagram({number: entries for number, entries in by_round.items() if entries}))
        diagrams.append(_site_diagram({s: [time for time in times if time.site == s] for s in invited_sites(run)}))
    if any(record.bytes_down or record.bytes_up for record in run.records):
        diagrams.append(_bytes_diagram(run))
    return diagrams


def _round_diagram(by_round: Mapping[int, Sequence[RoundTime]]) -> Diagram:
    stacks = {
        part: [float(np.mean([getattr(time, part) for time in times])) for times in by_round.values()] for part in WORK
    }

    def paint(axes: Axes) -> None:
        stack_bars(axes, list(by_round), stacks, WORK)
        axes.set_xlabel("Round")
        axes.set_ylabel("Seconds")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        legend_below(axes, columns=2)

    title = "Time per round"
    caption = (
        "Mean over the hospitals that answered; the height is the slowest hospital's round. "
        "Waiting is the time until the slowest is done."
    )
    return Diagram(draw("time-round", f"{title}, mean seconds: {_shares(stacks)}", paint), title, caption)


def _site_diagram(by_site: Mapping[str, Sequence[RoundTime]]) -> Diagram:
    stacks = {part: [sum(getattr(time, part) for time in times) for times in by_site.values()] for part in WORK}

    def paint(axes: Axes) -> None:
        stack_bars(axes, list(range(len(by_site))), stacks, WORK)
        axes.set_xticks(range(len(by_site)), list(by_site), rotation=30, ha="right")
        axes.set_ylabel("Seconds")
        axes.grid(visible=False, axis="x")
        legend_below(axes, columns=2)

    title = "Time per hospital, all rounds"
    caption = "How long each hospital worked and how long it waited for the slowest, in the rounds it answered."
    return Diagram(draw("time-site", f"{title}, mean seconds: {_shares(stacks)}", paint), title, caption)


def _bytes_diagram(run: RunFolder) -> Diagram:
    rounds = train_rounds(run)
    records = [record for record in run.records if record.phase == "train"]
    stacks = {
        "to the hospitals": [sum(r.bytes_down for r in records if r.round == number) / 1e6 for number in rounds],
        "from the hospitals": [sum(r.bytes_up for r in records if r.round == number) / 1e6 for number in rounds],
    }

    def paint(axes: Axes) -> None:
        stack_bars(axes, list(rounds), stacks, WORK)
        axes.set_xlabel("Round")
        axes.set_ylabel("MB")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        legend_below(axes, columns=2)

    title = "Bytes per round"
    caption = "All hospitals together, 1 MB = 1,000,000 bytes. Only weights and figures travel, no scan does."
    return Diagram(draw("bytes", f"{title}, mean MB: {_shares(stacks)}", paint), title, caption)


def _shares(stacks: Mapping[str, Sequence[float]]) -> str:
    return ", ".join(f"{WORK.get(part, part)} {np.mean(heights):.1f}" for part, heights in stacks.items())
