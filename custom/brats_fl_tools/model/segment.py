"""``brats-fl segment``: masks for a folder of cases, each judged first; a bad case costs no other, a rerun goes on."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from brats_fl.constants import DEFAULT_LABEL_TABLE
from brats_fl.errors import DataListError, FolderError, RunError
from brats_fl.files import write_whole
from brats_fl.network.engine_packages import TORCH
from brats_fl_tools.data.given_cases import GivenCases, read_given
from brats_fl_tools.jobs.options import parse_values
from brats_fl_tools.model.engine import EngineOption, engine_settings
from brats_fl_tools.model.ensemble import find_models_of, post_processing, title
from brats_fl_tools.model.options import BundleOfModel, ProfileOfModel
from brats_fl_tools.model.segmentation import Gatekeeper, as_items, make_evaluator, make_gatekeeper
from brats_fl_tools.model.trained import TrainedModel
from brats_fl_tools.one_writer import writes
from brats_fl_tools.own_folders import claim, is_ours
from brats_fl_tools.pages.formats import format_duration
from brats_fl_tools.runs.processes import Interrupted

if TYPE_CHECKING:
    from brats_fl.segmenting import Outcome, SegmentingEvaluator
    from brats_fl_tools.model.volumes import SegmentedCase

PAGE_FILE = "segment.html"
TABLE_FILE = "volumes.csv"

UNCERTAIN: Final[Mapping[str, Any]] = MappingProxyType({"save_uncertainty": True, "mirror_axes": [0, 1, 2]})
"""Variables of ``inference.json`` behind ``--uncertainty``."""


def segment(
    model: Annotated[
        Path,
        typer.Argument(
            metavar="BUNDLE|MODEL",
            help="With --model, the bundle of those models; else a bundle with weights, a run folder, or a checkpoint.",
        ),
    ],
    data: Annotated[
        Path,
        typer.Argument(metavar="DATA", help="Folder as `import` reads it, case table or data list; labels not needed."),
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder for CASE_seg.nii.gz, volumes.csv and segment.html.")],
    others: Annotated[
        list[Path] | None,
        typer.Option(
            "--model",
            help="Checkpoint, run folder or bundle. Repeated: masks of the mean of their probabilities. After a MODEL "
            "that is no bundle: another model.",
        ),
    ] = None,
    mapping: Annotated[
        Path | None,
        typer.Option("--mapping", metavar="JSON", help="Description of a folder in your own layout, as for `import`."),
    ] = None,
    bundle: BundleOfModel = None,
    profile: ProfileOfModel = None,
    engine: EngineOption = TORCH,
    values: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Variable of the bundle's inference.json; repeatable."),
    ] = None,
    uncertainty: Annotated[
        bool,
        typer.Option(
            "--uncertainty",
            help="Also write OUT/CASE_uncertainty.nii.gz, 0 sure to 1 bit, of mirrored copies: eight times as slow.",
        ),
    ] = False,
    force: Annotated[
        bool,
        typer.Option("--force", help="Make anew what brats-fl made of something else; no other file is replaced."),
    ] = False,
) -> None:
    """Write OUT/CASE_seg.nii.gz for every case of DATA, OUT/volumes.csv in ml, and OUT/segment.html, a page to look at.

    Each case is judged by the data gate first. One that cannot be segmented is listed at the end with its file, the
    step and the mend, and costs no other; exit 1 then. Run again, it goes on where it was stopped. The page shows
    patients' scans and must stay in the hospital.
    """
    given = one_source(data, mapping)
    models = find_models_of(model, others or (), bundle, profile)
    settings = {**(UNCERTAIN if uncertainty else {}), **parse_values(values)}
    segment_cases(models, given, out, settings, force, engine)


def one_source(data: Path, mapping: Path | None) -> GivenCases:
    """The cases of DATA.

    Raises:
        DataListError: It is a folder of several sites.
    """
    given = read_given(data, mapping)
    if len(given) > 1:
        raise DataListError(f"{data}: holds {len(given)} data lists; give one of them, such as {given[0].beside}")
    return given[0]


@writes("out")
def segment_cases(
    models: Sequence[TrainedModel],
    given: GivenCases,
    out: Path,
    settings: Mapping[str, Any],
    force: bool,
    engine: str = TORCH,
) -> list[SegmentedCase]:
    """Segment cases by a model, or by the mean probability of several, then write table and page.

    Raises:
        FolderError: Files are in the way; nothing was written.
        RunError: Cases were not segmented; the text lists them.
    """
    refuse_foreign_results(out)
    gatekeeper = make_gatekeeper(given)
    settings = {**post_processing(models), **settings}
    evaluator = make_evaluator(models, as_items(given, gatekeeper), out, settings, engine_settings(engine, "inferer"))
    evaluator.replace = force
    evaluator.data_loader.dataset.judge = gatekeeper.judge
    progress = Progress(evaluator, gatekeeper)
    names, what = ", ".join(str(model.weights) for model in models), title(models)
    mean = f"{what['model']}, " if len(models) > 1 else ""
    typer.echo(f"{names}: {mean}{what['bundle']}, profile {what['profile']}; {progress.total} cases")
    failed: RunError | None = None
    try:
        evaluator.run()
    except RunError as error:
        failed = error
    except (KeyboardInterrupt, SystemExit):
        done = sum(case.volumes_ml is not None for case in progress.cases)
        raise Interrupted(f"{done} of {progress.total} cases have their masks; the same command goes on") from None
    write_results(out, progress.cases, render(progress, models))
    if failed is not None:
        raise failed
    return progress.cases


def refuse_foreign_results(out: Path) -> None:
    """Raise ``FolderError`` where ``out`` is a file, or a table or page would be replaced that was not written here."""
    if out.is_file():
        raise FolderError(f"{out}: is a file; --out names a folder")
    if out.is_dir() and is_ours(out, "segmentation"):
        return
    for path in (out / TABLE_FILE, out / PAGE_FILE):
        if path.exists():
            raise FolderError(f"{path} was not written by `brats-fl segment` and is not replaced; choose another --out")


def write_results(out: Path, cases: list[SegmentedCase], page: str) -> None:
    """Write table and page, and say so."""
    from brats_fl_tools.model.volumes import as_table

    claim(out, "segmentation")
    for name, text in ((TABLE_FILE, as_table(cases)), (PAGE_FILE, page)):
        write_whole(out / name, text)
        typer.echo(f"wrote {out / name}")


def render(progress: Progress, models: Sequence[TrainedModel]) -> str:
    """The page of a segmentation."""
    from brats_fl_tools.model.segment_page import render_page

    return render_page(progress.cases, progress.gatekeeper.cases, progress.evaluator.masks.path_of, models)


class Progress:
    """A line for each case with the time left; gathers what became of the cases."""

    def __init__(self, evaluator: SegmentingEvaluator, gatekeeper: Gatekeeper) -> None:
        from ignite.engine import Events

        self.evaluator, self.gatekeeper = evaluator, gatekeeper
        self.total = len(evaluator.data_loader.dataset)
        self.cases: list[SegmentedCase] = []
        self.begin = time.monotonic()
        evaluator.add_event_handler(Events.ITERATION_COMPLETED, self.note)

    def note(self) -> None:
        """Take in the case that was just gone through."""
        from brats_fl_tools.model.volumes import SegmentedCase, measure_mask

        outcome = self.evaluator.outcomes[-1]
        findings = self.gatekeeper.recall(outcome.case, outcome.judgement)
        volumes = None
        if outcome.status != "failed":
            case = self.gatekeeper.cases.get(outcome.case)
            labels = case.labels if case else DEFAULT_LABEL_TABLE
            volumes = measure_mask(self.evaluator.masks.path_of(outcome.case), labels)
        self.cases.append(SegmentedCase(outcome, findings, volumes))
        typer.echo(self.describe(outcome, volumes))
        for finding in findings:
            if finding.severity == "warning":
                typer.echo(f"  warning: {outcome.case}: {finding.scan or 'scans'}: {finding.rule}: {finding.said}")

    def describe(self, outcome: Outcome, volumes: Mapping[str, float] | None) -> str:
        """``3/40 case=P_003 written wt_ml=53.1 tc_ml=20.4 et_ml=11.0 seconds=6.2 left=3 min 51 s``."""
        done = len(self.cases)
        left = (time.monotonic() - self.begin) / done * (self.total - done)
        said = [f"{done}/{self.total} case={outcome.case} {outcome.status}"]
        if volumes is not None:
            said += [f"{name}={volumes[name]:.1f}" for name in ("wt_ml", "tc_ml", "et_ml")]
        else:
            said.append(f"at={outcome.step!r}")
        said += [f"seconds={outcome.seconds:.1f}", f"left={format_duration(round(left))}"]
        return " ".join(said)
