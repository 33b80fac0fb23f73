"""The report's cases in 3-D: what the page holds, what it may run, and what a browser draws of it."""

import base64
import gzip
import hashlib
import html
import io
import json
import re
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from matplotlib.image import imread
from tests.brats_fl_tools.report.test_report import CHROMIUM, QUIET, measure_in_browser
from tests.niivue import niivue_package
from tests.run_folders import write_run, write_scans
from tests.study_folders import write_study_folder
from typer.testing import CliRunner

from brats_fl.errors import RunError
from brats_fl.provenance import hash_file
from brats_fl_tools.cli import app
from brats_fl_tools.report import viewer, write_report
from brats_fl_tools.report.overlays import OpenCase
from brats_fl_tools.report.viewer import SCRIPT_IN_PACKAGE, Wanted, read_niivue, view_case

WEBGL = ("--use-angle=swiftshader", "--enable-unsafe-swiftshader")
"""A graphics card in software."""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package of NiiVue's form with another script, which counts as the one that is asked for."""
    path, script = tmp_path / "niivue.tgz", b"var niivue = {};"
    with tarfile.open(path, "w:gz") as archive:
        entry = tarfile.TarInfo(SCRIPT_IN_PACKAGE)
        entry.size = len(script)
        archive.addfile(entry, io.BytesIO(script))
    monkeypatch.setattr(viewer, "PACKAGE_SHA256", hash_file(path))
    return path


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run of three cases of hospital-1 and one of hospital-2, with scans and masks; b1 has the lowest Dice."""
    write_scans(tmp_path / "sites", run := write_run(tmp_path / "run", sites_dir=str(tmp_path / "sites")))
    return run


def data_of(page: str) -> list[dict[str, Any]]:
    found = re.search(r'<script type="application/json" id="viewer-data">(.*?)</script>', page, re.DOTALL)
    assert found
    return json.loads(found[1])


def unpack(volume: str) -> np.ndarray:
    return np.asarray(nib.Nifti1Image.from_bytes(gzip.decompress(base64.b64decode(volume))).dataobj)


def test_worst_and_best_case_are_in_3d_and_the_report_itself_stays_without_scripts(run: Path, package: Path):
    files = write_report(run, wanted=Wanted(package))

    assert files.in_3d == run / "report-3d.html"
    page = files.in_3d.read_text(encoding="utf-8")
    assert [one["title"] for one in data_of(page)] == ["Worst: b1, hospital-2", "Best: a1, hospital-1"]
    assert "It must stay in the hospital" in page
    small = files.page.read_text(encoding="utf-8")
    assert "<script" not in small
    assert "script-src" not in small


def test_chosen_case_comes_first_and_once(run: Path, package: Path):
    page = write_report(run, wanted=Wanted(package, ("a2", "hospital-2/b1"))).in_3d.read_text(encoding="utf-8")

    titles = [one["title"] for one in data_of(page)]
    assert titles == ["a2, hospital-1", "Worst: b1, hospital-2", "Best: a1, hospital-1"]


def test_page_runs_niivue_and_its_own_script_and_nothing_else(run: Path, package: Path):
    page = write_report(run, wanted=Wanted(package)).in_3d.read_text(encoding="utf-8")

    policy = html.unescape(re.search(r'Content-Security-Policy" content="([^"]*)"', page)[1])
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    assert len(scripts) == 2
    digests = [base64.b64encode(hashlib.sha256(one.encode()).digest()).decode() for one in scripts]
    assert policy == (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src "
        + " ".join(f"'sha256-{one}'" for one in digests)
    )
    assert "Copyright (c) 2021, Niivue" in page  # its licence asks that copies say so


def test_volumes_are_cut_to_the_head_and_the_view_to_the_tumour():
    scan, mask = np.zeros((10, 10, 10)), np.zeros((10, 10, 10), np.uint8)
    scan[2:8, 3:9, 1:5] = 0.5
    mask[4, 6, 2] = 1  # in the cut volume voxel 2, 3, 1; voxels of 1, 2 and 3 mm
    case = OpenCase({"t1c": scan, "t2f": scan}, mask, 0 * mask, (1.0, 2.0, 3.0))

    viewed = view_case(case, "a")

    assert viewed.centre_mm == (2.0, 6.0, 3.0)
    assert {name: unpack(volume).shape for name, volume in viewed.volumes.items()} == dict.fromkeys(
        ("T1c", "FLAIR", "reference", "prediction"), (6, 6, 4)
    )
    assert np.unique(unpack(viewed.volumes["T1c"])) == 128  # half of 255, to the even number
    assert np.argwhere(unpack(viewed.volumes["reference"])).tolist() == [[2, 3, 1]]


def test_page_holds_no_more_scans_than_the_bytes_reach_for(run: Path, package: Path, monkeypatch: pytest.MonkeyPatch):
    one = data_of(write_report(run, wanted=Wanted(package)).in_3d.read_text(encoding="utf-8"))[0]
    monkeypatch.setattr(viewer, "MOST_BYTES", sum(map(len, one["volumes"].values())) + 1)

    files = write_report(run, wanted=Wanted(package), force=True)

    assert len(data_of(files.in_3d.read_text(encoding="utf-8"))) == 1
    assert any(note.startswith("Only 1 case in 3-D: one more would pass") for note in files.notes)


def test_report_without_the_view_leaves_no_older_one_beside_it(run: Path, package: Path):
    write_report(run, wanted=Wanted(package))
    with pytest.raises(RunError, match="give --force"):
        write_report(run)

    assert write_report(run, force=True).in_3d is None
    assert not (run / "report-3d.html").exists()


def test_run_without_masks_says_why_no_case_is_in_3d(tmp_path: Path, package: Path):
    files = write_report(write_run(tmp_path / "run"), wanted=Wanted(package))

    assert files.in_3d is None
    assert "No case is shown in 3-D: that needs masks; see Pictures." in files.notes


def test_chosen_case_that_is_not_there_is_refused_with_those_that_are(run: Path, package: Path):
    with pytest.raises(RunError, match=r"--viewer-case b9: no such case .* there are hospital-1/a1"):
        write_report(run, wanted=Wanted(package, ("b9",)))


@pytest.mark.parametrize("content", [None, b"", b"another script"])
def test_file_that_is_not_the_package_is_refused_with_the_command_that_writes_it(tmp_path: Path, content: bytes | None):
    path = tmp_path / "niivue.tgz"
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(RunError, match=r"niivue\.tgz: .*`npm pack @niivue/niivue@0\.69\.0`"):
        read_niivue(path)


def test_chosen_case_without_the_package_is_refused(run: Path):
    done = CliRunner().invoke(app, ["report", str(run), "--viewer-case", "a1"])

    assert done.exit_code == 2
    assert "needs --viewer" in " ".join(re.sub(r"[│\n]", " ", done.output).split())


def test_study_has_its_cases_in_3d_too(tmp_path: Path, package: Path):
    out = write_study_folder(tmp_path / "study", [{"hospital-1": [0.9, 0.5]}])
    folder = out / "runs" / "sites-unet-seed0"
    rows = [(f"hospital-1-{number}", "hospital-1", "testing", (0.5,) * 3, (1.0,) * 3) for number in range(2)]
    write_scans(tmp_path / "sites", folder, rows)

    done = CliRunner().invoke(app, ["report", str(out), "--viewer", str(package)], catch_exceptions=False)

    assert "report-3d.html: it holds whole scans and must stay in the hospital" in " ".join(done.output.split())
    titles = [one["title"] for one in data_of((out / "report-3d.html").read_text(encoding="utf-8"))]
    assert titles == ["Worst: hospital-1-1, hospital-1", "Best: hospital-1-0, hospital-1"]


@pytest.mark.skipif(not CHROMIUM, reason="no Chromium on this machine to open the page with")
def test_page_in_3d_never_scrolls_sideways(run: Path, package: Path, tmp_path: Path):
    page = write_report(run, wanted=Wanted(package)).in_3d.read_text(encoding="utf-8")

    seen = measure_in_browser(page, tmp_path, widths=(390, 1400))

    assert {width: frame["wanted"] <= int(width) for width, frame in seen.items()} == {"390": True, "1400": True}


@pytest.mark.skipif(not CHROMIUM, reason="no Chromium on this machine to open the page with")
def test_browser_draws_the_case_from_the_file_alone(run: Path, tmp_path: Path):
    page = write_report(run, wanted=Wanted(niivue_package())).in_3d
    options = (*QUIET[:2], *QUIET[3:], *WEBGL, f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=20000")
    offline = "--host-resolver-rules=MAP * ~NOTFOUND"

    command = [CHROMIUM, *options, offline, "--dump-dom", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=True)

    assert re.search(r'id="viewer-said"[^>]*></p>', done.stdout), "the page says that it cannot show it"
    still = re.search(r'src="data:image/png;base64,([^"]+)"', done.stdout)
    assert still
    pixels = np.rint(255 * imread(io.BytesIO(base64.b64decode(still[1])))[..., :3]).reshape(-1, 3)
    assert len(np.unique(pixels, axis=0)) > 100  # grey of a brain with noise in it, on black
    is_yellow = (pixels[:, 0] > pixels[:, 2] + 60) & (pixels[:, 1] > pixels[:, 2] + 60)
    assert np.count_nonzero(is_yellow) > 100  # the enhancing rim of the mask
