"""The wheel of a commit, the same to the bit wherever and whenever it is built."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from brats_fl.errors import BratsFLError

UMASK = 0o022
"""A wheel keeps the modes of the files that it was built from, and they the umask of whoever cloned them."""

CONSTRAINTS = "constraints.txt"


class ReleaseError(BratsFLError):
    """A release cannot be made."""


def build_wheel(repository: Path, out: Path) -> Path:
    """Write the wheel of a repository's last commit to ``out`` and return its path.

    It is built from a clone of its own, with the time of the commit, by the build tools that ``constraints.txt`` pins.

    Raises:
        ReleaseError: Something is in no commit, git does not know the folder, or the build fails.
    """
    if changed := git(repository, "status", "--porcelain", "--untracked-files=no").splitlines():
        raise ReleaseError(f"{repository}: {len(changed)} changed files are in no commit; commit or stash them first")
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        clone, built = Path(scratch) / "clone", Path(scratch) / "built"
        run(["git", "clone", "--quiet", str(repository), str(clone)])
        pinned = {
            "SOURCE_DATE_EPOCH": git(repository, "log", "-1", "--format=%ct"),
            "PIP_CONSTRAINT": str(clone / CONSTRAINTS),
        }
        run([*pip(), "wheel", "--quiet", "--no-deps", "--wheel-dir", str(built), str(clone)], pinned)
        (wheel,) = built.glob("*.whl")
        return Path(shutil.copy(wheel, out))


def pip(python: str = sys.executable) -> list[str]:
    """The words that call an environment's pip."""
    return [python, "-m", "pip", "--disable-pip-version-check"]


def git(repository: Path, *words: str) -> str:
    """What git says of a repository.

    Raises:
        ReleaseError: It is none.
    """
    done = subprocess.run(["git", "-C", str(repository), *words], capture_output=True, text=True)
    if done.returncode:
        raise ReleaseError(f"{repository}: git says {done.stderr.strip()!r}; a release is made from a git checkout")
    return done.stdout.strip()


def run(command: Sequence[str], variables: Mapping[str, str] | None = None) -> None:
    """Run a command whose lines go to the terminal.

    Raises:
        ReleaseError: It fails.
    """
    done = subprocess.run(command, env={**os.environ, **(variables or {})}, umask=UMASK)
    if done.returncode:
        raise ReleaseError(f"{' '.join(command)}: ended with exit status {done.returncode}; its lines above say why")
