from __future__ import annotations

from pathlib import Path

from tests.shared_data import needs


def test_one_file_alone_says_where_the_data_beside_the_checkout_lie():
    naming = [path.name for path in Path(__file__).parent.rglob("*.py") if '/ "shared"' in path.read_text("utf-8")]

    assert sorted(naming) == ["shared_data.py", Path(__file__).name]  # this test names it, too


def test_what_is_missing_stands_in_the_reason(tmp_path: Path):
    mark = needs(tmp_path, tmp_path / "cases").mark

    assert mark.args == (True,)
    assert mark.kwargs["reason"] == f"not on this machine: {tmp_path / 'cases'}"
    assert needs(tmp_path).mark.args == (False,)
