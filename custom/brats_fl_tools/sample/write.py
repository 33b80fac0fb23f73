"""Five sample hospitals on disk, in BraTS 2020's file layout, with their data lists and a case table.

```
SITES/cases.csv
SITES/hospital-1/datalist.json
SITES/hospital-1/data/Sample_h1_001/Sample_h1_001_{t1,t1ce,t2,flair,seg}.nii.gz
```
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import nibabel as nib
import numpy as np
import typer
from numpy.typing import NDArray

from brats_fl.cases.datalists import DATALIST_FILE, Case, DataList, write_datalist
from brats_fl.constants import MODALITIES, SITES
from brats_fl.errors import BratsFLError
from brats_fl_tools.data.case_table import CaseRow, write_case_table
from brats_fl_tools.data.synthetic import SYNTHETIC
from brats_fl_tools.one_writer import writes
from brats_fl_tools.own_folders import claim, refuse_foreign
from brats_fl_tools.sample.anatomy import load_atlas
from brats_fl_tools.sample.case import case_name, make_case
from brats_fl_tools.sample.fields import Grid
from brats_fl_tools.sample.hospitals import HOSPITALS

FILE_MODALITY = {"t1c": "t1ce", "t1n": "t1", "t2w": "t2", "t2f": "flair"}
"""Modality -> what BraTS 2020 calls it in file names."""

SPACING_MM = 2.0
FULL_SPACING_MM = 1.0
CASES_TABLE = "cases.csv"

MIN_CASES = 3
"""One case a split."""

MAX_CASES = 900
"""Case names have three digits."""

WORKERS = 2
"""Cases made at a time; at full size the process then needs 1.7 GB, at 2 mm 0.7 GB."""


@dataclass(frozen=True)
class Entry:
    """A case to be written."""

    site: str
    hospital: int
    index: int
    split: str

    @property
    def case(self) -> str:
        """Its name."""
        return case_name(self.hospital, self.index)

    @property
    def images(self) -> tuple[str, ...]:
        """Its scans in the order of ``MODALITIES``, relative to the site's folder."""
        return tuple(self._file(FILE_MODALITY[modality]) for modality in MODALITIES)

    @property
    def label(self) -> str:
        """Its label, relative to the site's folder."""
        return self._file("seg")

    def _file(self, suffix: str) -> str:
        return f"data/{self.case}/{self.case}_{suffix}.nii.gz"


def plan_entries(cases_per_site: int) -> list[Entry]:
    """The cases of all hospitals.

    Hospitals differ by a case, so that their weights in an average differ: with 6 a site they have 6, 7, 5, 6
    and 7, and never fewer than 3. Of six cases in a row the second is for validation, the third for testing,
    the others for training; so a case keeps its split when more cases are asked for.
    """
    entries = []
    for number, site in enumerate(SITES, start=1):
        count = max(MIN_CASES, cases_per_site + HOSPITALS[site].extra_cases)
        for index in range(1, count + 1):
            split = {2: "validation", 3: "testing"}.get(index % 6, "training")
            entries.append(Entry(site, number, index, split))
    return entries


@writes("out")
def write_sample(
    out: Path,
    cases_per_site: int,
    seed: int,
    full_size: bool,
    progress: Callable[[str], None],
    force: bool = False,
) -> Path:
    """Write five hospitals to ``out``, whole or not at all, and return ``out``.

    The files are the same bits for the same seed; a case depends on seed, hospital and number only.

    Args:
        out: Folder of the sites; made where it does not exist.
        cases_per_site: Cases of hospital-1; 3 to 900, the others have up to one more or fewer.
        seed: >= 0.
        full_size: 240 × 240 × 155 voxels of 1 mm in place of 120 × 120 × 78 of 2 mm.
        progress: Takes a line of text for every case written.
        force: Replace an earlier sample in ``out``.

    Raises:
        BratsFLError: ``out`` holds sites already, or cannot be written.
        ValueError: A number is out of its range.
    """
    if not MIN_CASES <= cases_per_site <= MAX_CASES:
        raise ValueError(f"cases_per_site must be {MIN_CASES} to {MAX_CASES} (got {cases_per_site})")
    _refuse_existing(out, force)
    entries = plan_entries(cases_per_site)
    spacing_mm = FULL_SPACING_MM if full_size else SPACING_MM
    with _os_errors_explained(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{out.name}.", suffix=".tmp", dir=out.parent) as name:
            scratch = Path(name)
            _write_cases(scratch, entries, seed, spacing_mm, progress)
            _write_lists(scratch, entries, spacing_mm)
            _move_into_place(scratch, out)
    return out


def _refuse_existing(out: Path, force: bool) -> None:
    if out.exists() and not out.is_dir():
        raise BratsFLError(f"{out}: is a file; --out names a folder for the sites")
    held = [name for name in (*SITES, CASES_TABLE) if (out / name).exists()]
    if held and not force:
        raise BratsFLError(f"{out}: already holds {held[0]}; give --force to replace it, or another --out")
    if held:
        refuse_foreign(out, "sample", force)
    for site in SITES:
        folder = out / site
        own = [folder / DATALIST_FILE, folder / "data", *(folder / "data").glob("Sample_h?_???")]
        strangers = [p for p in (*folder.glob("*"), *folder.glob("data/*")) if p not in own]
        if strangers:
            raise BratsFLError(f"{strangers[0]}: was not written by sample; move it away, or give another --out")


@contextmanager
def _os_errors_explained(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise BratsFLError(f"{out}: cannot be written ({reason}); nothing was left behind") from error


def _write_cases(
    root: Path, entries: list[Entry], seed: int, spacing_mm: float, progress: Callable[[str], None]
) -> None:
    started = time.monotonic()
    progress("reading the anatomy maps")
    load_atlas()
    with ThreadPoolExecutor(WORKERS) as pool:
        futures: dict[Future[str], Entry] = {
            pool.submit(_write_case, root, entry, seed, spacing_mm): entry for entry in entries
        }
        try:
            for done, future in enumerate(as_completed(futures), start=1):
                progress(_progress_line(futures[future], future.result(), done, len(entries), started))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _write_case(root: Path, entry: Entry, seed: int, spacing_mm: float) -> str:
    made = make_case(seed, entry.hospital, entry.index, spacing_mm)
    folder = root / entry.site
    for modality, file in zip(MODALITIES, entry.images, strict=True):
        write_nifti(folder / file, made.images[modality], made.affine)
    write_nifti(folder / entry.label, made.seg, made.affine)
    tumour_ml = np.count_nonzero(made.seg) * spacing_mm**3 / 1000
    return f"grade={made.grade} tumour_ml={tumour_ml:.0f}"


def _progress_line(entry: Entry, facts: str, done: int, total: int, started: float) -> str:
    seconds = time.monotonic() - started
    what = f"site={entry.site} case={entry.case} split={entry.split} {facts}"
    return f"{what} done={done}/{total} seconds={seconds:.0f}"


def write_nifti(path: Path, volume: NDArray[np.int16] | NDArray[np.uint8], affine: NDArray[np.float64]) -> None:
    """Write a volume with the header of BraTS's files, scanner coordinates in qform and sform, mm, and our mark."""
    image = nib.Nifti1Image(volume, affine)
    image.set_qform(affine, code=1)
    image.set_sform(affine, code=1)
    image.header.set_xyzt_units("mm")
    image.header["descrip"] = SYNTHETIC
    path.parent.mkdir(parents=True, exist_ok=True)
    image.to_filename(path)  # nibabel's gzip writes neither time nor name: the same bits for the same voxels


def _write_lists(root: Path, entries: list[Entry], spacing_mm: float) -> None:
    for site in SITES:
        splits: dict[str, list[Case]] = {"training": [], "validation": [], "testing": []}
        for entry in entries:
            if entry.site == site:
                splits[entry.split].append(Case(entry.case, entry.case, entry.images, entry.label))
        lists = {name: tuple(cases) for name, cases in splits.items()}
        write_datalist(root / site / DATALIST_FILE, DataList(site=site, **lists))
    write_case_table(root / CASES_TABLE, [_as_row(root.resolve(), entry, spacing_mm) for entry in entries])


def _as_row(root: Path, entry: Entry, spacing_mm: float) -> CaseRow:
    folder = root / entry.site
    return CaseRow(
        case=entry.case,
        patient=entry.case,
        image=tuple(folder / file for file in entry.images),
        label=folder / entry.label,
        labels=Case.labels,
        shape=Grid(spacing_mm).shape,
        spacing_mm=(spacing_mm,) * 3,
        institution=entry.site,
        grade="LGG" if HOSPITALS[entry.site].low_grade else "HGG",
    )


def _move_into_place(scratch: Path, out: Path) -> None:
    claim(out, "sample")
    for name in (*SITES, CASES_TABLE):
        target = out / name
        if target.is_dir():
            shutil.rmtree(target)
        (scratch / name).replace(target)


def sample(
    out: Annotated[Path, typer.Option("--out", metavar="SITES", help="Folder to write the hospitals to.")],
    cases_per_site: Annotated[
        int,
        typer.Option(
            "--cases-per-site",
            min=MIN_CASES,
            max=MAX_CASES,
            help="Cases of a hospital, at least 3; hospitals differ by one, so that their weights differ.",
        ),
    ] = 6,
    seed: Annotated[int, typer.Option("--seed", min=0, help="The same seed gives the same files.")] = 0,
    full_size: Annotated[
        bool, typer.Option("--full-size", help="240 x 240 x 155 voxels of 1 mm, not 120 x 120 x 78 of 2 mm.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier sample in SITES.")] = False,
) -> None:
    """Write SITES/hospital-1 to hospital-5: synthetic cases in BraTS 2020's layout and their data lists.

    Each hospital has a data folder and a datalist.json with training, validation and testing cases;
    SITES/cases.csv lists all. Scanners and patients differ: hospital-4 sees low-grade gliomas, without
    enhancing tumour. The anatomy is the MNI152 average, bent and folded anew for every case; no patient's
    data are in it.
    """
    write_sample(out, cases_per_site, seed, full_size, typer.echo, force)
    entries = plan_entries(cases_per_site)
    counts = " ".join(f"{site}={sum(entry.site == site for entry in entries)}" for site in SITES)
    typer.echo(f"{out}: cases={len(entries)} {counts}")
