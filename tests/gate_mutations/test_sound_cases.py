"""Sound cases that look odd are never called wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.gate_mutations.clean_cases import real_cases, sample_cases
from tests.gate_mutations.sound_cases import SOUND
from tests.shared_data import needs_real_cases

from brats_fl.gate import check_case, errors_of

RIGHT_PLACE = ("G08-spacing-not-1mm", "G09-not-template-space")


@pytest.mark.parametrize("name", SOUND)
def test_sound_case_that_looks_odd_gives_no_error(tmp_path: Path, name: str):
    for clean in sample_cases(tmp_path / "clean", 1):
        case = SOUND[name](clean, tmp_path / clean.case.case)

        assert errors_of(check_case(case).findings) == []


@pytest.mark.slow
@needs_real_cases
def test_real_cases_made_odd_give_no_error(tmp_path: Path):
    for clean in real_cases():
        for name, make in SOUND.items():
            findings = check_case(make(clean, tmp_path / clean.case.case / name)).findings

            assert errors_of(findings) == [], name
