"""The search finds what it looks for, however deep it is packed, and nothing where there is nothing."""

from __future__ import annotations

import gzip
import io
import sqlite3
import tarfile
import zipfile
import zlib

import nibabel as nib
import numpy as np
import pytest
import torch

from brats_fl_tools.drill.faults.searching import search, voxels_of, words_of

SOUGHT = {"a name": words_of("canary-7391"), "voxels": voxels_of([731, 417, 613, 389])}


def zipped(content: bytes) -> bytes:
    """A file in an archive."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("inner.bin", content)
    return file.getvalue()


def tarred(content: bytes) -> bytes:
    """A file in a tape archive."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        member = tarfile.TarInfo("inner.bin")
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    return file.getvalue()


@pytest.mark.parametrize("pack", [bytes, zipped, tarred, gzip.compress, zlib.compress, lambda c: zipped(zipped(c))])
def test_text_is_found_however_it_is_packed(tmp_path, pack):
    (tmp_path / "file").write_bytes(pack(b"x" * 100 + b"canary-7391"))

    assert set(search(tmp_path, SOUGHT).values()) == {"a name"}


@pytest.mark.parametrize("kind", [np.int16, np.float32, np.float64])
def test_voxels_are_found_in_a_checkpoint_from_either_end(tmp_path, kind):
    row = np.array([9, 731, 417, 613, 389, 9]).astype(kind)
    torch.save({"model": torch.from_numpy(row)}, tmp_path / "forwards.pt")
    torch.save({"model": torch.from_numpy(row[::-1].copy())}, tmp_path / "backwards.pt")

    found = search(tmp_path, SOUGHT)

    assert {place.split("!")[0] for place in found} == {"backwards.pt", "forwards.pt"}


def test_voxels_are_found_in_a_packed_scan(tmp_path):
    scan = np.zeros((8, 3, 3), dtype=np.int16)
    scan[2:6, 1, 1] = [731, 417, 613, 389]
    nib.save(nib.Nifti1Image(scan, np.eye(4)), tmp_path / "scan.nii.gz")

    assert set(search(tmp_path, SOUGHT).values()) == {"voxels"}


def test_text_is_found_in_a_database(tmp_path):
    with sqlite3.connect(tmp_path / "curves.db") as base:
        base.execute("create table run (name text)")
        base.execute("insert into run values ('canary-7391')")

    assert set(search(tmp_path, SOUGHT).values()) == {"a name"}


def test_name_of_a_file_counts_as_well(tmp_path):
    (tmp_path / "canary-7391.log").write_bytes(b"")

    assert search(tmp_path, SOUGHT) == {"canary-7391.log": "a name"}


def test_folder_without_it_holds_nothing(tmp_path):
    (tmp_path / "log.txt").write_text("round=1 site=hospital-2 status=MODEL_ERROR", encoding="utf-8")
    torch.save({"model": torch.arange(1000)}, tmp_path / "model.pt")

    assert search(tmp_path, SOUGHT) == {}
