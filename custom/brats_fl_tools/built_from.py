"""Which commit the software is: the checkout's, else the one that the wheel was built from."""

from __future__ import annotations

import importlib

from brats_fl.provenance import find_commit

BUILT = "brats_fl_tools._built"
"""Module that setuptools-scm writes into a wheel; git ignores it."""

DIGITS = 12
"""Of a commit, as git shows it where it has to be told from all others of a large project."""


def commit_in_words() -> str:
    """Commit of the checkout or of the wheel; ``unknown`` of a wheel that was built without git."""
    return describe_commit(find_commit() or built_commit() or "unknown")


def built_commit() -> str:
    """What the wheel was built from, as ``find_commit`` names it; empty of one that was built without git."""
    try:
        built = importlib.import_module(BUILT)
    except ModuleNotFoundError:
        return ""
    node = str(built.COMMIT).removeprefix("g")  # as `git describe` marks a commit
    return "" if node == "None" else node + ("-dirty" if built.CHANGED else "")


def describe_commit(commit: str) -> str:
    """A commit of ``find_commit`` in words."""
    digest, _, changed = commit.partition("-")
    return digest[:DIGITS] + (" with changes" if changed else "")
