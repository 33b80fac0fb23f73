"""``brats-fl import``: find the cases of a download, whatever its layout, and write them as a case table.

Headers are read, and of the labels the voxels: which convention a label follows is told by its layout and must be
borne out by its values. What is ambiguous or missing is a fault that the user mends; nothing is guessed.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import track

from brats_fl.cases.found_cases import SEG, Findings, FoundCase, join_namesakes
from brats_fl.cases.grids import Grid, grids_fault, main_grid
from brats_fl.cases.layouts import LOOKED_FOR, search
from brats_fl.cases.regions import fitting_tables
from brats_fl.cases.scans import read_grid
from brats_fl.constants import LABEL_TABLES, MODALITIES
from brats_fl.errors import CaseError
from brats_fl_tools.data.case_labels import LabelFacts, check_convention, read_label
from brats_fl_tools.data.case_table import GRADES, CaseRow, refuse_existing_table, write_case_table
from brats_fl_tools.data.folder_mapping import find_mapped_cases, read_mapping
from brats_fl_tools.data.given_cases import describe_strangers
from brats_fl_tools.data.institutions import Origin, read_name, read_origins, shortened
from brats_fl_tools.data.mapping_proposals import propose_choices, propose_for


@dataclass(frozen=True)
class Survey:
    """What an import found."""

    rows: tuple[CaseRow, ...]
    """The sound cases, sorted by name."""
    faults: tuple[CaseError, ...]
    """The faulty cases, sorted by name; one error a case."""
    strangers: tuple[Path, ...]
    """NIfTI files that belong to no case; they were not looked into."""
    label_values: Mapping[str, tuple[int, ...]]
    """Convention -> values found in its labels, 0 left out, sorted."""
    mappings: tuple[str, ...] = ()
    """Mappings, as JSON, that choose between the files that faulty cases have for one purpose."""


def import_cases(data_dir: Path, mapping: Path | None = None, labels: str | None = None) -> Survey:
    """Every case beneath ``data_dir``, checked by its headers and the values of its label.

    Args:
        data_dir: Folder of the download.
        mapping: Description of a hospital's own layout; None for the known ones.
        labels: Label convention of all cases, in place of their layout's.

    Raises:
        CaseError: No such folder, no case in it, a mapping that cannot be used, tables of institutions beside the
            cases that contradict each other, or labels of which the layout does not tell the convention.
    """
    if not data_dir.is_dir():
        raise CaseError(f"{data_dir}: no such folder; give the folder that the download was unpacked to")
    root = data_dir.resolve()
    if mapping is None:
        findings = search(root)
    else:
        findings = Findings(tuple(find_mapped_cases(root, read_mapping(mapping))), (), ())
    if not findings.cases:
        strangers = findings.strangers
        seen = f"; {len(strangers)} NIfTI files have other names, such as {strangers[0]}" if strangers else ""
        known = f"{LOOKED_FOR}; for any other, describe it with --mapping"
        looked_for = known if mapping is None else f"what {mapping} describes"
        proposed = show_mappings(propose_for(root, strangers)) if mapping is None else ""
        raise CaseError(f"{data_dir}: no case found{seen}. Looked for: {looked_for}{proposed}")
    origins = _read_origin_files(findings.origin_files)
    found = [replace(case, labels=labels, question="") for case in findings.cases] if labels else list(findings.cases)
    refuse_open_questions(found)
    survey = _read_all(found, root, origins, findings.strangers)
    mappings = [] if mapping else propose_choices(root, found) or _propose_for_namesakes(root, found)
    return replace(survey, mappings=tuple(mappings))


def refuse_open_questions(cases: Iterable[FoundCase]) -> None:
    """Raise ``CaseError`` where the layout of labelled cases does not tell what their labels' values mean."""
    asked = [case for case in cases if case.question and SEG in case.files and not case.problems]
    if not asked:
        return
    values = read_label(asked[0].files[SEG]).values
    fitting = fitting_tables(values)
    fit = f"which fits {' and '.join(fitting)}" if fitting else "which fits no convention"
    raise CaseError(
        f"{asked[0].question}: {len(asked)} cases ({shortened(case.case for case in asked)}). The first label holds "
        f"{', '.join(str(value) for value in values) or 'nothing'}, {fit}; say which it is with --labels, one of "
        f"{', '.join(LABEL_TABLES)}"
    )


def _propose_for_namesakes(root: Path, cases: Sequence[FoundCase]) -> list[str]:
    """Where files have one name in every folder, it is the folder that tells the case."""
    counts = Counter(case.case for case in cases)
    files = [file for case in cases if counts[case.case] > 1 for file in case.files.values()]
    return propose_for(root, files)


def show_mappings(mappings: Sequence[str]) -> str:
    """Mappings to choose from, each on a line of its own, with what to do with them; empty where there are none."""
    if not mappings:
        return ""
    one = "this mapping reads them" if len(mappings) == 1 else "each of these mappings reads them in another way"
    lines = "\n".join(mappings)
    return f"\n{one}: look whether it is right, complete it, write it to a file and give that with --mapping\n{lines}"


def _read_origin_files(files: Iterable[Path]) -> dict[str, Origin]:
    origins: dict[str, Origin] = {}
    for file in files:
        for case, origin in read_origins(file).items():
            if origins.setdefault(case, origin) != origin:
                raise CaseError(f"{file}: contradicts another {file.name} on case {case}; keep one of the two")
    return origins


def _read_all(cases: list[FoundCase], root: Path, origins: Mapping[str, Origin], strangers: tuple[Path, ...]) -> Survey:
    cases = join_namesakes(cases)

    def read(found: FoundCase) -> tuple[CaseRow, LabelFacts | None] | CaseError:
        try:
            return read_case(found, root, origins)
        except CaseError as error:
            return error

    console = Console(stderr=True)
    with ThreadPoolExecutor() as pool:  # the time goes into decompressing labels, which needs no interpreter lock
        results = list(
            track(
                pool.map(read, cases),
                "reading headers and labels",
                total=len(cases),
                console=console,
                disable=not console.is_terminal,
            )
        )
    sound = [result for result in results if not isinstance(result, CaseError)]
    values: dict[str, set[int]] = defaultdict(set)
    for row, facts in sound:
        values[row.labels].update(facts.values if facts else ())
    return Survey(
        rows=tuple(row for row, _ in sound),
        faults=tuple(result for result in results if isinstance(result, CaseError)),
        strangers=strangers,
        label_values={name: tuple(sorted(found)) for name, found in sorted(values.items())},
    )


def read_case(found: FoundCase, root: Path, origins: Mapping[str, Origin]) -> tuple[CaseRow, LabelFacts | None]:
    """The row of a case, and what is in its label where it has one.

    Args:
        found: The case and its files.
        root: Folder of the import; a folder ``HGG`` or ``LGG`` from here on downwards tells the grade.
        origins: Case -> institution and grade of a table beside the cases.

    Raises:
        CaseError: A line for each fault: a file missing, ambiguous, unreadable, not 3-D, on another grid, or a label
            value that is not of the convention.
    """
    problems = [*found.problems, *found.label_problems]
    grids = _read_grids(found, problems)
    facts = None
    if SEG in found.files and not problems:
        try:
            facts = read_label(found.files[SEG])
            check_convention(found.files[SEG], facts.values, found.labels)
        except CaseError as error:
            problems.append(f"{SEG}: {error}")
    if problems:
        raise CaseError("\n".join(f"{found.case}: {problem}" for problem in problems))
    grid = main_grid(grids)
    name, origin = read_name(found.case), origins.get(found.case, Origin(""))
    above = [part.upper() for part in (root.name, *found.folder.relative_to(root).parts)]
    row = CaseRow(
        case=found.case,
        patient=found.patient or name.patient,
        time_point=found.time_point or name.time_point,
        image=tuple(found.files[modality] for modality in MODALITIES),
        label=found.files.get(SEG),
        labels=found.labels,
        shape=grid.shape,
        spacing_mm=tuple(grid.spacing_mm.tolist()),
        institution=origin.institution or name.institution,
        grade=next((part for part in reversed(above) if part in GRADES), origin.grade),
        tumour_ml=facts.tumour_ml if facts else None,
    )
    return row, facts


def _read_grids(found: FoundCase, problems: list[str]) -> dict[str, Grid]:
    """Grids of a case's files, from their headers; what is wrong with them is added to ``problems``."""
    grids: dict[str, Grid] = {}
    for kind in (kind for kind in (*MODALITIES, SEG) if kind in found.files):
        try:
            grids[kind] = read_grid(found.files[kind])
        except CaseError as error:
            problems.append(f"{kind}: {error}")
    if fault := grids_fault(grids, found.files):
        problems.append(fault)
    return grids


def import_(
    data_dir: Annotated[
        Path, typer.Argument(metavar="DATA_DIR", help="Folder of the download, searched at any depth.")
    ],
    out: Annotated[Path, typer.Option("--out", help="The table to write, for instance cases.csv.")],
    mapping: Annotated[
        Path | None,
        typer.Option("--mapping", metavar="JSON", help="Description of a folder in a layout of your own."),
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(
            "--labels",
            metavar="CONVENTION",
            help=f"Label convention of all cases, in place of their layouts': {', '.join(LABEL_TABLES)}.",
        ),
    ] = None,
    allow_mixed_labels: Annotated[
        bool,
        typer.Option("--allow-mixed-labels", help="Write a table in which cases follow different conventions."),
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace OUT where it exists.")] = False,
    skip_faulty: Annotated[
        bool,
        typer.Option("--skip-faulty", help="Leave faulty cases out, and say which, in place of stopping."),
    ] = False,
) -> None:
    """Write OUT, a table of the cases beneath DATA_DIR: names, grade, institution, files, label convention, grid.

    Finds the layouts of BraTS 2018 and later, FeTS, MSD Task01, nnU-Net, BIDS, UCSF-PDGM and UPENN-GBM, and with
    --mapping any other. Headers and label values are checked. A faulty case stops the import: all of them are listed,
    nothing is written.
    """
    if labels not in (None, *LABEL_TABLES):
        raise typer.BadParameter(f"must be one of {', '.join(LABEL_TABLES)} (got {labels!r})", param_hint="--labels")
    if mapping is not None and labels is not None:
        raise typer.BadParameter("the mapping names the label convention; leave out one", param_hint="--labels")
    refuse_existing_table(out, force)
    survey = import_cases(data_dir, mapping, labels)
    total = len(survey.rows) + len(survey.faults)
    listing = "\n".join(str(fault) for fault in survey.faults)
    if survey.faults and not (skip_faulty and survey.rows):
        mend = "mend them, or leave them out with --skip-faulty" if survey.rows else "mend them"
        raise CaseError(
            f"{len(survey.faults)} of {total} cases are faulty, nothing was written; {mend}\n{listing}"
            f"{show_mappings(survey.mappings)}"
        )
    if not allow_mixed_labels:
        refuse_mixed_labels(survey.rows)
    write_case_table(out, survey.rows, force)
    if survey.faults:
        typer.echo(f"warning: {len(survey.faults)} of {total} cases are faulty and left out\n{listing}", err=True)
    if survey.strangers:
        typer.echo(describe_strangers(survey.strangers), err=True)
    typer.echo(_summary(out, survey))


def refuse_mixed_labels(rows: Iterable[CaseRow]) -> None:
    """Raise ``CaseError`` where the cases follow more than one label convention."""
    cases: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        cases[row.labels].append(row.case)
    if len(cases) > 1:
        listing = "\n".join(f"{name}: {shortened(names)}" for name, names in sorted(cases.items()))
        raise CaseError(
            f"the cases follow {len(cases)} label conventions by their layouts, nothing was written; give "
            "--allow-mixed-labels if that is right, --labels if all follow one, or import the folders one by one\n"
            f"{listing}"
        )


def _summary(out: Path, survey: Survey) -> str:
    rows = survey.rows
    labelled = sum(row.label is not None for row in rows)
    grades = "".join(f" {grade}={sum(row.grade == grade for row in rows)}" for grade in GRADES)
    institutions = {row.institution for row in rows if row.institution}
    lines = [
        f"{out}: cases={len(rows)} patients={len({row.patient for row in rows})} labelled={labelled}{grades} "
        f"institutions={len(institutions)} without_institution={sum(not row.institution for row in rows)}"
    ]
    for name, count in sorted(Counter(row.labels for row in rows).items()):
        values = ", ".join(str(value) for value in survey.label_values[name]) or "none"
        lines.append(f"label convention {name}: {count} cases, label values found: {values}")
    return "\n".join(lines)
