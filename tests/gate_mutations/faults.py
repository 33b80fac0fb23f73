"""The catalogue of faults: what is planted in a clean case, and the rule of the gate that must find it."""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from tests.gate_mutations.clean_cases import Clean, save, with_file

from brats_fl.cases.datalists import Case, DataList
from brats_fl.constants import LABEL, MODALITIES

Plant = Callable[[Clean, Clean, Path], "Case | list[DataList] | None"]


@dataclass(frozen=True)
class Fault:
    """A fault, and the rule that must find it."""

    name: str
    rule: str
    plant: Plant
    """(clean case, another clean case, empty folder) -> the case with the fault, or lists; None where it has no place
    in this case."""


FAULTS: list[Fault] = []


def fault(name: str, rule: str) -> Callable[[Plant], Plant]:
    """Add a planter to the catalogue."""

    def add(plant: Plant) -> Plant:
        FAULTS.append(Fault(name, rule, plant))
        return plant

    return add


def listed(*training: Case, testing: tuple[Case, ...] = (), site: str = "hospital-1") -> DataList:
    return DataList(site, training=training, testing=testing)


def steps_of(clean: Clean, mm: float) -> int:
    """Voxels along the first axis that make up a length."""
    return round(mm / float(nib.affines.voxel_sizes(clean.affine)[0]))


def brain_of(clean: Clean) -> NDArray[np.bool_]:
    return clean.voxels["t1n"] != 0


# Files


@fault("a scan is missing", "G01-file-missing")
def _(clean: Clean, other: Clean, folder: Path) -> Case:
    return with_file(clean.case, "t2w", folder / "absent.nii.gz")


@fault("the label is missing", "G01-file-missing")
def _(clean: Clean, other: Clean, folder: Path) -> Case:
    return with_file(clean.case, LABEL, folder / "absent.nii.gz")


@fault("a .nii.gz is cut short", "G03-file-truncated")
def _(clean: Clean, other: Clean, folder: Path) -> Case:
    path = save(folder / "t2f.nii.gz", clean.voxels["t2f"], clean.affine)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 9 // 10])
    return with_file(clean.case, "t2f", path)


@fault("a .nii is cut short", "G03-file-truncated")
def _(clean: Clean, other: Clean, folder: Path) -> Case:
    path = save(folder / "t1c.nii", clean.voxels["t1c"], clean.affine)
    path.write_bytes(path.read_bytes()[:-1000])
    return with_file(clean.case, "t1c", path)


@fault("a web page was saved under the name of a scan", "G02-file-unreadable")
def _(clean: Clean, other: Clean, folder: Path) -> Case:
    path = folder / "t1n.nii"
    path.write_text("<html>Please log in</html>" * 100)
    return with_file(clean.case, "t1n", path)


@fault("bytes in the middle of a .nii.gz are wrong", "G02-file-unreadable")
def _(clean: Clean, other: Clean, folder: Path) -> Case:
    path = save(folder / "t2w.nii.gz", clean.voxels["t2w"], clean.affine)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 64] = bytes(64)
    path.write_bytes(content)
    return with_file(clean.case, "t2w", path)


@fault("a packed file is named .nii", "G02-file-unreadable")
def _(clean: Clean, other: Clean, folder: Path) -> Case:
    path = save(folder / "t1n_plain.nii", clean.voxels["t1n"], clean.affine)
    with gzip.open(folder / "t1n.nii", "wb", compresslevel=1) as packed:
        packed.write(path.read_bytes())
    return with_file(clean.case, "t1n", folder / "t1n.nii")


@fault("a scan is in colour", "G02-file-unreadable")
def _(clean: Clean, other: Clean, folder: Path) -> Case:
    voxels = clean.voxels["t1c"]
    colour = np.zeros(voxels.shape, dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    for channel in ("R", "G", "B"):
        colour[channel] = voxels * (255 / voxels.max())
    return with_file(clean.case, "t1c", save(folder / "t1c.nii", colour, clean.affine))


@fault("a scan has complex numbers", "G02-file-unreadable")
def _(clean: Clean, other: Clean, folder: Path) -> Case:
    return with_file(clean.case, "t2w", save(folder / "t2w.nii", clean.voxels["t2w"] * 1j, clean.affine))


@fault("a scan is 4-D", "G04-not-3d")
def _(clean: Clean, other: Clean, folder: Path) -> Case:
    return clean.files(folder, t2f=np.stack([clean.voxels["t2f"]] * 2, axis=3))


@fault("the list names a volume that a 4-D file does not have", "G04-not-3d")
def _(clean: Clean, other: Clean, folder: Path) -> Case:
    path = save(folder / "all.nii", np.stack([clean.voxels[name] for name in ("t1c", "t1n")], axis=3), clean.affine)
    return with_file(clean.case, "t2f", f"{path}#2")


# Grids


@fault("a scan lacks its last slices", "G05-shape-differs")
def _(clean: Clean, other: Clean, folder: Path) -> Case:
    return clean.files(folder, t1n=clean.voxels["t1n"][:, :, :-5])


@fault("the label has its axes in another order, of other length", "G05-shape-differs")
def _(clean: Clean, other: Clean, folder: Path) -> Case:
    return clean.files(folder, label=clean.voxels[LABEL].transpose(2, 0, 1))


def _on_grid(clean: Clean, folder: Path, name: str, affine: NDArray[np.float64]) -> Case:
    return with_file(clean.case, name, save(folder / f"{name}.nii", clean.voxels[name], affine))


@fault("a scan's header says another position", "G06-affine-differs")
def _(clean: Clean, other: Clean, folder: Path) -> Case:
    affine = clean.affine.copy()
    affine[1, 3] += 5
    return _on_grid(clean, folder, "t2w", affine)


@fault("a scan's header says another spacing", "G06-affine-differs")
def _(clean: Clean, other: Clean, folder: Path) -> Case:
    return _on_grid(clean, folder, "t1n", clean.affine @ np.diag([1, 1, 1.2, 1]))


@fault("the label's header says another orientation", "G06-affine-differs")
def _(clean: Clean, other: Clean, folder: Path) -> Case:
    return _on_grid(clean, folder, LABEL, clean.affine @ np.diag([-1, -1, 1, 1]))


@fault("a scan's header is tilted by 3 degrees", "G06-affine-differs")
def _(clean: Clean, other: Clean, folder: Path) -> Case:
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(0.052), -np.sin(0.052)], [np.sin(0.052), np.cos(0.052)]]
    return _on_grid(clean, folder, "t1c", turn @ clean.affine)


@fault("a header has no geometry: its affine is singular", "G07-grid-invalid")
def _(clean: Clean, other: Clean, folder: Path) -> Case:
    image = nib.Nifti1Image(clean.voxels["t1c"], None)
    image.header["sform_code"], image.header["qform_code"] = 1, 0
    for row in ("srow_x", "srow_y", "srow_z"):
        image.header[row] = 0
    path = folder / "t1c.nii"
    path.write_bytes(image.header.binaryblock + bytes(4) + np.asarray(image.dataobj).tobytes(order="F"))
    return with_file(clean.case, "t1c", path)


def _all_on(clean: Clean, folder: Path, affine: NDArray[np.float64], *axes: int) -> Case:
    case = clean.case
    for name, voxels in clean.voxels.items():
        flipped = np.flip(voxels, axes) if axes else voxels
        case = with_file(case, name, save(folder / f"{name}.nii", flipped, affine))
    return case


@fault("the case has voxels of 3 mm", "G08-spacing-not-1mm")
def _(clean: Clean, other: Clean, folder: Path) -> Case:
    zoom = nib.affines.voxel_sizes(clean.affine) / 3
    case = clean.case
    for name, voxels in clean.voxels.items():
        small = ndimage.zoom(voxels, zoom, order=0)
        case = with_file(case, name, save(folder / f"{name}.nii", small, clean.affine @ np.diag([*(1 / zoom), 1])))
    return case


@fault("the case is stored in RAS", "G09-not-template-space")
def _(clean: Clean, other: Clean, folder: Path) -> Case:
    affine = clean.affine @ np.diag([-1, -1, 1, 1])
    affine[:3, 3] += clean.affine[:3, :3] @ [clean.voxels["t1c"].shape[0] - 1, clean.voxels["t1c"].shape[1] - 1, 0]
    return _all_on(clean, folder, affine, 0, 1)


@fault("the case is cropped to the brain", "G09-not-template-space")
def _(clean: Clean, other: Clean, folder: Path) -> Case:
    box = ndimage.find_objects(brain_of(clean).astype(np.uint8))[0]
    affine = clean.affine.copy()
    affine[:3, 3] += clean.affine[:3, :3] @ [part.start for part in box]
    case = clean.case
    for name, voxels in clean.voxels.items():
        case = with_file(case, name, save(folder / f"{name}.nii", voxels[box], affine))
    return case


@fault("the case is in MNI's space, its middle at 0", "G09-not-template-space")
def _(clean: Clean, other: Clean, folder: Path) -> Case:
    affine = clean.affine.copy()
    affine[:3, 3] += [-120, -120, -70]
    return _all_on(clean, folder, affine)


# Lists


@fault("a case is listed twice in a split", "G11-case-twice")
def _(clean: Clean, other: Clean, folder: Path) -> list[DataList]:
    return [listed(clean.case, other.case, clean.case)]


@fault("a case is listed for training and for testing", "G11-case-twice")
def _(clean: Clean, other: Clean, folder: Path) -> list[DataList]:
    return [listed(clean.case, other.case, testing=(clean.case,))]


@fault("a case is at two hospitals", "G11-case-twice")
def _(clean: Clean, other: Clean, folder: Path) -> list[DataList]:
    return [listed(clean.case), listed(other.case, clean.case, site="hospital-2")]


@fault("a patient is in two splits", "G12-patient-twice")
def _(clean: Clean, other: Clean, folder: Path) -> list[DataList]:
    return [listed(clean.case, testing=(replace(other.case, patient=clean.case.patient),))]


@fault("a patient is at two hospitals", "G12-patient-twice")
def _(clean: Clean, other: Clean, folder: Path) -> list[DataList]:
    return [listed(clean.case), listed(replace(other.case, patient=clean.case.patient), site="hospital-2")]


@fault("two cases name one file", "G13-scan-twice")
def _(clean: Clean, other: Clean, folder: Path) -> list[DataList]:
    return [listed(clean.case, with_file(other.case, "t2f", clean.case.image[3]))]


def _copy(clean: Clean, folder: Path) -> Case:
    """The case under another name, its scans as floats on another scale."""
    scans = {name: clean.voxels[name].astype(np.float32) * np.float32(0.37) for name in MODALITIES}
    return replace(clean.files(folder, **scans), case="copy", patient="copy")


@fault("a case is in two splits under two names, saved anew on another scale", "G13-scan-twice")
def _(clean: Clean, other: Clean, folder: Path) -> list[DataList]:
    return [listed(clean.case, testing=(_copy(clean, folder),))]


@fault("a case is at two hospitals under two names, saved anew on another scale", "G13-scan-twice")
def _(clean: Clean, other: Clean, folder: Path) -> list[DataList]:
    return [listed(clean.case), listed(_copy(clean, folder), site="hospital-2")]


@fault("one scan of a case is another patient's", "G13-scan-twice")
def _(clean: Clean, other: Clean, folder: Path) -> list[DataList]:
    path = folder / "t1n.nii"
    shutil.copy(save(folder / "of_other.nii", other.voxels["t1n"], other.affine), path)
    return [listed(other.case, with_file(clean.case, "t1n", path))]


# Values


@fault("a scan has a NaN", "G21-not-finite")
def _(clean: Clean, other: Clean, folder: Path) -> Case:
    voxels = clean.voxels["t1c"].astype(np.float32)
    voxels[tuple(size // 2 for size in voxels.shape)] = np.nan
    return clean.files(folder, t1c=voxels)


@fault("a scan has an infinite voxel", "G21-not-finite")
def _(clean: Clean, other: Clean, folder: Path) -> Case:
    voxels = clean.voxels["t2f"].astype(np.float32)
    voxels[0, 0, 0] = np.inf
    return clean.files(folder, t2f=voxels)


@fault("a scan is 0 everywhere", "G22-constant")
def _(clean: Clean, other: Clean, folder: Path) -> Case:
    return clean.files(folder, t2w=np.zeros_like(clean.voxels["t2w"]))


@fault("a scan is a brain mask", "G22-constant")
def _(clean: Clean, other: Clean, folder: Path) -> Case:
    return clean.files(folder, t1n=brain_of(clean).astype(np.int16))


@fault("a scan is z-scored already", "G23-negative")
def _(clean: Clean, other: Clean, folder: Path) -> Case:
    brain, voxels = brain_of(clean), clean.voxels["t1n"].astype(np.float32)
    voxels[brain] = (voxels[brain] - voxels[brain].mean()) / voxels[brain].std()
    return clean.files(folder, t1n=voxels)


@fault("a scan is clipped at its 99th percentile", "G24-saturated")
def _(clean: Clean, other: Clean, folder: Path) -> Case:
    voxels = clean.voxels["t2w"]
    limit = int(np.percentile(voxels[brain_of(clean)], 99))
    return clean.files(folder, t2w=np.minimum(voxels, limit).astype(np.int16))


@fault("a scan was scaled beyond 255 and stored in 8 bits", "G24-saturated")
def _(clean: Clean, other: Clean, folder: Path) -> Case:
    voxels = clean.voxels["t1c"]
    scale = 255 / np.percentile(voxels[brain_of(clean)], 97)
    return clean.files(folder, t1c=np.clip(voxels * scale, 0, 255).astype(np.uint8))


@fault("one voxel of a scan is at the end of 16-bit integers", "G27-hot-voxels")
def _(clean: Clean, other: Clean, folder: Path) -> Case:
    voxels = clean.voxels["t2w"].astype(np.float64)
    # On a scale on which the brain ends at 700, as scanners write it.
    voxels *= 700 / np.percentile(voxels[brain_of(clean)], 99)
    voxels[tuple(size // 2 for size in voxels.shape)] = 32767
    return clean.files(folder, t2w=voxels.astype(np.int16))


@fault("t1n was copied over t1c", "G25-same-volume-twice")
def _(clean: Clean, other: Clean, folder: Path) -> Case:
    return clean.files(folder, t1c=clean.voxels["t1n"])


@fault("t2f is t2w on another scale", "G25-same-volume-twice")
def _(clean: Clean, other: Clean, folder: Path) -> Case:
    return clean.files(folder, t2f=clean.voxels["t2w"].astype(np.float32) * np.float32(2.5))


@fault("one file is listed for two modalities", "G13-scan-twice")
def _(clean: Clean, other: Clean, folder: Path) -> Case:
    return with_file(clean.case, "t1n", clean.case.image[0])


def _reorder(*order: int) -> Plant:
    return lambda clean, other, folder: replace(clean.case, image=tuple(clean.case.image[k] for k in order))


for _name, _order in {
    "t1c and t1n are swapped": (1, 0, 2, 3),
    "t2w and t2f are swapped": (0, 1, 3, 2),
    "t1n and t2w are swapped": (0, 2, 1, 3),
    "t1n and t2f are swapped": (0, 3, 2, 1),
    "t1c and t2w are swapped": (2, 1, 0, 3),
    "t1c and t2f are swapped": (3, 1, 2, 0),
    "the scans are listed by file name, or in MSD's order: t2f, t1n, t1c, t2w": (3, 1, 0, 2),
}.items():
    fault(_name, "G26-modalities-swapped")(_reorder(*_order))


# Brain


def _with_skull(clean: Clean, name: str) -> NDArray[Any]:
    """The scan with 6 mm of dark bone and 12 mm of bright skin, fat and muscle around the brain."""
    brain, voxels = brain_of(clean), clean.voxels[name].copy()
    nearly_round = ndimage.generate_binary_structure(3, 2)
    bone = ndimage.binary_dilation(brain, nearly_round, iterations=steps_of(clean, 6))
    skin = ndimage.binary_dilation(bone, nearly_round, iterations=steps_of(clean, 12)) & ~bone
    middle = float(np.median(voxels[brain]))
    voxels[bone & ~brain] = max(1, int(0.1 * middle))
    voxels[skin] = int(1.2 * middle)
    return voxels


@fault("no scan is stripped of its skull", "G31-not-stripped")
def _(clean: Clean, other: Clean, folder: Path) -> Case:
    return clean.files(folder, **{name: _with_skull(clean, name) for name in MODALITIES})


@fault("one scan is not stripped of its skull", "G31-not-stripped")
def _(clean: Clean, other: Clean, folder: Path) -> Case:
    return clean.files(folder, t1c=_with_skull(clean, "t1c"))


@fault("around the brain is noise", "G31-not-stripped")
def _(clean: Clean, other: Clean, folder: Path) -> Case:
    voxels = clean.voxels["t2f"]
    noise = np.random.default_rng(0).integers(1, 9, voxels.shape, dtype=voxels.dtype)
    return clean.files(folder, t2f=np.where(brain_of(clean), voxels, noise))


@fault("around the brain is -1", "G31-not-stripped")
def _(clean: Clean, other: Clean, folder: Path) -> Case:
    return clean.files(folder, t2w=np.where(brain_of(clean), clean.voxels["t2w"], -1).astype(np.int16))


def _cut(clean: Clean, folder: Path, axis: int, mm: float) -> Case:
    """All scans without the last part of the brain along an axis."""
    there = np.flatnonzero(brain_of(clean).any(axis=tuple(k for k in range(3) if k != axis)))
    beyond = [slice(None)] * 3
    beyond[axis] = slice(int(there[-1]) + 1 - steps_of(clean, mm), None)
    cut = {name: clean.voxels[name].copy() for name in MODALITIES}
    for voxels in cut.values():
        voxels[tuple(beyond)] = 0
    return clean.files(folder, **cut)


@fault("the top 20 mm of the brain are cut off", "G32-brain-cut-off")
def _(clean: Clean, other: Clean, folder: Path) -> Case:
    return _cut(clean, folder, 2, 20)


@fault("the back 20 mm of the brain are cut off", "G32-brain-cut-off")
def _(clean: Clean, other: Clean, folder: Path) -> Case:
    return _cut(clean, folder, 1, 20)


@fault("one scan is mirrored left to right", "G33-brains-differ")
def _(clean: Clean, other: Clean, folder: Path) -> Case:
    return clean.files(folder, t1n=clean.voxels["t1n"][::-1])


@fault("one scan is mirrored front to back", "G33-brains-differ")
def _(clean: Clean, other: Clean, folder: Path) -> Case:
    return clean.files(folder, t2w=clean.voxels["t2w"][:, ::-1])


@fault("one scan lies 8 mm off", "G33-brains-differ")
def _(clean: Clean, other: Clean, folder: Path) -> Case:
    return clean.files(folder, t2f=np.roll(clean.voxels["t2f"], steps_of(clean, 8), axis=1))


@fault("one scan lacks its upper third", "G33-brains-differ")
def _(clean: Clean, other: Clean, folder: Path) -> Case:
    voxels = clean.voxels["t2f"].copy()
    voxels[:, :, voxels.shape[2] * 55 // 100 :] = 0
    return clean.files(folder, t2f=voxels)


# Labels


def _values(clean: Clean, folder: Path, **mapping: float) -> Case:
    old = clean.voxels[LABEL]
    new = old.astype(np.float32 if any(value % 1 for value in mapping.values()) else np.uint8)
    for key, value in mapping.items():
        new[old == int(key[1:])] = value
    return clean.files(folder, label=new)


@fault("a label was resampled with interpolation", "G41-label-not-integer")
def _(clean: Clean, other: Clean, folder: Path) -> Case:
    shifted = ndimage.shift(clean.voxels[LABEL].astype(np.float32), (0.5, 0, 0), order=1)
    return clean.files(folder, label=shifted)


@fault("a label was scaled to 0 to 1", "G41-label-not-integer")
def _(clean: Clean, other: Clean, folder: Path) -> Case:
    return clean.files(folder, label=clean.voxels[LABEL].astype(np.float32) / 4)


@fault("a label has the unknown value 7", "G42-label-unknown-value")
def _(clean: Clean, other: Clean, folder: Path) -> Case:
    return _values(clean, folder, v1=7)


@fault("a label has the values 0, 50, 100 of a picture", "G42-label-unknown-value")
def _(clean: Clean, other: Clean, folder: Path) -> Case:
    return _values(clean, folder, v1=50, v2=100, v4=200)


def _enhancing(clean: Clean) -> NDArray[Any]:
    """A label with some enhancing tumour, inside the core where the case has none."""
    label = clean.voxels[LABEL].copy()
    if not np.any(label == 4):
        core = label == 1
        label[core & ~ndimage.binary_erosion(core, iterations=steps_of(clean, 2))] = 4
    return label


@fault("a label of BraTS 2023 is listed as of 2020", "G43-label-convention")
def _(clean: Clean, other: Clean, folder: Path) -> Case:
    label = _enhancing(clean)
    return clean.files(folder, label=np.where(label == 4, 3, label).astype(np.uint8))


@fault("a label of BraTS 2020 is listed as of 2023", "G43-label-convention")
def _(clean: Clean, other: Clean, folder: Path) -> Case:
    return replace(clean.files(folder, label=_enhancing(clean)), labels="brats2023")


@fault("a label of MSD is listed as of BraTS 2023: oedema is read as core", "G43-label-convention")
def _(clean: Clean, other: Clean, folder: Path) -> Case:
    return replace(_values(clean, folder, v1=2, v2=1, v4=3), labels="brats2023")


@fault("a label of BraTS 2023 is listed as of MSD: core is read as oedema", "G43-label-convention")
def _(clean: Clean, other: Clean, folder: Path) -> Case:
    return replace(_values(clean, folder, v4=3), labels="msd-task01")


@fault("oedema and enhancing tumour have each other's value", "G43-label-convention")
def _(clean: Clean, other: Clean, folder: Path) -> Case | None:
    return _values(clean, folder, v2=4, v4=2) if np.any(clean.voxels[LABEL] == 4) else None


@fault("core and enhancing tumour have each other's value", "G43-label-convention")
def _(clean: Clean, other: Clean, folder: Path) -> Case | None:
    return _values(clean, folder, v1=4, v4=1) if np.any(clean.voxels[LABEL] == 4) else None


@fault("a label is empty", "G44-label-empty")
def _(clean: Clean, other: Clean, folder: Path) -> Case:
    return clean.files(folder, label=np.zeros_like(clean.voxels[LABEL]))


@fault("a label has the whole tumour as core", "G45-label-part-missing")
def _(clean: Clean, other: Clean, folder: Path) -> Case:
    return _values(clean, folder, v2=1)


@fault("a label has no necrotic core", "G45-label-part-missing")
def _(clean: Clean, other: Clean, folder: Path) -> Case:
    return _values(clean, folder, v1=4)


@fault("a label lies outside the brain", "G46-label-outside-brain")
def _(clean: Clean, other: Clean, folder: Path) -> Case:
    label = clean.voxels[LABEL]
    there = np.flatnonzero(label.any(axis=(1, 2)))
    return clean.files(folder, label=np.roll(label, -int(there[0]), axis=0))


@fault("a label has its first two axes swapped", "G47-label-not-on-image")
def _(clean: Clean, other: Clean, folder: Path) -> Case:
    return clean.files(folder, label=clean.voxels[LABEL].transpose(1, 0, 2))


@fault("a label is mirrored left to right", "G47-label-not-on-image")
def _(clean: Clean, other: Clean, folder: Path) -> Case:
    return clean.files(folder, label=clean.voxels[LABEL][::-1])


@fault("a label is mirrored front to back", "G47-label-not-on-image")
def _(clean: Clean, other: Clean, folder: Path) -> Case:
    return clean.files(folder, label=clean.voxels[LABEL][:, ::-1])


@fault("a label is upside down", "G47-label-not-on-image")
def _(clean: Clean, other: Clean, folder: Path) -> Case:
    return clean.files(folder, label=clean.voxels[LABEL][:, :, ::-1])


@fault("a label is turned by 180 degrees", "G47-label-not-on-image")
def _(clean: Clean, other: Clean, folder: Path) -> Case:
    return clean.files(folder, label=clean.voxels[LABEL][::-1, ::-1])


def _in_cube(clean: Clean) -> tuple[dict[str, NDArray[Any]], NDArray[np.float64]]:
    """Scans and label cut or filled up to a cube: any order of axes fits its box."""
    shape = np.array(clean.voxels[LABEL].shape)
    size = int(shape[0])
    padding = [((size - int(n)) // 2, size - int(n) - (size - int(n)) // 2) for n in shape]
    affine = clean.affine.copy()
    affine[:3, 3] -= clean.affine[:3, :3] @ [before for before, _ in padding]
    return {name: np.pad(voxels, padding) for name, voxels in clean.voxels.items()}, affine


@fault("on cubes, the scans have their axes in another order and the label does not", "G47-label-not-on-image")
def _(clean: Clean, other: Clean, folder: Path) -> Case:
    voxels, affine = _in_cube(clean)
    case = clean.case
    for name, values in voxels.items():
        turned = values if name == LABEL else values.transpose(1, 2, 0)
        case = with_file(case, name, save(folder / f"{name}.nii", turned, affine))
    return case


@fault("a label lies 16 mm too far forward", "G47-label-not-on-image")
def _(clean: Clean, other: Clean, folder: Path) -> Case:
    return clean.files(folder, label=np.roll(clean.voxels[LABEL], -steps_of(clean, 16), axis=1))


@fault("a label lies 12 mm too high", "G47-label-not-on-image")
def _(clean: Clean, other: Clean, folder: Path) -> Case:
    return clean.files(folder, label=np.roll(clean.voxels[LABEL], steps_of(clean, 12), axis=2))


@fault("a label is another patient's", "G47-label-not-on-image")
def _(clean: Clean, other: Clean, folder: Path) -> Case:
    return clean.files(folder, label=other.voxels[LABEL])
