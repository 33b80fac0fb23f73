from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from brats_fl import provenance
from brats_fl.errors import CodeMismatchError, JobError
from brats_fl.provenance import (
    LIBRARY,
    bundle_digest,
    check_brought,
    find_bundle,
    find_commit,
    installed_bundle,
    library_digest,
    required_code,
)

BUNDLE = Path(__file__).parents[2] / "bundles" / "brats_unet"


def job_with_code(folder: Path) -> Path:
    """An app that brings library and bundle."""
    shutil.copytree(LIBRARY, folder / "custom" / "brats_fl", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(BUNDLE / "configs", folder / "bundles" / "brats_unet" / "configs")
    return folder


def test_library_has_the_same_digest_in_a_copy_with_compiled_files_and_another_when_a_line_changes(tmp_path):
    copy = tmp_path / "brats_fl"
    shutil.copytree(LIBRARY, copy)
    (copy / "__pycache__").mkdir(exist_ok=True)
    (copy / "__pycache__" / "x.pyc").write_bytes(b"1")

    assert library_digest(copy) == library_digest()

    (copy / "training.py").write_text((copy / "training.py").read_text(encoding="utf-8") + "\n", encoding="utf-8")
    assert library_digest(copy) != library_digest()


def test_bundle_has_the_same_digest_with_and_without_weights_and_another_when_a_setting_changes(tmp_path):
    copy = tmp_path / "brats_unet"
    shutil.copytree(BUNDLE, copy)
    (copy / "models" / "model.pt").write_bytes(b"1")
    assert bundle_digest(copy) == bundle_digest(BUNDLE)

    (copy / "configs" / "small.json").write_text("{}", encoding="utf-8")
    assert bundle_digest(copy) != bundle_digest(BUNDLE)


def test_bundles_are_installed_with_the_library():
    assert installed_bundle("brats_unet") is not None
    assert installed_bundle("brats_none") is None


def test_job_that_brings_its_code_uses_the_bundle_it_brings(tmp_path):
    app = job_with_code(tmp_path)

    assert find_bundle("brats_unet", app, {}) == app / "bundles" / "brats_unet"
    with pytest.raises(JobError, match="the job holds no bundle 'brats_none'"):
        find_bundle("brats_none", app, {})


def test_bundle_that_comes_without_the_folder_for_which_flare_asks_for_the_right_is_not_used(tmp_path):
    app = job_with_code(tmp_path)
    shutil.rmtree(app / "custom")

    with pytest.raises(JobError, match="the job brings the bundle 'brats_unet', which is code, and no custom/brats_fl"):
        find_bundle("brats_unet", app, {})


def test_installed_library_that_hides_another_one_in_the_job_is_an_error(tmp_path):
    app = job_with_code(tmp_path)
    (app / "custom" / "brats_fl" / "training.py").write_text("# newer\n", encoding="utf-8")

    with pytest.raises(CodeMismatchError, match=r"another one is installed in .* and hides it; uninstall it"):
        find_bundle("brats_unet", app, {})
    check_brought(tmp_path / "none")  # nothing was brought


def test_job_without_code_uses_the_installed_bundle(tmp_path):
    found = find_bundle("brats_unet", tmp_path, required_code(BUNDLE))

    assert found == installed_bundle("brats_unet")


@pytest.mark.parametrize("key", ["version", "library_sha256", "bundle_sha256"])
def test_job_made_for_other_code_is_refused_with_what_differs(tmp_path, key):
    required = {**required_code(BUNDLE), key: "0123456789abcdef"}

    with pytest.raises(CodeMismatchError, match=f"{key}: job 0123456789ab, here .*; install the wheel"):
        find_bundle("brats_unet", tmp_path, required)


def test_job_without_code_where_no_bundle_is_installed_names_the_version_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "INSTALLED_BUNDLES", "brats_fl_bundles_of_nobody")

    with pytest.raises(JobError, match=r"no bundle 'brats_unet' is installed here.*install version 0\.1\.0"):
        find_bundle("brats_unet", tmp_path, required_code(BUNDLE))


def git(folder: Path, *arguments: str) -> str:
    own = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=main")
    return subprocess.run(["git", *own, "-C", folder, *arguments], check=True, capture_output=True, text=True).stdout


@pytest.mark.skipif(not shutil.which("git"), reason="no git on this machine")
def test_commit_is_that_of_the_checkout_which_holds_the_library_and_of_no_other(tmp_path):
    (library := tmp_path / "custom" / "brats_fl").mkdir(parents=True)
    (library / "__init__.py").write_text("1")
    git(tmp_path, "init")
    assert find_commit(library) is None  # as a wheel installed beneath somebody's checkout: git does not know it

    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "first")
    head = git(tmp_path, "rev-parse", "HEAD").strip()
    assert find_commit(library) == head

    (library / "__init__.py").write_text("2")
    assert find_commit(library) == f"{head}-dirty"
