"""The cases that a user names: of a data list, of a case table, or of a folder as ``brats-fl import`` reads it.

A case needs no label here. Nothing is read but the list, the table or the names of the files.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from brats_fl.cases.datalists import DATALIST_FILE, Case, DataList, find_datalists, parse_datalist
from brats_fl.cases.layouts import LOOKED_FOR, SEG, Findings, FoundCase, join_namesakes, search
from brats_fl.cases.nifti import nifti_stem
from brats_fl.constants import MODALITIES
from brats_fl.errors import CaseError, DataListError
from brats_fl.gate.acceptance import ACCEPTED_FILE
from brats_fl.typed import printable
from brats_fl_tools.data.case_table import CaseRow, read_case_table
from brats_fl_tools.data.folder_mapping import find_mapped_cases, read_mapping
from brats_fl_tools.data.institutions import shortened

TABLE_ENDING = ".csv"


@dataclass(frozen=True)
class GivenCases:
    """Cases, and where they were named."""

    datalist: DataList
    """Those of a table or a folder stand under ``testing``, where a label may be missing."""
    beside: Path
    """What is accepted of them is kept beside this file."""
    faults: tuple[tuple[str, str], ...] = ()
    """Case and what is wrong with its scans' names or number; such a case is not in the list."""
    label_faults: tuple[tuple[str, str], ...] = ()
    """The same of labels; such a case is in the list without its label."""
    strangers: tuple[Path, ...] = ()
    """NIfTI files of a folder that belong to no case."""


def read_given(where: Path, mapping: Path | None = None) -> list[GivenCases]:
    """The cases of a data list, of the lists of a folder of sites, of a case table, or of a folder of scans.

    Raises:
        DataListError, CaseError: There is none, or it cannot be read; or ``mapping`` is given for no folder of scans.
    """
    if not where.exists():
        raise DataListError(f"{where}: no such file or folder; give a data list, a case table or a folder of cases")
    if mapping is not None:
        if not where.is_dir():
            raise CaseError(f"{where}: is no folder; --mapping describes the folders of one, leave it out")
        return [read_folder(where, mapping)]
    if where.is_file() and nifti_stem(where) is not None:
        raise DataListError(f"{where}: is one scan; give the folder that holds the four of its case")
    if where.is_file() and where.suffix.lower() == TABLE_ENDING:
        return [read_table(where)]
    try:
        lists = find_datalists(where)
    except DataListError:
        return [read_folder(where)]
    return [GivenCases(parse_datalist(path), path) for path in lists]


def read_table(path: Path) -> GivenCases:
    """The cases of a case table."""
    return GivenCases(DataList(path.stem, testing=tuple(as_case(row) for row in read_case_table(path))), path)


def as_case(row: CaseRow) -> Case:
    """A row of the case table as a data list has it."""
    label = None if row.label is None else str(row.label)
    return Case(row.case, row.patient, tuple(str(scan) for scan in row.image), label, row.labels)


def read_folder(folder: Path, mapping: Path | None = None) -> GivenCases:
    """The cases of a folder, found as an import finds them.

    Raises:
        DataListError: It holds no case.
        CaseError: The mapping cannot be used.
    """
    root = folder.resolve()
    if mapping is None:
        findings = search(root)
    else:
        findings = Findings(tuple(find_mapped_cases(root, read_mapping(mapping))), (), ())
    # A label alone, such as a mask of an earlier run, is no case.
    cases = join_namesakes(case for case in findings.cases if case.problems or set(case.files) - {SEG})
    if not cases:
        strangers = findings.strangers
        seen = f"; {len(strangers)} NIfTI files have other names, such as {strangers[0]}" if strangers else ""
        looked_for = f"{LOOKED_FOR}; for any other, describe it with --mapping" if mapping is None else str(mapping)
        raise DataListError(f"{folder}: holds no SITE/{DATALIST_FILE} and no case{seen}. Looked for: {looked_for}")
    sound = [case for case in cases if not case.problems]
    return GivenCases(
        DataList(root.name, testing=tuple(_as_case(case) for case in sound)),
        root / ACCEPTED_FILE,
        faults=_faults((case.case, case.problems) for case in cases),
        label_faults=_faults((case.case, _why_no_label(case)) for case in sound),
        strangers=findings.strangers,
    )


def describe_strangers(files: Sequence[Path]) -> str:
    """A warning of files that belong to no case."""
    names = shortened(printable(str(file)) for file in files)
    return f"warning: {len(files)} NIfTI files belong to no case: {names}"


def _why_no_label(found: FoundCase) -> tuple[str, ...]:
    """What is wrong with the label of a case, or that its layout does not tell what the values mean."""
    if found.label_problems or not found.question or SEG not in found.files:
        return found.label_problems
    return (f"{found.question}; import the folder with --labels and give its case table in place of the folder",)


def _as_case(found: FoundCase) -> Case:
    label = None if _why_no_label(found) else found.files.get(SEG)
    image = tuple(str(found.files[modality]) for modality in MODALITIES)
    return Case(found.case, found.patient or found.case, image, None if label is None else str(label), found.labels)


def _faults(problems: Iterable[tuple[str, tuple[str, ...]]]) -> tuple[tuple[str, str], ...]:
    return tuple((case, "; ".join(lines)) for case, lines in problems if lines)
