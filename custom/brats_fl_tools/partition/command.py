"""``brats-fl partition``: deal the cases of a table to hospitals, and write each hospital's data list."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import typer
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from brats_fl.cases.datalists import DATALIST_FILE, write_datalist
from brats_fl.constants import SPLITS
from brats_fl.errors import DataListError
from brats_fl.files import is_passed_over, write_whole
from brats_fl_tools.data.case_labels import with_volumes
from brats_fl_tools.data.case_table import GRADES, CaseRow, check_files, read_case_table
from brats_fl_tools.data.institutions import UNLISTED, assign_origins, read_origins, shortened
from brats_fl_tools.one_writer import writes
from brats_fl_tools.own_folders import claim, refuse_foreign
from brats_fl_tools.partition.manifest import MANIFEST_FILE, build_manifest, check_inputs, check_result, read_manifest
from brats_fl_tools.partition.plan import OWN_STRATEGY, Options, Partition, Strategy, option_fault, partition_cases
from brats_fl_tools.partition.scanner_shift import ALTERED_FOLDER, write_altered
from brats_fl_tools.partition.strategies import RULES

PAGE_FILE = "partition.html"
LEFT_OUT_FOLDER = "left-out"
"""A left-out hospital's list is here and not beside the others: no job finds it, and `evaluate --sites` takes it."""

DEPTHS = ("*", f"{LEFT_OUT_FOLDER}/*")
"""Where the hospitals' folders lie below that of the sites."""


@writes("out")
def write_partition(
    out: Path, partition: Partition, manifest: Mapping[str, Any], page: bool = True, force: bool = False
) -> None:
    """Write each site's ``datalist.json``, ``partition.html``, and last ``partition.json``.

    With ``force`` the files of an earlier partition in ``out`` are removed, and other files stay.

    Raises:
        DataListError: ``out`` is not empty and ``force`` is not given.
        CaseError: A scan cannot be read.
    """
    refuse_existing_sites(out, force)
    out.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        _write_lists(scratch, partition, manifest["options"]["seed"])
        if page:
            # Imported here: Matplotlib takes a second that the other verbs need not wait for.
            from brats_fl_tools.partition.page import render_page

            folders = {d.site: scratch / list_file(partition, d.site).parent for d in partition.datalists}
            write_whole(scratch / PAGE_FILE, render_page(partition, manifest, folders))
        claim(out, "partition")
        _remove_earlier(out)
        for file in sorted(path for path in scratch.rglob("*") if path.is_file()):
            target = out / file.relative_to(scratch)
            target.parent.mkdir(parents=True, exist_ok=True)
            file.replace(target)
        write_whole(out / MANIFEST_FILE, json.dumps(manifest, indent=1) + "\n")
    finally:
        shutil.rmtree(scratch)


def _write_lists(folder: Path, partition: Partition, seed: int) -> None:
    for datalist in partition.datalists:
        site = folder / list_file(partition, datalist.site).parent
        site.mkdir(parents=True)
        shift = partition.shifts.get(datalist.site)
        written = write_altered(site, datalist, shift, seed) if shift else datalist
        write_datalist(site / DATALIST_FILE, written)


def list_file(partition: Partition, site: str) -> Path:
    """Where a site's data list is, relative to the folder of the sites."""
    return Path(LEFT_OUT_FOLDER if site == partition.leave_out else "", site, DATALIST_FILE)


def _earlier(out: Path) -> list[Path]:
    """Files and folders of a partition that lie in a folder."""
    names = (
        MANIFEST_FILE,
        PAGE_FILE,
        *(f"{depth}/{name}" for depth in DEPTHS for name in (DATALIST_FILE, ALTERED_FOLDER)),
    )
    found = [path for name in names for path in sorted(out.glob(name))]
    return [path for path in found if not any(map(is_passed_over, path.relative_to(out).parts))]


def _remove_earlier(out: Path) -> None:
    for stale in _earlier(out):
        if stale.is_dir():
            shutil.rmtree(stale)
        else:
            stale.unlink()
        if stale.parent != out and not any(stale.parent.iterdir()):
            stale.parent.rmdir()
    left_out = out / LEFT_OUT_FOLDER
    if left_out.is_dir() and not any(left_out.iterdir()):
        left_out.rmdir()


def refuse_existing_sites(out: Path, force: bool) -> None:
    """Raise where ``out`` is a file, or holds something and ``force`` is not given, or data lists of other origin."""
    if out.exists() and not out.is_dir():
        raise DataListError(f"{out}: is a file; --out names a folder for the sites")
    if out.is_dir() and any(out.iterdir()) and not force:
        raise DataListError(f"{out}: is not empty; give --force to replace its data lists, or another --out")
    if _earlier(out):
        refuse_foreign(out, "partition", force)


def partition(
    context: typer.Context,
    cases: Annotated[Path, typer.Argument(metavar="CASES", help="Case table of `brats-fl import`.")],
    out: Annotated[Path, typer.Option("--out", metavar="SITES", help="Folder to write, a subfolder a site.")],
    strategy: Annotated[
        Strategy | None, typer.Option("--strategy", help="What decides a case's site.", show_default="none")
    ] = None,
    manifest: Annotated[
        Path | None,
        typer.Option(
            "--manifest",
            metavar="JSON",
            help="partition.json of an earlier partition: write the same lists again, in place of all other options.",
        ),
    ] = None,
    institutions: Annotated[
        Path | None,
        typer.Option(
            "--institutions",
            metavar="TABLE",
            help="Table of case and institution (and hospital), BraTS's name_mapping.csv or FeTS's "
            "partitioning csv; counts in place of the case table's own column.",
        ),
    ] = None,
    sites: Annotated[
        int | None,
        typer.Option("--sites", help="Number of sites.", show_default="5, or as many as the column hospital names"),
    ] = None,
    exponent: Annotated[
        float, typer.Option(help="size: site k has k^-EXPONENT times the first's cases; 0 is even.")
    ] = Options.exponent,
    alpha: Annotated[
        float, typer.Option(help="dirichlet: small for hospitals that see one size of tumours, large for alike ones.")
    ] = Options.alpha,
    shift: Annotated[
        float, typer.Option(help="scanner: how far the last hospital's scans are altered, 0.1 to 2.")
    ] = Options.shift,
    leave_out: Annotated[
        str | None,
        typer.Option("--leave-out", metavar="SITE", help="This site does not train; its list is SITES/left-out/SITE."),
    ] = None,
    validation: Annotated[
        float, typer.Option(help="Share of a site's patients for validation, 0 to 1.")
    ] = Options.validation,
    test: Annotated[float, typer.Option(help="Share of a site's patients for testing, 0 to 1.")] = Options.test,
    seed: Annotated[int, typer.Option(help="Of all draws; the same seed gives the same lists.")] = Options.seed,
    page: Annotated[
        bool, typer.Option("--page/--no-page", help="Write partition.html; reads a few scans of each hospital.")
    ] = True,
    force: Annotated[
        bool, typer.Option("--force", help="Replace the partition in SITES; files of other origin stay.")
    ] = False,
) -> None:
    """Write SITES/<site>/datalist.json for each hospital, SITES/partition.json, the record, and SITES/partition.html.

    Each hospital's cases are split into training, validation and testing. A patient is at one site and in one
    split. Cases without a label are left out. --strategy scanner also writes altered copies of the scans.
    """
    sources = {field.name: context.get_parameter_source(field.name) for field in fields(Options)}
    given = {name for name, source in sources.items() if source is not None and source.name != "DEFAULT"}
    if manifest is not None and given:
        raise typer.BadParameter(f"takes the place of --{_flag(min(given))}; leave out one", param_hint="--manifest")
    if manifest is None and strategy is None:
        raise typer.BadParameter("give it, or --manifest", param_hint="--strategy")
    asked = read_manifest(manifest) if manifest else None
    options = (
        asked.options
        if asked
        else Options(strategy or Strategy.EVEN, sites, seed, validation, test, exponent, alpha, shift, leave_out)
    )
    _check_usage(options, given, institutions)
    refuse_existing_sites(out, force)
    rows = _read_rows(cases, institutions, options)
    if asked:
        check_inputs(asked, rows, cases, institutions)
    result = partition_cases(rows, options)
    if asked:
        check_result(asked, result)
    record = build_manifest(options, result, rows, cases, institutions)
    write_partition(out, result, record, page, force)
    _print_partition(out, result, record["study_sha256"])


def _flag(name: str) -> str:
    return name.replace("_", "-")


def _check_usage(options: Options, given: set[str], institutions: Path | None) -> None:
    """Raise ``BadParameter`` where an option is out of its range or does not go with the strategy."""
    if fault := option_fault(options):
        raise typer.BadParameter(fault[1], param_hint=f"--{_flag(fault[0])}")
    for name, strategy in OWN_STRATEGY.items():
        if name in given and options.strategy is not strategy:
            raise typer.BadParameter(f"goes with --strategy {strategy.value} only", param_hint=f"--{name}")
    if institutions is not None and options.strategy is not Strategy.INSTITUTION:
        raise typer.BadParameter("goes with --strategy institution only", param_hint="--institutions")


def _read_rows(cases: Path, institutions: Path | None, options: Options) -> Sequence[CaseRow]:
    rows = read_case_table(cases)
    check_files(cases, rows)
    if institutions is not None:
        rows = assign_origins(institutions, rows, read_origins(institutions))
    return with_volumes(rows) if options.strategy is Strategy.DIRICHLET else rows


def _print_partition(out: Path, partition: Partition, study: str) -> None:
    """Counts on standard output; what the user should know besides on standard error."""
    by_institution = partition.rule == RULES["institution"]
    table = Table(title=f"{out}", box=SIMPLE)
    for name in ("site", *SPLITS, "cases", *(("institutions",) if by_institution else (*GRADES, "median ml"))):
        table.add_column(name, no_wrap=name != "institutions")
    for datalist in partition.datalists:
        rows, origins = partition.cases[datalist.site], partition.institutions(datalist.site)
        counts = [len(datalist.split(split)) for split in SPLITS]
        grades = [
            sum(row.grade == grade for row in rows) if any(row.grade for row in rows) else "-" for grade in GRADES
        ]
        names = ", ".join(f"{name} ({count})" for name, count in origins.items())
        facts = [names] if by_institution else [*map(str, grades), _median_ml(rows)]
        table.add_row(datalist.site, *map(str, (*counts, sum(counts))), *facts)
    Console(soft_wrap=False).print(table)
    typer.echo(f"study_sha256 {study}")
    for warning in _warnings(partition):
        typer.echo(f"warning: {warning}", err=True)


def _median_ml(rows: Sequence[CaseRow]) -> str:
    """Median tumour volume; a dash where one is not known."""
    volumes = [row.tumour_ml for row in rows if row.tumour_ml is not None]
    return f"{median(volumes):.0f}" if len(volumes) == len(rows) else "-"


def _warnings(partition: Partition) -> list[str]:
    warnings = []
    if partition.unlabelled:
        names = shortened(partition.unlabelled)
        warnings.append(f"{len(partition.unlabelled)} cases have no label and are left out: {names}")
    unlisted = sum(partition.institutions(site).get(UNLISTED, 0) for site in partition.cases)
    if unlisted and partition.rule == RULES["institution"]:
        warnings.append(
            f"{unlisted} cases were new in BraTS 2020, their institution is not published; they are kept together as "
            f"institution {UNLISTED!r}"
        )
    empty = [d.site for d in partition.datalists if not d.validation and d.site != partition.leave_out]
    if empty:
        warnings.append(
            f"no validation case at {', '.join(empty)}; a site has one from three patients on, where --validation is "
            "above 0"
        )
    return warnings
