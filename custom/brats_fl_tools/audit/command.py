"""``brats-fl audit``: what an attacker sees of a hospital's own cases, from updates and from the model."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from brats_fl.errors import DataListError, FolderError
from brats_fl.files import write_whole
from brats_fl.machine import describe_machine
from brats_fl.provenance import find_commit, hash_file
from brats_fl.reading import read_if_sound
from brats_fl_tools.jobs.options import ForceOption
from brats_fl_tools.jobs.secure import AGGREGATION
from brats_fl_tools.jobs.source import SERVER_CONFIG
from brats_fl_tools.model.ensemble import short_name
from brats_fl_tools.model.evaluation_folder import count_synthetic, sites_with_cases
from brats_fl_tools.model.options import BundleOfModel, ProfileOfModel, sites_of_run
from brats_fl_tools.model.trained import TrainedModel, find_model
from brats_fl_tools.one_writer import writes
from brats_fl_tools.own_folders import appearing_folder, is_ours, refuse_foreign
from brats_fl_tools.pages.formats import format_count, format_duration
from brats_fl_tools.runs.folder import JOB_FOLDER, RUN_FILE, now, versions
from brats_fl_tools.runs.lists import find_seen
from brats_fl_tools.runs.processes import Interrupted

if TYPE_CHECKING:
    from torch import Tensor

    from brats_fl_tools.audit.attacks import Plan, Target
    from brats_fl_tools.audit.material import Material
    from brats_fl_tools.audit.membership import Membership
    from brats_fl_tools.audit.summary import Attack, Summary

MEMBERS, OTHERS = "training", "testing"
"""Splits of the data lists."""

TOLD_EVERY_S: Final = 20
"""Seconds between two lines on the same attack."""

DEFAULT_SIGMAS: Final = (0.001, 1.0)
"""The second is what a step of private training has at least; the first guarantees nothing, and may do."""


def audit(
    model: Annotated[
        Path, typer.Argument(metavar="RUN", help="A run folder, a checkpoint, or a bundle with weights (or its name).")
    ],
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="Folder to write, at the hospital and in no run folder.")
    ],
    sites: Annotated[
        Path | None,
        typer.Option("--sites", help="Folder with SITE/datalist.json: the hospital's own cases. Default: of its run."),
    ] = None,
    reference: Annotated[
        Path | None,
        typer.Option("--reference", metavar="MODEL", help="A model of the same network that has not seen the cases."),
    ] = None,
    bundle: BundleOfModel = None,
    profile: ProfileOfModel = None,
    case: Annotated[
        str | None, typer.Option("--case", help="Training case to rebuild; default: the first of the first hospital.")
    ] = None,
    patch: Annotated[
        int, typer.Option("--patch", min=8, max=128, help="Voxels along each side of what is rebuilt.")
    ] = 32,
    iterations: Annotated[int, typer.Option("--iterations", min=1, help="Of each start of each attack.")] = 300,
    restarts: Annotated[int, typer.Option("--restarts", min=1, max=50, help="Starts; the best is taken.")] = 1,
    steps: Annotated[int, typer.Option("--steps", min=2, max=100, help="Steps of the round that is attacked.")] = 8,
    hospitals: Annotated[int, typer.Option("--hospitals", min=2, max=50, help="Hospitals in the mean.")] = 5,
    sigmas: Annotated[
        list[float] | None,
        typer.Option("--sigma", min=1e-9, help="Noise, in clipping norms; repeatable; default: 0.001 and 1."),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="The same seed gives the same attacks.")] = 0,
    figures_to_run: Annotated[
        bool, typer.Option("--figures-to-run", help="Put audit.json, figures alone, into RUN for its study's report.")
    ] = False,
    force: ForceOption = False,
) -> None:
    """Write DIR/audit.html and audit.json: scans rebuilt from updates, and who is known to have been in the training.

    It attacks the hospital's own cases on this machine, and nothing leaves: the page shows a patient's scan.
    """
    from brats_fl_tools.audit.attacks import Plan
    from brats_fl_tools.audit.inversion import Search

    if figures_to_run and not (model / RUN_FILE).is_file():
        raise typer.BadParameter(f"--figures-to-run: {model} is no run folder")
    if not all(map(math.isfinite, sigmas or ())):
        raise typer.BadParameter("--sigma must be a finite number")
    own = find_model(model, bundle, profile)
    start = None if reference is None else find_model(reference, own.bundle, own.profile)
    plan = Plan(patch, Search(iterations, restarts, seed), steps, hospitals, tuple(sorted(sigmas or DEFAULT_SIGMAS)))
    summary = audit_model(own, sites_of_run(model, sites), out, plan, start, case, force)
    if figures_to_run:
        from brats_fl_tools.audit.summary import SUMMARY_FILE, as_text

        write_whole(model / SUMMARY_FILE, as_text(summary))
        typer.echo(f"wrote {model / SUMMARY_FILE}")


@writes("out")
def audit_model(
    model: TrainedModel,
    sites: Path,
    out: Path,
    plan: Plan,
    reference: TrainedModel | None = None,
    case: str | None = None,
    force: bool = False,
) -> Summary:
    """Attack a hospital's own cases, then write figures and page; a stopped audit leaves nothing.

    Raises:
        DataListError: A data list is wrong, there is no training case, or the model was not trained on them.
        CaseError: A case cannot be read, or that to be rebuilt has no tumour.
        ModelError: The bundle's training or the patch's size cannot be used.
        FolderError: The folder is not ours, lies in a run folder, or holds an audit and ``force`` is not set.
    """
    refuse_foreign(out, "audit", force)
    refuse_within_run(out)
    counts = sites_with_cases(sites, MEMBERS)
    checked = refuse_unseen(model, sites, counts)
    from brats_fl_tools.audit.attacks import choose_target, from_label_alone
    from brats_fl_tools.audit.figures import sum_up
    from brats_fl_tools.audit.material import Material, list_items
    from brats_fl_tools.audit.page import render_page
    from brats_fl_tools.audit.summary import PAGE_FILE, SUMMARY_FILE, Inversion, Summary, write_summary

    members, others = list_items(sites, list(counts), MEMBERS), list_items(sites, list(counts), OTHERS)
    items = begin_with(case, members)
    material = Material(model, plan.search.seed)
    try:
        target = choose_target(material, items, plan)
        attacks, images = run_attacks(material, target, plan)
        membership = run_membership(material, reference, members, others)
    except (KeyboardInterrupt, SystemExit):
        raise Interrupted("nothing was written; fewer --iterations take less time") from None
    summary = Summary(
        **describe_audit(model, reference, sites, counts),
        seen_checked=checked,
        inversion=Inversion(
            *(plan.patch, plan.search.iterations, plan.search.restarts, plan.search.seed),
            titles=plan.titles,
            label_alone=from_label_alone(target),
            attacks=tuple(attacks),
        ),
        membership=membership,
    )
    page = render_page(summary, target, images)
    with appearing_folder(out, "audit", force) as folder:
        write_summary(folder / SUMMARY_FILE, summary)
        write_whole(folder / PAGE_FILE, page)
    for name in (SUMMARY_FILE, PAGE_FILE):
        typer.echo(f"wrote {out / name}")
    typer.echo(sum_up(summary))
    typer.echo("audit.html shows a patient's scan: keep it at the hospital")
    return summary


def describe_audit(
    model: TrainedModel, reference: TrainedModel | None, sites: Path, counts: Mapping[str, int]
) -> dict[str, Any]:
    """What was audited, when and with what, as fields of ``Summary``."""
    return {
        "model": short_name(model.weights),
        "model_sha256": hash_file(model.weights),
        "reference_sha256": None if reference is None else hash_file(reference.weights),
        "bundle": model.bundle.name,
        "profile": model.profile,
        "sites": counts,
        "synthetic_cases": count_synthetic(sites, counts, MEMBERS),
        "secure_aggregation": saw_sums_alone(model.weights.parent),
        "finished": now(),
        "versions": versions(),
        "machine": describe_machine(),
        "commit": find_commit(),
    }


def refuse_within_run(out: Path) -> None:
    """Raise ``FolderError`` where the pictures would lie in a folder that is sent, archived or shown to others."""
    for folder in out.resolve().parents:
        if (folder / RUN_FILE).is_file() or is_ours(folder, "run") or is_ours(folder, "study"):
            raise FolderError(
                f"--out {out} lies in {folder}, which may be handed on; the audit shows a patient's scan and stays at "
                "the hospital: choose a folder elsewhere"
            )


def refuse_unseen(model: TrainedModel, sites: Path, counts: Mapping[str, int]) -> bool:
    """Whether the model's run told that it was trained on the training cases, so many a site, and on no test case.

    Raises:
        DataListError: It told otherwise.
    """
    seen = find_seen(model.weights, sites, counts, MEMBERS)
    if seen is None:
        return False
    if missing := sum(counts.values()) - len(seen):
        raise DataListError(
            f"{sites}: the model was not trained on {format_count(missing, 'case')} of the training split, as its run "
            "tells; give the data lists of the hospitals that took part"
        )
    if known := find_seen(model.weights, sites, counts, OTHERS):
        raise DataListError(
            f"{sites}: the model was trained or chosen on {format_count(len(known), 'test case')} ({known[0]}), which "
            "cannot stand for cases that it does not know; give the data lists of the run"
        )
    return True


def begin_with(case: str | None, items: Sequence[dict[str, object]]) -> list[dict[str, object]]:
    """The items with the case to be rebuilt in front.

    Raises:
        DataListError: It is no training case.
    """
    if case is None:
        return list(items)
    chosen = [item for item in items if item["case"] == case]
    if not chosen:
        raise DataListError(f"--case {case}: no such case in the training split of these data lists")
    return [chosen[0], *(item for item in items if item is not chosen[0])]


def saw_sums_alone(run: Path) -> bool | None:
    """Whether the server of a run had secure aggregation; None where the folder tells no job."""
    configs = [read_if_sound(path) for path in sorted(run.glob(f"{JOB_FOLDER}/*/{SERVER_CONFIG}"))]
    if not configs:
        return None
    return any(AGGREGATION in str(config.get("components")) for config in configs)


def run_attacks(material: Material, target: Target, plan: Plan) -> tuple[list[Attack], list[Tensor]]:
    """All gradient inversions, with a line each, and lines in between of how long the rest will take."""
    from brats_fl_tools.audit.attacks import attack_all

    each = plan.search.iterations * plan.search.restarts
    typer.echo(f"{format_count(plan.attacks, 'attack')} of {format_count(each, 'iteration')} on {target.case}")
    attacks: list[Attack] = []
    images: list[Tensor] = []
    tell = _teller(plan.attacks * each, lambda: len(attacks) * each)
    for attack, image in attack_all(material, target, plan, tell):
        attacks.append(attack)
        images.append(image)
        told = " ".join(f"{name}={value:.2f}" for name, value in attack.correlation.items())
        typer.echo(f"{len(attacks)}/{plan.attacks} state={attack.state} update={attack.update} correlation {told}")
    return attacks, images


def _teller(total: int, before: Callable[[], int]) -> Callable[[str, str, int], None]:
    """Says every ``TOLD_EVERY_S`` how far the attacks are and how long the rest takes."""
    begin = last = time.monotonic()

    def tell(state: str, update: str, done: int) -> None:
        nonlocal last
        if (at := time.monotonic()) - last < TOLD_EVERY_S:
            return
        last, ready = at, before() + done
        left = format_duration(round((at - begin) / ready * (total - ready)))
        typer.echo(f"state={state} update={update} iteration={done} of_all={ready / total:.0%} left={left}")

    return tell


def run_membership(
    material: Material,
    reference: TrainedModel | None,
    members: Sequence[dict[str, object]],
    others: Sequence[dict[str, object]],
) -> Membership | None:
    """Loss of each case, with a line each, and what they tell; None where there is no case to compare with."""
    from brats_fl_tools.audit.material import load_network
    from brats_fl_tools.audit.membership import measure

    if not others:
        typer.echo(f"no case for {OTHERS}: who was in the training is not looked for")
        return None
    known = None if reference is None else load_network(reference)
    begin, losses = time.monotonic(), []
    for item in (*members, *others):
        losses.append(material.case_loss(item, material.networks["trained"], known))
        done, total = len(losses), len(members) + len(others)
        left = format_duration(round((time.monotonic() - begin) / done * (total - done)))
        typer.echo(f"{done}/{total} site={item['site']} case={item['case']} loss={losses[-1].loss:.3f} left={left}")
    return measure(losses[: len(members)], losses[len(members) :])
