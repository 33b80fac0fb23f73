from __future__ import annotations

from pathlib import Path

import pytest

from brats_fl.errors import FolderError
from brats_fl_tools.own_folders import claim, fresh_folder, refuse_foreign


def test_folder_that_is_not_there_and_an_empty_one_are_made_and_marked(tmp_path: Path):
    (tmp_path / "empty").mkdir()

    for folder in (tmp_path / "a" / "b", tmp_path / "empty"):
        fresh_folder(folder, "run", force=False)
        assert [path.name for path in folder.iterdir()] == [".brats-fl"]


def test_folder_of_ours_is_replaced_with_force_only(tmp_path: Path):
    claim(tmp_path, "run")
    (tmp_path / "old").touch()

    with pytest.raises(FolderError, match="is not empty: it holds a run; choose another --out or add --force"):
        fresh_folder(tmp_path, "run", force=False)
    fresh_folder(tmp_path, "run", force=True)

    assert not (tmp_path / "old").exists()


@pytest.mark.parametrize("content", ["job/thesis.txt", "run.json", "rounds.jsonl"])
def test_folder_of_somebody_else_is_kept_whatever_it_looks_like(tmp_path: Path, content: str):
    (tmp_path / content).parent.mkdir(exist_ok=True)
    (tmp_path / content).touch()

    with pytest.raises(FolderError, match=r"is not empty and no run of brats-fl's .*; choose another --out, or remove"):
        fresh_folder(tmp_path, "run", force=True)
    assert (tmp_path / content).exists()


def test_folder_of_another_command_is_kept(tmp_path: Path):
    claim(tmp_path, "POC workspace")
    (tmp_path / "poc.json").touch()

    with pytest.raises(FolderError, match="no run of brats-fl's"):
        refuse_foreign(tmp_path, "run", force=True)


def test_file_in_the_place_of_a_folder_is_kept(tmp_path: Path):
    (tmp_path / "out").touch()

    with pytest.raises(FolderError, match="out: is a file; --workspace names a folder"):
        fresh_folder(tmp_path / "out", "POC workspace", True, "--workspace")
