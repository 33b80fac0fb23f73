"""What a hospital keeps for itself: names and voxels are sought in all that others hold, after every kind of job."""

from __future__ import annotations

import contextlib
import secrets
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import nibabel as nib
import numpy as np

from brats_fl.cases.datalists import DATALIST_FILE, Case, DataList, read_datalist, write_datalist
from brats_fl.cases.scans import split_volume
from brats_fl.constants import SITES, SPLITS
from brats_fl.sharing.fingerprints import KEY_FILE, MIN_KEY_BYTES
from brats_fl_tools.drill.faults.searching import expect_nothing_leaked, search, voxels_of, words_of
from brats_fl_tools.drill.faults.verdicts import SITE, Fault, expect, expect_finished, expect_others_finished
from brats_fl_tools.drill.federation import Drill
from brats_fl_tools.drill.injected import CANARY
from brats_fl_tools.kit.site_files import site_files, write_site_files

VOXELS: Final = (731, 417, 613, 389, 571, 443, 677, 401)
"""A row of voxels that no scan holds by chance."""

SOUGHT: Final = {"the name of a case or folder": words_of(CANARY), "voxels": voxels_of(VOXELS)}


def canaries(drill: Drill) -> str:
    """Training that fails once, statistics and fingerprints of a hospital whose names and voxels are known."""
    datalist = marked_cases(drill)
    with data_list(drill, datalist), drill.broken({SITE: {"train": {"1": "raises"}}}):
        trained = drill.run("canaries", 2)
        expect_others_finished(drill, trained, 2)
        expect(trained.status(SITE, 0) == "ok", f"{SITE} is {trained.status(SITE, 0)} in round 0")
        expect(trained.status(SITE, 1) == "EXECUTION_EXCEPTION", f"{SITE} is {trained.status(SITE, 1)} in round 1")
        for job in ("brats_statistics", "brats_fingerprints"):
            expect_finished(drill.run(f"canaries-{job}", 0, job=job, tiny=False))
    own = set(search(drill.hosts.files(SITE), SOUGHT).values())
    expect(set(SOUGHT) <= own, f"the search does not even find all of it at {SITE} itself, only {own}")
    expect_nothing_leaked(drill, SOUGHT)
    return "training with a failure, statistics and fingerprints done; of names and voxels nothing at server and lead"


def marked_cases(drill: Drill) -> Path:
    """Copy the hospital's cases to names with a canary, with a row of known voxels in the first scan of each."""
    folder = drill.hosts.files(SITE) / f"data-{CANARY}"
    source = read_datalist(drill.hosts.files(SITE) / "data" / DATALIST_FILE)
    splits = {split: tuple(_marked(case, folder) for case in source.split(split)) for split in SPLITS}
    write_datalist(folder / DATALIST_FILE, DataList(site=source.site, **splits))
    return folder / DATALIST_FILE


def _marked(case: Case, folder: Path) -> Case:
    name = f"{CANARY}-{case.case}"
    target = folder / name
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)

    def copy(scan: str) -> str:
        return str(shutil.copy(split_volume(scan)[0], target / f"{CANARY}-{Path(scan).name}"))

    image = tuple(copy(scan) for scan in case.image)
    _mark_voxels(Path(image[0]))
    return replace(case, case=name, patient=name, image=image, label=copy(case.label) if case.label else None)


def _mark_voxels(scan: Path) -> None:
    image: Any = nib.load(scan)
    voxels = np.asarray(image.dataobj).astype(np.int16)
    x, y, z = (size // 2 for size in voxels.shape)
    voxels[x : x + len(VOXELS), y, z] = VOXELS
    nib.save(nib.Nifti1Image(voxels, image.affine), scan)


@contextlib.contextmanager
def data_list(drill: Drill, datalist: Path) -> Iterator[None]:
    """While the block runs, the hospital has another data list, and all hospitals a key for fingerprints."""
    key = secrets.token_bytes(MIN_KEY_BYTES)
    for site in SITES:
        (drill.kit_folder(site) / "local" / KEY_FILE).write_bytes(key)
    kit = drill.kit_of(SITE)
    write_site_files(site_files(kit, "strict", datalist))
    try:
        yield
    finally:
        write_site_files(site_files(kit, "strict", drill.hosts.files(SITE) / "data" / DATALIST_FILE))


FAULTS: Final[Mapping[str, Fault]] = {
    "canaries": Fault("no name and no voxel of a hospital is found at the server or the lead", canaries),
}
