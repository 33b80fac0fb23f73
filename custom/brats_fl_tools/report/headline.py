"""What a reader takes away who reads one paragraph: the result in words, and what it must not be taken for."""

from __future__ import annotations

from brats_fl_tools.pages.formats import format_count, list_words
from brats_fl_tools.report.evaluated_model import NOT_HERE, name_evaluated_model
from brats_fl_tools.report.metrics import Scores
from brats_fl_tools.report.participants import summarise_participation
from brats_fl_tools.report.ranking import FEWEST_FOR_RANK
from brats_fl_tools.report.run_folder import TEST_SPLIT, RunFolder

NOT_CHECKED = "whether it saw them in training was not checked"


def summarise_in_words(run: RunFolder, scores: Scores) -> str:
    """Who trained, and the result on the test cases, in a few sentences."""
    dice = scores.overall.dice["mean"]
    spread = "" if dice.sd is None else f"standard deviation {dice.sd:.3f} over the cases; "
    who = "" if run.is_evaluation else f"{summarise_participation(run)} "
    text = (
        f"{who}On {format_count(scores.overall.cases, run.case_noun)} {describe_seen(run)}, "
        f"{'the masks reach' if run.is_rescored else 'the model reaches'} a mean Dice of {dice.mean:.3f} ({spread}1 is "
        "a perfect match with the reference)."
    )
    if scores.ranking:
        best, worst = scores.ranking.best_site, scores.ranking.worst_site
        high, low = (scores.sites[site].dice["mean"].mean for site in (best, worst))
        serves = "They serve" if run.is_rescored else "It serves"
        text += f" {serves} {best} best ({high:.3f}) and {worst} least ({low:.3f}), a gap of {scores.ranking.gap:.3f}."
    elif sum(summary.cases > 0 for summary in scores.sites.values()) > 1:
        text += f" {say_why_no_rank(f'{run.case_noun}s')}"
    return text


def say_why_no_rank(cases: str = "test cases") -> str:
    """Why no hospital is called the best or the lowest."""
    return (
        f"No hospital is called best or lowest: that takes two with {FEWEST_FOR_RANK} {cases} each, below which it is "
        "chance."
    )


def seen_cases(run: RunFolder) -> tuple[str, ...] | None:
    """Cases of the run's split that the model was trained or chosen on, as SITE/CASE; None where nobody checked."""
    found = run.evaluation.get("seen_in_training")
    if not isinstance(found, list):
        return None
    tested = {f"{result.site}/{result.case}" for result in run.results if result.split == run.split}
    return tuple(case for case in found if case in tested)


def describe_seen(run: RunFolder) -> str:
    """Whether the model saw the cases in training, as a clause that follows them."""
    if run.is_rescored:
        return "(whether what made the masks had seen them before is not known)"
    seen = seen_cases(run)
    if seen is None:
        return f"({NOT_CHECKED})"
    return f"({len(seen)} of which it saw in training)" if seen else "that it never saw in training"


def list_warnings(run: RunFolder) -> list[str]:
    """What the figures must not be taken for, each a banner at the top of the page."""
    texts = (_of_withdrawals(run), _of_evaluation(run), describe_synthetic(run), _of_seen(run), _of_model(run))
    return [text for text in texts if text]


def _of_withdrawals(run: RunFolder) -> str | None:
    """Who withdrew from the run: what it made is to be used no more."""
    if not run.withdrawals:
        return None
    each = [f"{one.who} on {one.time[:10]} (the study without: {one.run})" for one in run.withdrawals]
    return f"Withdrawn from this run: {list_words(each)}. Its models are not to be used any more."


def _of_evaluation(run: RunFolder) -> str | None:
    """What a folder without a run leaves open."""
    if not run.is_evaluation:
        return None
    if run.is_rescored:
        return (
            "Masks that were given were scored: who or what made them, and whether it had seen these cases before, is "
            "not known here."
        )
    text = (
        "This is an evaluation, not a run: by whom, on what, how and for how long the model was trained is not in the "
        "folder that this page was made from, and so not here."
    )
    if run.split != TEST_SPLIT and seen_cases(run) is None:
        text += (
            f" The cases stand under {run.split} in their data list: if the model was trained or chosen on them, the "
            "figures flatter it."
        )
    return text


def describe_synthetic(run: RunFolder) -> str | None:
    """That cases are synthetic, and whose; None where none is known to be."""
    trained, tested = run.info.get("synthetic"), run.evaluation.get("synthetic_cases")
    what = [f"the cases that {list_words(trained)} trained on"] if isinstance(trained, list) and trained else []
    if isinstance(tested, int) and tested:
        what.append(f"{tested} of the {run.evaluation.get('cases')} cases that were evaluated")
    if not what:
        return None
    return (
        f"Synthetic data: {list_words(what)} were made by brats-fl sample. No patient is in them, and the figures say "
        "nothing of how well the model does on patients."
    )


def _of_seen(run: RunFolder) -> str | None:
    seen = seen_cases(run)
    if not seen:
        return None
    return (
        f"The model was trained or chosen on {len(seen)} of the {run.case_noun}s ({list_words(seen)}): their figures "
        "flatter it, and so do all means that they are in."
    )


def _of_model(run: RunFolder) -> str | None:
    if run.is_evaluation or not run.results or name_evaluated_model(run) != NOT_HERE:
        return None
    return (
        "The model that was evaluated is none of this run's: the figures on test cases are of another one than that "
        "whose training is shown here."
    )
