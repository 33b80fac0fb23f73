"""Which code runs: digests of this library and of a bundle, and whether they are the ones a job was made for."""

from __future__ import annotations

import hashlib
import importlib.util
import subprocess
from collections.abc import Collection, Mapping
from pathlib import Path

import brats_fl
from brats_fl.bundle import is_bundle
from brats_fl.errors import CodeMismatchError, JobError

LIBRARY = Path(brats_fl.__file__).parent
INSTALLED_BUNDLES = "brats_fl_bundles"
"""Name under which the wheel installs the bundles."""


DOCUMENTS = frozenset({"metadata.json"})
"""Of a bundle's configurations what runs nothing: an export says there what the weights are, and the code stays."""

GIT_SECONDS = 20.0
"""A status of a checkout takes less than one, on a network disk a few."""


def hash_files(folder: Path, patterns: tuple[str, ...], but: Collection[str] = ()) -> str:
    """SHA-256 over relative path and bytes of the files that match, in the order of their paths.

    Args:
        folder: To look in, with all folders in it.
        patterns: Of names.
        but: Names of files that are left out.
    """
    digest = hashlib.sha256()
    found = {path for pattern in patterns for path in folder.rglob(pattern) if path.is_file() and path.name not in but}
    for path in sorted(found):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0")
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def hash_file(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    return hash_bytes(path.read_bytes())


def hash_bytes(content: bytes) -> str:
    """SHA-256 of bytes."""
    return hashlib.sha256(content).hexdigest()


def hash_text(text: str) -> str:
    """SHA-256 of a text."""
    return hash_bytes(text.encode())


def library_digest(library: Path = LIBRARY) -> str:
    """Digest of this library's source, the same in a checkout, a job and an installed wheel."""
    return hash_files(library, ("*.py",))


def bundle_digest(bundle: Path) -> str:
    """Digest of a bundle's configurations and scripts, which are code; weights and documents are left out."""
    return hash_files(bundle, ("configs/*", "scripts/*.py"), but=DOCUMENTS)


def find_commit(library: Path = LIBRARY) -> str | None:
    """Commit of the checkout that this library lies in, with ``-dirty`` where it was changed since; None elsewhere.

    A library that is installed in a folder beneath some other project's checkout has none: git must know its files.
    """
    known = ("git", "-C", str(library), "ls-files", "--error-unmatch", "__init__.py")
    named = ("git", "-C", str(library), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    try:
        subprocess.run(known, capture_output=True, timeout=GIT_SECONDS, check=True)
        done = subprocess.run(named, capture_output=True, text=True, timeout=GIT_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None


def installed_package(name: str) -> Path:
    """Folder of a package of data files that the wheel, or a checkout installed in place, has brought.

    Raises:
        JobError: There is none.
    """
    spec = importlib.util.find_spec(name)
    for place in (spec.submodule_search_locations or ()) if spec else ():
        if Path(place).is_dir():
            return Path(place)
    raise JobError(f"{name} is not installed here; install brats-fl from its wheel, or from a checkout (`make env`)")


def installed_bundle(name: str) -> Path | None:
    """Root of a bundle that is installed; None where there is none."""
    try:
        bundle = installed_package(INSTALLED_BUNDLES) / name
    except JobError:
        return None
    return bundle if is_bundle(bundle) else None


def required_code(bundle: Path | None) -> dict[str, str]:
    """What a job without code states, so that a site can tell whether it has the same installed."""
    of_bundle = {"bundle_sha256": bundle_digest(bundle)} if bundle else {}
    return {"version": brats_fl.__version__, "library_sha256": library_digest(), **of_bundle}


def check_library(custom: Path, required: Mapping[str, str]) -> None:
    """Raise ``CodeMismatchError`` unless the library that runs is the job's; for jobs without a bundle.

    Args:
        custom: Folder of the running app that holds the code that came with the job, if any came.
        required: ``required_code`` of a job without code; empty for one that brings its code.
    """
    if required:
        check_installed(None, required)
    else:
        check_brought(custom / "brats_fl")


def find_bundle(name: str, app: Path, required: Mapping[str, str]) -> Path:
    """Root of a job's bundle, after checking that the code that runs is the job's.

    A bundle lies beside the code that a job brings: what FLARE's `nvflare job submit` finds in ``custom``, it writes
    anew, and a key with a ``#`` comes out as another. But a bundle is code, and FLARE asks for the right to bring code
    where there is a ``custom``: without one, the job's bundle is not used.

    Args:
        name: Name of the bundle.
        app: Folder of the running app, with ``bundles`` and ``custom`` where the job brings its code.
        required: ``required_code`` of a job without code; empty for one that brings its code.

    Raises:
        JobError: There is no such bundle, or it comes without the job's code.
        CodeMismatchError: What is installed is not what the job was made for, or hides what it brings.
    """
    if Path(name).name != name or name in ("", ".."):
        raise JobError(f"bundle must be the name of a folder, and no path (got {name!r})")
    if not required:
        bundle = app / "bundles" / name
        if not is_bundle(bundle):
            raise JobError(f"the job holds no bundle {name!r}; build it with `brats-fl job build` ({bundle})")
        if not (app / "custom" / "brats_fl").is_dir():
            raise JobError(f"the job brings the bundle {name!r}, which is code, and no custom/brats_fl; build it anew")
        check_brought(app / "custom" / "brats_fl")
        return bundle
    installed = installed_bundle(name)
    if installed is None:
        raise JobError(
            f"no bundle {name!r} is installed here, and the job brings none; install version "
            f"{required.get('version')} of brats-fl"
        )
    check_installed(installed, required)
    return installed


def check_brought(library: Path) -> None:
    """Raise ``CodeMismatchError`` where another version of the library is installed and hides the job's own."""
    if library.is_dir() and library_digest(library) != library_digest():
        raise CodeMismatchError(
            f"the job brings its own brats_fl, but another one is installed in {LIBRARY.parent} and hides it; "
            "uninstall it (pip uninstall brats-fl), install the job's, or ask for a job built with --preinstalled"
        )


def check_installed(bundle: Path | None, required: Mapping[str, str]) -> None:
    """Raise ``CodeMismatchError`` where library or bundle differ from what the job states."""
    here = required_code(bundle)
    differing = [key for key in here if here[key] != required.get(key)]
    if differing:
        facts = "; ".join(f"{key}: job {str(required.get(key))[:12]}, here {here[key][:12]}" for key in differing)
        raise CodeMismatchError(
            f"the job was made for another brats-fl than the one installed in {LIBRARY.parent} ({facts}); install the "
            "wheel that the lead of the study names, on server and sites alike"
        )
