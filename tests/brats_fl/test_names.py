"""Which names and folders FLARE bears, as each was seen in its simulator and in a federation of kits."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path

import pytest

from brats_fl.errors import FolderError, SiteNameError
from brats_fl.names import check_folder, check_site_name, check_site_names


@pytest.mark.parametrize("name", ["hospital-1", "A_B", "_x", "1a", "north", "x" * 64, "Klinikum-Koeln", "local"])
def test_name_that_flare_bears_passes(name: str):
    check_site_name(name, "project.yml")


@pytest.mark.parametrize(
    ("name", "mend"),
    [
        ("Klinikum-Köln", "call it 'Klinikum-Koln'"),
        (unicodedata.normalize("NFD", "Klinikum-Köln"), "call it 'Klinikum-Koln'"),
        ("St. Mary", "call it 'St-Mary'"),
        ("hospital 1", "call it 'hospital-1'"),
        ("a.b", "call it 'a-b'"),
        ("north,south", "call it 'north-south'"),
        ("../x", "call it 'x'"),
        ("-lead", "call it 'lead'"),
        ("x" * 65, f"call it '{'x' * 64}'"),
        ("北京医院", "write it with Latin letters"),
        ("больница", "write it with Latin letters"),
        ("", "write it with Latin letters"),
    ],
)
def test_name_that_flare_does_not_bear_is_refused_with_one_that_it_does(name: str, mend: str):
    with pytest.raises(SiteNameError, match=r"project.yml: FLARE does not bear the name .*, digits, '-' and") as error:
        check_site_name(name, "project.yml")

    assert mend in str(error.value)


@pytest.mark.parametrize("name", ["1", "1e5", "nan", "true", "No", "T"])
def test_name_that_flare_reads_as_a_number_or_a_truth_value_is_refused(name: str):
    with pytest.raises(SiteNameError, match=r"must be no number and no yes or no; (call|write) it"):
        check_site_name(name, "project.yml")


@pytest.mark.parametrize("name", ["server", "Server", "simulate_job"])
def test_name_of_flares_own_is_refused(name: str):
    with pytest.raises(SiteNameError, match=f"no hospital can be called '{name}', a name of FLARE's own"):
        check_site_name(name, "project.yml")


def test_two_hospitals_differ_in_more_than_capitals():
    check_site_names(["north", "south"], "project.yml")
    with pytest.raises(SiteNameError, match="hospital 'North' differs from 'north' in capitals only"):
        check_site_names(["north", "North"], "project.yml")
    with pytest.raises(SiteNameError, match="hospital 'north' stands twice"):
        check_site_names(["north", "north"], "project.yml")


@pytest.mark.parametrize(
    ("path", "found"),
    [
        *(("/a/my run", "a space"), ("/a's/run", "the character '"), ("/a#1", "the character #")),
        *(('/a/b"c', 'the character "'), ("/a/b\\c", "the character \\")),
    ],
)
def test_folder_that_flares_command_lines_would_be_split_at_is_refused(path: str, found: str):
    check_folder(Path("/a/run_1-2.Ü"), "run folder")
    with pytest.raises(FolderError, match=re.escape(f"{path}: the path of the run folder holds {found}, at")):
        check_folder(Path(path), "run folder")


@pytest.mark.parametrize(("character", "found"), [("\t", "a tab"), ("\n", "a line break"), ("\r", "a line break")])
def test_folder_whose_path_is_not_seen_whole_is_shown_escaped(character: str, found: str):
    with pytest.raises(FolderError, match=rf"^'/a/b\\\S+': the path of the kit holds {found}") as caught:
        check_folder(Path(f"/a/b{character}c"), "kit")
    assert character not in str(caught.value)


@pytest.mark.parametrize("name", ["$HOME", "Ü-Klinik", "x" * 200, "a*b?[c]", "a;b&c|d", "日本", "a\u3000b"])
def test_other_paths_are_borne(name: str):
    check_folder(Path("/a") / name, "kit")


def test_link_to_a_folder_with_a_space_is_seen_through(tmp_path: Path):
    (tmp_path / "my kit").mkdir()
    (tmp_path / "kit").symlink_to(tmp_path / "my kit")

    with pytest.raises(FolderError, match="my kit: the path of the kit holds a space"):
        check_folder(tmp_path / "kit", "kit")
