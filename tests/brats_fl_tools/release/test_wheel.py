"""The wheel of a commit: the same to the bit from any clone, and of nothing that is in no commit."""

from __future__ import annotations

import os
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest

from brats_fl.provenance import hash_file
from brats_fl_tools.release.wheel import ReleaseError, build_wheel
from brats_fl_tools.repository import ROOT

pytestmark = pytest.mark.skipif(
    not shutil.which("git") or not (ROOT / ".git").exists(), reason="a wheel is built from a git checkout"
)


def clone(folder: Path, umask: int) -> Path:
    """A clone of this checkout's last commit, with the file modes of a user's umask."""
    subprocess.run(["git", "clone", "-q", str(ROOT), str(folder)], check=True, umask=umask)
    return folder


@pytest.mark.slow  # pip fetches setuptools for each build
def test_wheel_is_the_same_to_the_bit_whoever_builds_it_and_says_its_commit(tmp_path: Path):
    first, second = clone(tmp_path / "a", 0o022), clone(tmp_path / "somewhere else", 0o077)
    for file in (second / "custom").rglob("*.py"):
        os.utime(file, (0, 0))

    wheels = [build_wheel(first, tmp_path / "first"), build_wheel(second, tmp_path / "second")]

    assert wheels[0].name == wheels[1].name
    assert hash_file(wheels[0]) == hash_file(wheels[1])
    head = subprocess.run(["git", "-C", first, "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip()
    assert head in zipfile.ZipFile(wheels[0]).read("brats_fl_tools/_built.py").decode()


@pytest.mark.slow  # two builds
def test_version_is_that_of_the_tag_and_later_commits_count_from_it(tmp_path: Path):
    repository = clone(tmp_path / "a", 0o022)
    git = ["git", "-C", str(repository), "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*git, "tag", "v7.1.0"], check=True)
    tagged = build_wheel(repository, tmp_path / "out")
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "later"], check=True)
    later = build_wheel(repository, tmp_path / "out")

    assert (tagged.name, later.name) == (
        "brats_fl-7.1.0-py3-none-any.whl",
        "brats_fl-7.1.1.dev1-py3-none-any.whl",
    )


def test_change_that_is_in_no_commit_is_not_released(tmp_path: Path):
    repository = clone(tmp_path / "a", 0o022)
    (repository / "README.md").write_text("other")

    with pytest.raises(ReleaseError, match="1 changed files are in no commit"):
        build_wheel(repository, tmp_path / "out")


def test_folder_without_git_is_not_released(tmp_path: Path):
    with pytest.raises(ReleaseError, match="a release is made from a git checkout"):
        build_wheel(tmp_path, tmp_path / "out")
