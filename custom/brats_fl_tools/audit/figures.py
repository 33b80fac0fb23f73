"""What the figures of an audit say, in sentences: for the page, the command line and a study's report."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from brats_fl_tools.audit.membership import Membership
from brats_fl_tools.audit.summary import CONTROL, Attack, Inversion, Summary
from brats_fl_tools.pages.formats import format_count


def best_of(inversion: Inversion, updates: Sequence[str]) -> Attack:
    """The attack of some updates, from either state, that came closest to the scan."""
    return max((one for one in inversion.attacks if one.update in updates), key=lambda one: one.mean)


def sum_up(summary: Summary) -> str:
    """What was found, in a few sentences."""
    inversion = summary.inversion
    worst = best_of(inversion, [name for name in inversion.titles if name != CONTROL])
    control = best_of(inversion, [CONTROL])
    step, label = best_of(inversion, ["step"]), fmean(inversion.label_alone.values())
    parts = [
        f"From the gradient of one step a patch of a scan was rebuilt with a mean correlation of {step.mean:.2f}, "
        f"{step.mean_beyond:.2f} beyond the label (which the attacker was given, and which alone gives {label:.2f}).",
        "The same search in another case's step, in which nothing of the scan is, gives "
        f"{control.mean:.2f} and {control.mean_beyond:.2f}.",
        f"From a round it is {best_of(inversion, ['round']).mean:.2f}, from the mean of hospitals "
        f"{best_of(inversion, ['mean']).mean:.2f}.",
    ]
    if noised := [name for name in inversion.titles if name.startswith("sigma=")]:
        parts.append(f"With the most noise it is {best_of(inversion, noised[-1:]).mean:.2f}.")
    if worst.update != "step":
        parts.append(f"Most was rebuilt from {inversion.titles[worst.update]}: {worst.mean:.2f}.")
    return " ".join([*parts, describe_membership(summary.membership)])


def describe_membership(membership: Membership | None) -> str:
    """What the attacks on the model found, in a sentence."""
    if membership is None:
        return "Membership was not tried: there is no test case to compare with."
    count = (
        f"{format_count(membership.member_patients, 'patient')} trained on and "
        f"{format_count(membership.other_patients, 'other')}"
    )
    if membership.is_too_small or not membership.scores:
        return f"Whether the model tells who was in the training cannot be said: {count} are too few."
    best = max(membership.scores, key=lambda one: one.auc)
    low, high = best.auc_interval
    word = "can" if low > 0.5 else "could not"
    return (
        f"Who was in the training {word} be told from the model's losses of {count}: AUC {best.auc:.2f} "
        f"(95 % interval {low:.2f} to {high:.2f}; 0.5 is a guess)."
    )


def list_warnings(summary: Summary) -> list[str]:
    """What the figures must not be taken for."""
    texts = []
    if summary.synthetic_cases:
        texts.append(
            f"{summary.synthetic_cases} of the {format_count(sum(summary.sites.values()), 'training case')} are "
            "synthetic, and smoother than a patient's: the figures say little of patients."
        )
    if not summary.seen_checked:
        texts.append("Whether the model was trained on these cases was not checked: its run does not tell.")
    if summary.secure_aggregation:
        texts.append(
            "The run was one of secure aggregation: its server saw the sum of the hospitals' updates, which is the row "
            "of the mean, and none of the other rows."
        )
    return texts
