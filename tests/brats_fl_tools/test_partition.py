"""``brats-fl partition``: who gets which case, by which rule, and what is written."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterable
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from brats_fl.constants import MODALITIES, SPLITS
from brats_fl.datalists import DataList, read_datalist
from brats_fl.errors import CaseError, DataListError
from brats_fl_tools.case_splits import check_disjoint, split_sizes
from brats_fl_tools.case_table import CaseRow, write_case_table
from brats_fl_tools.import_cases import import_cases
from brats_fl_tools.institutions import assign_origins, read_origins
from brats_fl_tools.partition import Partition, Strategy, partition, partition_cases

SHARED = Path(__file__).parents[2].parent / "shared" / "data"

app = typer.Typer()
app.command()(partition)


def make_row(case: str, institution: str = "", patient: str = "", hospital: str = "", label: bool = True) -> CaseRow:
    folder = Path("/scans", case)
    return CaseRow(
        case=case,
        patient=patient or case,
        image=tuple(folder / f"{modality}.nii" for modality in MODALITIES),
        label=folder / "seg.nii" if label else None,
        labels="brats2018-2021",
        shape=(4, 5, 6),
        spacing_mm=(1.0, 1.0, 1.0),
        institution=institution,
        hospital=hospital,
    )


def make_rows(**sizes: int) -> list[CaseRow]:
    """``A=2`` gives the cases A-0 and A-1 of institution A."""
    return [make_row(f"{name}-{number}", name) for name, size in sizes.items() for number in range(size)]


def make_table(folder: Path, rows: Iterable[CaseRow]) -> Path:
    """A case table whose files are there, empty: a partition does not read scans."""
    moved = []
    for row in rows:
        scans = folder / "scans" / row.case
        scans.mkdir(parents=True)
        image = tuple(scans / file.name for file in row.image)
        for file in (*image, scans / "seg.nii"):
            file.touch()
        label = scans / "seg.nii" if row.label else None
        moved.append(CaseRow(**{**row.__dict__, "image": image, "label": label}))
    write_case_table(folder / "cases.csv", moved)
    return folder / "cases.csv"


def run_partition(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def counts(result: Partition) -> dict[str, tuple[int, ...]]:
    return {datalist.site: tuple(len(datalist.split(split)) for split in SPLITS) for datalist in result.datalists}


@pytest.mark.parametrize(
    ("patients", "training", "validation", "testing"),
    [(1, 1, 0, 0), (2, 1, 0, 1), (3, 1, 1, 1), (4, 2, 1, 1), (10, 6, 2, 2), (13, 7, 3, 3), (100, 60, 20, 20)],
)
def test_a_fifth_each_is_for_validation_and_testing(
    patients: int, training: int, validation: int, testing: int
) -> None:
    assert split_sizes(patients, 0.2, 0.2) == (validation, testing)
    assert patients - validation - testing == training


@pytest.mark.parametrize(
    ("patients", "validation", "test", "expected"),
    [
        (2, 0.2, 0.0, (1, 0)),
        (2, 0.0, 0.0, (0, 0)),
        (3, 0.5, 0.4, (1, 1)),  # 2 and 1 rounded would leave none for training
        (3, 0.05, 0.9, (1, 1)),  # 1 and 3 rounded
        (10, 0.0, 0.3, (0, 3)),
    ],
)
def test_one_patient_is_left_for_training_whatever_the_shares(
    patients: int, validation: float, test: float, expected: tuple[int, int]
) -> None:
    assert split_sizes(patients, validation, test) == expected


def test_no_case_and_no_patient_is_in_two_places() -> None:
    rows = [
        make_row(f"p{patient}-{time}", f"I{patient % 7}", f"p{patient}")
        for patient in range(70)
        for time in range(1 + patient % 3)
    ]

    for strategy in Strategy:
        result = partition_cases(rows, strategy, seed=3)

        placed = [case for d in result.datalists for split in SPLITS for case in d.split(split)]
        places = {(c.patient, d.site, split) for d in result.datalists for split in SPLITS for c in d.split(split)}
        assert sorted(case.case for case in placed) == sorted(row.case for row in rows)
        assert len(places) == 70


def test_case_at_two_sites_is_noticed() -> None:
    datalists = partition_cases(make_rows(A=3), Strategy.INSTITUTION, sites=1).datalists
    copy = DataList("hospital-2", training=datalists[0].training)

    with pytest.raises(DataListError, match=r"case A-. is at hospital-1 and at hospital-2"):
        check_disjoint([*datalists, copy])


def test_order_of_the_rows_does_not_matter() -> None:
    rows = make_rows(A=9, B=6, C=4, D=3, E=1)
    mixed = rows.copy()
    random.Random(0).shuffle(mixed)

    for strategy in Strategy:
        assert partition_cases(mixed, strategy, sites=3) == partition_cases(rows, strategy, sites=3)


def test_cases_without_a_label_go_nowhere_and_are_named() -> None:
    rows = [*make_rows(A=3), make_row("blind", "A", label=False)]

    result = partition_cases(rows, Strategy.INSTITUTION, sites=1)

    assert result.left_out == ("blind",)
    assert counts(result) == {"hospital-1": (1, 1, 1)}


def test_cases_that_all_lack_a_label_are_refused() -> None:
    with pytest.raises(CaseError, match="none of the 1 cases has a label"):
        partition_cases([make_row("blind", "A", label=False)], Strategy.INSTITUTION)


def test_lists_and_record_are_written_for_each_site(tmp_path: Path) -> None:
    table = make_table(tmp_path, make_rows(A=5, B=3))
    out = tmp_path / "sites"

    result = run_partition(table, "--strategy", "institution", "--sites", 2, "--out", out)

    assert result.exit_code == 0
    assert sorted(path.name for path in out.iterdir()) == ["hospital-1", "hospital-2", "partition.json"]
    record = json.loads((out / "partition.json").read_text())
    assert record["strategy"] == "institution"
    assert record["inputs"]["cases"]["sha256"] == hashlib.sha256(table.read_bytes()).hexdigest()
    assert record["sites"]["hospital-1"]["cases"] == {"training": 3, "validation": 1, "testing": 1}
    assert record["sites"]["hospital-2"]["institutions"] == {"B": 3}
    written = (out / "hospital-1" / "datalist.json").read_bytes()
    assert record["sites"]["hospital-1"]["datalist_sha256"] == hashlib.sha256(written).hexdigest()
    first = read_datalist(out / "hospital-1" / "datalist.json").training[0]
    assert first.image == tuple(str(tmp_path / "scans" / first.case / f"{modality}.nii") for modality in MODALITIES)


def test_counts_of_each_site_are_printed(tmp_path: Path) -> None:
    table = make_table(tmp_path, make_rows(A=5, B=2))

    result = run_partition(table, "--strategy", "institution", "--sites", 2, "--out", tmp_path / "sites")

    lines = [line.replace("│", " ").split() for line in result.stdout.splitlines() if "hospital" in line]
    assert lines == [
        ["hospital-1", "A", "(5)", "3", "1", "1", "5"],
        ["hospital-2", "B", "(2)", "1", "0", "1", "2"],
    ]
    assert "no validation case at hospital-2" in result.stderr


def test_same_command_twice_writes_the_same_bytes(tmp_path: Path) -> None:
    table = make_table(tmp_path, make_rows(A=12))

    for name in ("one", "two"):
        assert run_partition(table, "--strategy", "even", "--out", tmp_path / name).exit_code == 0

    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*.json"))
    assert len(files) == 6
    assert all((tmp_path / "one" / f).read_bytes() == (tmp_path / "two" / f).read_bytes() for f in files)


def test_folder_that_holds_something_is_refused_without_force(tmp_path: Path) -> None:
    table = make_table(tmp_path, make_rows(A=12))
    out = tmp_path / "sites"
    out.mkdir()
    (out / "notes.txt").write_text("mine")

    result = run_partition(table, "--strategy", "even", "--out", out)

    assert "is not empty; give --force" in str(result.exception)
    assert [path.name for path in out.iterdir()] == ["notes.txt"]


def test_force_replaces_every_list_and_nothing_else(tmp_path: Path) -> None:
    table = make_table(tmp_path, make_rows(A=12))
    out = tmp_path / "sites"
    run_partition(table, "--strategy", "even", "--sites", 4, "--out", out)
    (out / "hospital-4" / "notes.txt").write_text("mine")

    result = run_partition(table, "--strategy", "even", "--sites", 3, "--out", out, "--force")

    assert result.exit_code == 0
    assert sorted(path.parent.name for path in out.rglob("datalist.json")) == [
        "hospital-1",
        "hospital-2",
        "hospital-3",
    ]
    assert (out / "hospital-4" / "notes.txt").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_scans_that_are_gone_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    table = make_table(tmp_path, make_rows(A=12))
    (tmp_path / "scans" / "A-3" / "t1c.nii").unlink()

    result = run_partition(table, "--strategy", "even", "--out", tmp_path / "sites")

    assert "1 of the 60 files it names are not there" in str(result.exception)
    assert not (tmp_path / "sites").exists()


def test_unknown_strategy_is_wrong_usage_and_the_two_are_listed(tmp_path: Path) -> None:
    result = run_partition(tmp_path / "cases.csv", "--strategy", "size", "--out", tmp_path / "sites")

    assert result.exit_code == 2
    assert "'institution', 'even'" in result.stderr


@pytest.mark.parametrize(
    "options",
    [
        ("--strategy", "even", "--validation", "0.5", "--test", "0.5"),
        ("--strategy", "even", "--test", "-0.1"),
        ("--strategy", "even", "--validation", "nan"),
        ("--strategy", "even", "--sites", "0"),
        ("--strategy", "even", "--institutions", "table.csv"),
    ],
)
def test_options_that_make_no_sense_are_wrong_usage(tmp_path: Path, options: tuple[str, ...]) -> None:
    assert run_partition(tmp_path / "cases.csv", "--out", tmp_path / "sites", *options).exit_code == 2


@pytest.mark.skipif(not SHARED.is_dir(), reason="the tables of BraTS 2020 are not on this machine")
def test_brats_2020_makes_five_hospitals_of_its_institutions() -> None:
    table = SHARED / "csv" / "brats2020_name_mapping.csv"
    rows = [make_row(f"BraTS20_Training_{number:03}") for number in range(1, 370)]

    result = partition_cases(assign_origins(table, rows, read_origins(table)), Strategy.INSTITUTION)

    # 129, 35, 34, 34 and 30 begin; then 22 goes to the 30, 14 to a 34, 13 to the other, 12 to the 35, ...
    assert result.institutions["hospital-1"] == {"CBICA": 129}
    assert sum(sum(origins.values()) for origins in result.institutions.values()) == 369
    assert [sum(origins.values()) for origins in result.institutions.values()] == [129, 58, 62, 60, 60]


@pytest.mark.skipif(not SHARED.is_dir(), reason="the thirteen real cases are not on this machine")
def test_thirteen_real_cases_go_to_their_five_hospitals() -> None:
    rows = list(import_cases(SHARED / "real").rows)
    table = SHARED / "cases.csv"

    result = partition_cases(assign_origins(table, rows, read_origins(table)), Strategy.INSTITUTION)

    assert counts(result) == {
        "hospital-1": (2, 1, 1),
        "hospital-2": (1, 1, 1),
        "hospital-3": (1, 0, 1),
        "hospital-4": (1, 0, 1),
        "hospital-5": (1, 0, 1),
    }
