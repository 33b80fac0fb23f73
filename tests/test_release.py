"""What a release states of itself in three places: tag, library, changelog."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

import brats_fl
from brats_fl_tools.repository import ROOT

SECTION = re.compile(r"(\d+\.\d+\.\d+) \(\d{4}-\d{2}-\d{2}\)")


def numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


def sections() -> list[str]:
    return re.findall(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)


def test_changelog_has_what_is_not_released_on_top_and_then_a_section_a_release_newest_first():
    first, *released = sections()

    assert first == "Unreleased"
    assert all(SECTION.fullmatch(title) for title in released)
    versions = [numbers(title.split()[0]) for title in released]
    assert versions == sorted(set(versions), reverse=True)
    assert all(version <= numbers(brats_fl.__version__) for version in versions)


@pytest.mark.skipif(not shutil.which("git") or not (ROOT / ".git").exists(), reason="no git checkout")
def test_newest_tag_is_the_version_that_the_library_states_and_has_its_section():
    said = subprocess.run(["git", "-C", ROOT, "tag", "--list", "v*", "--merged"], capture_output=True, text=True).stdout
    tags = sorted((tag.removeprefix("v") for tag in said.split()), key=numbers)
    if not tags:
        pytest.skip("nothing was released so far, or the checkout came without tags")

    assert tags[-1] == brats_fl.__version__
    assert tags[-1] in [title.split()[0] for title in sections()]


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize("there", [True, False])
def test_bill_of_materials_is_of_the_wheelhouse_that_is_there_and_one_is_made_only_where_none_is(
    tmp_path: Path, there: bool
):
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    if there:
        (tmp_path / "dist" / "wheelhouse").mkdir(parents=True)
        (tmp_path / "dist" / "wheelhouse" / "install.md").touch()

    planned = subprocess.run(["make", "-n", "sbom"], cwd=tmp_path, check=True, capture_output=True, text=True).stdout

    assert ("brats_fl_tools.release wheelhouse" in planned) is not there
    assert "cyclonedx-py" in planned
