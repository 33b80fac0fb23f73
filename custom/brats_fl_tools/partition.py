"""``brats-fl partition``: deal the cases of a table to hospitals, and write each hospital's data list."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from brats_fl.constants import SPLITS
from brats_fl.datalists import DATALIST_FILE, DataList, write_datalist
from brats_fl.errors import CaseError, DataListError
from brats_fl_tools.case_splits import SPLIT_RULE, check_disjoint, split_site
from brats_fl_tools.case_table import CaseRow, check_files, read_case_table
from brats_fl_tools.institutions import UNLISTED, assign_origins, read_origins, shortened
from brats_fl_tools.site_strategies import (
    DEFAULT_SITES,
    RULES,
    assign_by_hospital,
    assign_by_institution,
    assign_evenly,
)

PARTITION_FILE = "partition.json"
"""Record of a partition; written last, so that a folder without it is not whole."""


class Strategy(str, Enum):
    """How cases are dealt to sites."""

    INSTITUTION = "institution"
    EVEN = "even"


@dataclass(frozen=True)
class Partition:
    """Who has which case, and how that came about."""

    datalists: tuple[DataList, ...]
    """One for each site, sorted by site."""
    institutions: dict[str, dict[str, int]]
    """Site -> institution -> cases."""
    rule: str
    left_out: tuple[str, ...]
    """Cases without a label, which no hospital gets."""


def partition_cases(
    rows: Sequence[CaseRow],
    strategy: Strategy,
    sites: int | None = None,
    validation: float = 0.2,
    test: float = 0.2,
    seed: int = 0,
) -> Partition:
    """Deal labelled cases to sites, and each site's to training, validation and testing.

    Args:
        rows: Cases; their order does not matter.
        strategy: How sites are chosen.
        sites: Number of sites; five, or one for each value of the column ``hospital``, where None.
        validation: Share of a site's patients for validation, in [0, 1).
        test: Share of a site's patients for testing, in [0, 1).
        seed: Of the shuffles.

    Raises:
        CaseError: The cases do not suffice for the sites, have no labels, or lack what the strategy needs.
    """
    labelled = [row for row in rows if row.label is not None]
    if not labelled:
        raise CaseError(f"none of the {len(rows)} cases has a label; a hospital's list needs labelled cases")
    if strategy is Strategy.EVEN:
        rule, assigned = "even", assign_evenly(labelled, sites or DEFAULT_SITES, seed)
    elif any(row.hospital for row in labelled):
        rule, assigned = "hospital", assign_by_hospital(labelled, sites)
    else:
        rule, assigned = "institution", assign_by_institution(labelled, sites or DEFAULT_SITES)
    datalists = tuple(split_site(site, cases, validation, test, seed) for site, cases in assigned.items())
    check_disjoint(datalists)
    return Partition(
        datalists=datalists,
        institutions={
            site: dict(sorted(Counter(row.institution or "unknown" for row in cases).items()))
            for site, cases in assigned.items()
        },
        rule=RULES[rule],
        left_out=tuple(sorted(row.case for row in rows if row.label is None)),
    )


def write_partition(out: Path, partition: Partition, record: dict[str, Any], force: bool = False) -> None:
    """Write ``<site>/datalist.json`` for each site and ``partition.json`` with what was done.

    With ``force`` the data lists and the record in ``out`` are replaced, those of sites that are no more are
    removed, and other files stay.

    Raises:
        DataListError: ``out`` is not empty and ``force`` is not given.
    """
    refuse_existing_sites(out, force)
    out.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        lists = {datalist.site: Path(datalist.site, DATALIST_FILE) for datalist in partition.datalists}
        for datalist in partition.datalists:
            write_datalist(scratch / lists[datalist.site], datalist)
        sites = {d.site: _describe(scratch / lists[d.site], d, partition) for d in partition.datalists}
        record = {**record, "sites": sites}
        (scratch / PARTITION_FILE).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        out.mkdir(exist_ok=True)
        for stale in (out / PARTITION_FILE, *out.glob(f"*/{DATALIST_FILE}")):
            stale.unlink(missing_ok=True)
        for file in (*lists.values(), Path(PARTITION_FILE)):
            (out / file).parent.mkdir(exist_ok=True)
            (scratch / file).replace(out / file)
    finally:
        shutil.rmtree(scratch)


def refuse_existing_sites(out: Path, force: bool) -> None:
    """Raise ``DataListError`` where ``out`` is a file, or holds something and ``force`` is not given."""
    if out.exists() and not out.is_dir():
        raise DataListError(f"{out}: is a file; --out names a folder for the sites")
    if out.is_dir() and any(out.iterdir()) and not force:
        raise DataListError(f"{out}: is not empty; give --force to replace its data lists, or another --out")


def _describe(file: Path, datalist: DataList, partition: Partition) -> dict[str, Any]:
    cases = [case for split in SPLITS for case in datalist.split(split)]
    return {
        "institutions": partition.institutions[datalist.site],
        "patients": len({case.patient for case in cases}),
        "cases": {split: len(datalist.split(split)) for split in SPLITS},
        "datalist_sha256": _sha256(file),
    }


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def partition(
    cases: Annotated[Path, typer.Argument(metavar="CASES", help="Case table of `brats-fl import`.")],
    strategy: Annotated[Strategy, typer.Option("--strategy", help="What decides a case's site.")],
    out: Annotated[Path, typer.Option("--out", metavar="SITES", help="Folder to write, a subfolder a site.")],
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
        typer.Option("--sites", min=1, help="Number of sites [default: 5, or as many as the column hospital names]."),
    ] = None,
    validation: Annotated[float, typer.Option(help="Share of a site's patients for validation, 0 to 1.")] = 0.2,
    test: Annotated[float, typer.Option(help="Share of a site's patients for testing, 0 to 1.")] = 0.2,
    seed: Annotated[int, typer.Option(help="Of the shuffles; the same seed gives the same lists.")] = 0,
    force: Annotated[bool, typer.Option("--force", help="Replace the data lists in SITES; other files stay.")] = False,
) -> None:
    """Write SITES/<site>/datalist.json, one for each hospital, and SITES/partition.json, the record.

    Each hospital's cases are split into training, validation and testing. A patient is at one site and in one
    split. Cases without a label are left out.
    """
    if not (validation >= 0 and test >= 0 and validation + test < 1):
        raise typer.BadParameter(
            f"must be >= 0 and below 1 together (got {validation:g} and {test:g})",
            param_hint="--validation, --test",
        )
    if institutions is not None and strategy is not Strategy.INSTITUTION:
        raise typer.BadParameter("goes with --strategy institution only", param_hint="--institutions")
    refuse_existing_sites(out, force)
    rows = read_case_table(cases)
    check_files(cases, rows)
    if institutions is not None:
        rows = assign_origins(institutions, rows, read_origins(institutions))
    result = partition_cases(rows, strategy, sites, validation, test, seed)
    record = {
        "strategy": strategy.value,
        "rule": result.rule,
        "split_rule": SPLIT_RULE,
        "seed": seed,
        "validation": validation,
        "test": test,
        "inputs": {
            name: {"path": str(path), "sha256": _sha256(path)}
            for name, path in (("cases", cases), ("institutions", institutions))
            if path is not None
        },
        "left_out": {"reason": "no label", "cases": list(result.left_out)},
    }
    write_partition(out, result, record, force)
    _print_partition(out, result)


def _print_partition(out: Path, partition: Partition) -> None:
    """Counts on standard output; what the user should know besides on standard error."""
    table = Table("site", "institutions", *SPLITS, "cases", title=f"{out}")
    for datalist in partition.datalists:
        origins = partition.institutions[datalist.site]
        counts = [len(datalist.split(split)) for split in SPLITS]
        names = ", ".join(f"{name} ({count})" for name, count in origins.items())
        table.add_row(datalist.site, names, *map(str, (*counts, sum(counts))))
    Console(soft_wrap=False).print(table)
    if partition.left_out:
        typer.echo(
            f"warning: {len(partition.left_out)} cases have no label and are left out: {shortened(partition.left_out)}",
            err=True,
        )
    unlisted = sum(origins.get(UNLISTED, 0) for origins in partition.institutions.values())
    if unlisted:
        typer.echo(
            f"warning: {unlisted} cases were new in BraTS 2020, their institution is not published; they are "
            f"kept together as institution {UNLISTED!r}",
            err=True,
        )
    empty = [datalist.site for datalist in partition.datalists if not datalist.validation]
    if empty:
        typer.echo(
            f"warning: no validation case at {', '.join(empty)}; a site has one from three patients on, "
            "where --validation is above 0",
            err=True,
        )
