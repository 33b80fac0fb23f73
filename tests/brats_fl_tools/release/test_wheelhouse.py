"""The offline folder: what pip chose, with hashes, and an environment that is made from it without an index."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from brats_fl.errors import FolderError
from brats_fl.provenance import hash_file
from brats_fl_tools.release.wheel import ReleaseError
from brats_fl_tools.release.wheelhouse import Package, make_wheelhouse, refuse_others

NO_INDEX = ("--no-index",)


def write_wheel(folder: Path, name: str, version: str, requires: str = "") -> Path:
    """A wheel as small as one can be, with an extra ``tools`` that wants ``requires``."""
    info = f"{name}-{version}.dist-info"
    wanted = f"Provides-Extra: tools\nRequires-Dist: {requires}; extra == 'tools'\n" if requires else ""
    files = {
        f"{name}.py": f"VERSION = '{version}'\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{wanted}",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{file},,\n" for file in (*files, f"{info}/RECORD"))
    folder.mkdir(exist_ok=True)
    with zipfile.ZipFile(path := folder / f"{name}-{version}-py3-none-any.whl", "w") as archive:
        for file, text in {**files, f"{info}/RECORD": record}.items():
            archive.writestr(file, text)
    return path


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Our wheel, an index of two versions of what it needs, and constraints that want the older one."""
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    write_wheel(tmp_path / "index", "needed", "1.0")
    write_wheel(tmp_path / "index", "needed", "2.0")
    (tmp_path / "constraints.txt").write_text("needed==1.0\n")
    return write_wheel(tmp_path / "dist", "ours", "0.1", "needed>=1")


def test_folder_holds_the_constrained_versions_by_hash_and_tells_its_size_first(
    tiny: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    make_wheelhouse(tiny, "tools", tmp_path / "house", tmp_path / "constraints.txt", NO_INDEX)

    ours, needed = hash_file(tiny), hash_file(tmp_path / "index" / "needed-1.0-py3-none-any.whl")
    lines = (tmp_path / "house" / "requirements.txt").read_text().splitlines()
    assert lines == [f"needed==1.0 --hash=sha256:{needed}", f"ours[tools]==0.1 --hash=sha256:{ours}"]
    assert f"{tmp_path / 'house'}: 2 packages, 0 MB" in capfd.readouterr().out
    assert sorted(path.name for path in (tmp_path / "house").iterdir() if path.suffix != ".whl") == [
        "install.md",
        "requirements.txt",
    ]


@pytest.mark.slow  # an environment, and pip three times
def test_environment_is_made_from_the_folder_alone_and_not_from_an_altered_one(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    make_wheelhouse(tiny, "tools", tmp_path / "house", tmp_path / "constraints.txt", NO_INDEX)
    monkeypatch.delenv("PIP_FIND_LINKS")
    venv.create(tmp_path / "env", with_pip=False)
    line = next(line for line in (tmp_path / "house/install.md").read_text().splitlines() if line.startswith("pip "))
    words = [sys.executable, "-m", "pip", "--python", str(tmp_path / "env" / "bin" / "python"), *line.split()[1:]]

    done = subprocess.run([*words, "-q"], cwd=tmp_path, capture_output=True, text=True)
    write_wheel(tmp_path / "house", "needed", "1.0", "more")
    altered = subprocess.run([*words, "-q", "--force-reinstall"], cwd=tmp_path, capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    said = subprocess.run(
        [tmp_path / "env/bin/python", "-c", "import needed; print(needed.VERSION)"], capture_output=True
    )
    assert said.stdout == b"1.0\n"
    assert altered.returncode != 0
    assert "DO NOT MATCH THE HASHES" in altered.stderr


def test_folder_that_holds_something_is_kept(tiny: Path, tmp_path: Path):
    (tmp_path / "house").mkdir()
    (tmp_path / "house" / "old.whl").touch()

    with pytest.raises(FolderError, match="is not empty; remove it, or choose another --out"):
        make_wheelhouse(tiny, "tools", tmp_path / "house", tmp_path / "constraints.txt", NO_INDEX)


@pytest.mark.parametrize(
    ("hashes", "said"), [({}, "pip has left no wheel"), ({"a_b": "22"}, "has SHA-256 22, the index states 11")]
)
def test_wheel_that_is_missing_or_another_is_named(hashes: dict[str, str], said: str):
    with pytest.raises(ReleaseError, match=f"A.b==1: .*{said}"):
        refuse_others([Package("A.b", "1", "https://x/a_b-1-py3-none-any.whl", sha256="11")], hashes)
