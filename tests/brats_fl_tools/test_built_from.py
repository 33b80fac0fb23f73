"""Which commit a wheel says that it is of."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest

from brats_fl_tools.built_from import BUILT, built_commit, describe_commit


def written(monkeypatch: pytest.MonkeyPatch, commit: str, changed: bool) -> None:
    """What setuptools-scm leaves in a wheel."""
    module = ModuleType(BUILT)
    module.COMMIT, module.CHANGED = commit, changed  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, BUILT, module)


@pytest.mark.parametrize(
    ("commit", "changed", "said"),
    [
        ("g0123456789abcdef", False, "0123456789ab"),
        ("g0123456789abcdef", True, "0123456789ab with changes"),
        ("None", False, ""),
    ],
)
def test_wheel_names_the_commit_that_it_was_built_from(monkeypatch, commit, changed, said):
    written(monkeypatch, commit, changed)

    assert describe_commit(built_commit()) == said


def test_package_that_was_never_built_names_no_commit(monkeypatch):
    monkeypatch.setitem(sys.modules, BUILT, None)  # as Python marks a module that is not there

    assert built_commit() == ""
