"""``brats-fl partition``: who gets which case, by which rule, and what is written."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import typer
from tests.case_rows import make_row, make_rows
from tests.shared_data import CASE_TABLE, NAME_MAPPING, REAL_CASES, needs
from typer.testing import CliRunner, Result

from brats_fl.cases.datalists import DataList, read_datalist
from brats_fl.constants import MODALITIES, SPLITS
from brats_fl.errors import CaseError, DataListError
from brats_fl_tools.data.case_table import CaseRow, write_case_table
from brats_fl_tools.data.import_cases import import_cases
from brats_fl_tools.data.institutions import assign_origins, read_origins
from brats_fl_tools.partition.command import partition
from brats_fl_tools.partition.manifest import hash_study
from brats_fl_tools.partition.plan import Options, Partition, Strategy, partition_cases
from brats_fl_tools.partition.splits import check_disjoint, choose_strata, split_sizes, spread_strata

app = typer.Typer()
app.command()(partition)


def make_table(folder: Path, rows: Iterable[CaseRow]) -> Path:
    """A case table whose files are there, empty: without a page, a partition does not read scans."""
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


def deal(rows: list[CaseRow], strategy: Strategy, **options: Any) -> Partition:
    return partition_cases(rows, Options(strategy, **options))


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
        make_row(f"p{patient}-{time}", f"I{patient % 7}", f"p{patient}", grade=("HGG", "LGG")[patient % 3 == 0])
        for patient in range(70)
        for time in range(1 + patient % 3)
    ]

    for strategy in Strategy:
        result = deal(rows, strategy, seed=3)

        placed = [case for d in result.datalists for split in SPLITS for case in d.split(split)]
        places = {(c.patient, d.site, split) for d in result.datalists for split in SPLITS for c in d.split(split)}
        assert sorted(case.case for case in placed) == sorted(row.case for row in rows)
        assert len(places) == 70


def test_case_at_two_sites_is_noticed() -> None:
    datalists = deal(make_rows(A=3), Strategy.INSTITUTION, sites=1).datalists
    copy = DataList("hospital-2", training=datalists[0].training)

    with pytest.raises(DataListError, match=r"case A-. is at hospital-1 and at hospital-2"):
        check_disjoint([*datalists, copy])


def test_order_of_the_rows_does_not_matter() -> None:
    rows = [replace(row, grade=("HGG", "LGG")[len(row.case) % 2]) for row in make_rows(A=9, B=16, C=14, D=3, E=11)]
    mixed = rows.copy()
    random.Random(0).shuffle(mixed)

    for strategy in Strategy:
        assert deal(mixed, strategy, sites=3) == deal(rows, strategy, sites=3)


def test_cases_without_a_label_go_nowhere_and_are_named() -> None:
    rows = [*make_rows(A=3), make_row("blind", "A", label=False)]

    result = deal(rows, Strategy.INSTITUTION, sites=1)

    assert result.unlabelled == ("blind",)
    assert counts(result) == {"hospital-1": (1, 1, 1)}


def test_cases_that_all_lack_a_label_are_refused() -> None:
    with pytest.raises(CaseError, match="none of the 1 cases has a label"):
        deal([make_row("blind", "A", label=False)], Strategy.INSTITUTION)


def test_order_that_spreads_strata_holds_them_in_their_proportions_everywhere() -> None:
    strata = {**dict.fromkeys("abcdef", "HGG"), **dict.fromkeys("xy", "LGG")}

    order = spread_strata("abxcydef", strata)

    # The six stand at 1/12, 3/12, 5/12 ..., the two at 1/4 and 3/4; equals stay as they were.
    assert order == ["a", "b", "x", "c", "d", "y", "e", "f"]


def test_grade_stratifies_where_all_grades_are_known_else_thirds_of_tumour_volume() -> None:
    rows = [replace(row, tumour_ml=float(ml)) for row, ml in zip(make_rows(A=6), (60, 10, 20, 50, 30, 40), strict=True)]

    by_volume = choose_strata(rows)
    by_grade = choose_strata([replace(row, grade="HGG") for row in rows])
    by_nothing = choose_strata([*rows[1:], replace(rows[0], tumour_ml=None)])

    assert (by_volume.by, by_grade.by, by_nothing.by) == ("tumour volume", "grade", "nothing")
    assert by_volume.of_patient == {
        **dict.fromkeys(("A-1", "A-2"), "third 1"),
        **dict.fromkeys(("A-4", "A-5"), "third 2"),
        **dict.fromkeys(("A-3", "A-0"), "third 3"),
    }


def test_splits_of_a_site_hold_both_grades_in_their_proportions() -> None:
    rows = [make_row(f"{grade}-{n}", grade=grade) for grade, size in (("HGG", 40), ("LGG", 10)) for n in range(size)]

    (datalist,) = deal(rows, Strategy.EVEN, sites=1).datalists

    # A fifth of 50 is 10, of which four in five are HGG.
    for split in ("testing", "validation"):
        assert sorted(case.case[:3] for case in datalist.split(split)) == ["HGG"] * 8 + ["LGG"] * 2


def test_hospital_that_is_left_out_has_testing_cases_only_and_a_place_of_its_own(tmp_path: Path) -> None:
    table = make_table(tmp_path, make_rows(A=5, B=4, C=4))
    options = (table, "--strategy", "institution", "--sites", 3, "--no-page")
    run_partition(*options, "--out", tmp_path / "whole")

    result = run_partition(*options, "--out", tmp_path / "fold", "--leave-out", "hospital-2")

    assert result.exit_code == 0
    assert sorted(path.name for path in (tmp_path / "fold").glob("hospital-*")) == ["hospital-1", "hospital-3"]
    left_out = read_datalist(tmp_path / "fold" / "left-out" / "hospital-2" / "datalist.json")
    assert [case.case for case in left_out.testing] == ["B-0", "B-1", "B-2", "B-3"]
    assert not left_out.training
    for site in ("hospital-1", "hospital-3"):  # as they were
        assert read_datalist(tmp_path / "fold" / site / "datalist.json") == read_datalist(
            tmp_path / "whole" / site / "datalist.json"
        )


def test_hospital_that_is_not_there_cannot_be_left_out() -> None:
    with pytest.raises(CaseError, match=r"--leave-out north: must be one of .*\(there are hospital-1, hospital-2\)"):
        deal(make_rows(A=6), Strategy.EVEN, sites=2, leave_out="north")


def test_force_removes_what_a_left_out_hospital_had(tmp_path: Path) -> None:
    table, out = make_table(tmp_path, make_rows(A=12)), tmp_path / "sites"
    options = (table, "--strategy", "even", "--sites", 3, "--out", out, "--no-page")
    run_partition(*options, "--leave-out", "hospital-2")

    run_partition(*options, "--force")

    assert sorted(path.name for path in out.iterdir()) == [
        ".brats-fl",
        "hospital-1",
        "hospital-2",
        "hospital-3",
        "partition.json",
    ]


@pytest.mark.parametrize("strategy", ["institution", "even", "size", "dirichlet", "grade"])
def test_manifest_makes_the_same_lists_where_the_data_lie_elsewhere(tmp_path: Path, strategy: str) -> None:
    rows = [replace(row, grade=("HGG", "LGG")[n % 3 == 0]) for n, row in enumerate(make_rows(A=9, B=8, C=7))]
    options = ("--strategy", strategy, "--sites", 3, "--seed", 5, "--leave-out", "hospital-3", "--no-page")
    run_partition(make_table(tmp_path / "here", rows), *options, "--out", tmp_path / "one")
    elsewhere = make_table(tmp_path / "there", rows[::-1])

    result = run_partition(
        elsewhere, "--manifest", tmp_path / "one" / "partition.json", "--out", tmp_path / "two", "--no-page"
    )

    assert result.exit_code == 0
    assert (tmp_path / "two" / "partition.json").read_bytes() == (tmp_path / "one" / "partition.json").read_bytes()
    lists = [(tmp_path / name / "hospital-1" / "datalist.json").read_text() for name in ("one", "two")]
    assert lists[1] == lists[0].replace(str(tmp_path / "here"), str(tmp_path / "there"))


def test_manifest_refuses_other_cases(tmp_path: Path) -> None:
    run_partition(
        make_table(tmp_path / "a", make_rows(A=9)), "--strategy", "even", "--out", tmp_path / "one", "--no-page"
    )
    table = make_table(tmp_path / "b", make_rows(A=10))

    result = run_partition(table, "--manifest", tmp_path / "one" / "partition.json", "--out", tmp_path / "two")

    assert "holds other cases, patients, institutions, grades or tumour volumes" in str(result.exception)
    assert not (tmp_path / "two").exists()


def test_manifest_asks_for_the_table_that_it_was_made_with(tmp_path: Path) -> None:
    table, origins = make_table(tmp_path, make_rows(A=9)), tmp_path / "origins.csv"
    origins.write_text("case,institution\n" + "".join(f"A-{n},{'XYZ'[n % 3]}\n" for n in range(9)))
    out, again = tmp_path / "one", tmp_path / "two"
    run_partition(
        *(table, "--strategy", "institution", "--sites", 3, "--institutions", origins, "--out", out, "--no-page")
    )
    rebuild = (table, "--manifest", out / "partition.json", "--out", again, "--no-page")

    refused = run_partition(*rebuild)

    assert "It was made with --institutions origins.csv: give that too." in str(refused.exception)
    assert run_partition(*rebuild, "--institutions", origins).exit_code == 0


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            '"strategy": "even"',
            '"strategy": "odd"',
            "strategy must be one of institution, even, size, dirichlet, grade, scanner (got 'odd')",
        ),
        ('"seed": 0', '"sed": 0', "unknown key 'options.sed'"),
        ('"test": 0.2', '"test": 0.9', "option test must be below 1 together with validation (got 0.2 and 0.9)"),
        ('"study_sha256": "', '"study_sha256": "0', "the same cases gave other lists, study "),
        ("{", "", "cannot be read as JSON"),
    ],
)
def test_spoilt_manifest_is_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    table, manifest = make_table(tmp_path, make_rows(A=9)), tmp_path / "one" / "partition.json"
    run_partition(table, "--strategy", "even", "--sites", 3, "--out", tmp_path / "one", "--no-page")
    manifest.write_text(manifest.read_text().replace(old, new, 1))

    result = run_partition(table, "--manifest", manifest, "--out", tmp_path / "two", "--no-page")

    assert isinstance(result.exception, DataListError)
    assert message in str(result.exception)
    assert not (tmp_path / "two").exists()


def test_study_hash_tells_two_seeds_apart_and_not_two_orders(tmp_path: Path) -> None:
    rows = make_rows(A=12)
    first, same, other = (
        hash_study(deal(cases, Strategy.EVEN, sites=3, seed=seed))
        for cases, seed in ((rows, 0), (rows[::-1], 0), (rows, 1))
    )

    assert first == same != other


def test_lists_and_record_are_written_for_each_site(tmp_path: Path) -> None:
    table = make_table(tmp_path, make_rows(A=5, B=3))
    out = tmp_path / "sites"

    result = run_partition(table, "--strategy", "institution", "--sites", 2, "--out", out, "--no-page")

    assert result.exit_code == 0
    assert sorted(path.name for path in out.iterdir()) == [".brats-fl", "hospital-1", "hospital-2", "partition.json"]
    record = json.loads((out / "partition.json").read_text())
    assert record["options"]["strategy"] == "institution"
    assert record["sites"]["hospital-1"]["cases"] == {"training": 3, "validation": 1, "testing": 1}
    assert record["sites"]["hospital-2"]["institutions"] == {"B": 3}
    first = read_datalist(out / "hospital-1" / "datalist.json").training[0]
    assert first.image == tuple(str(tmp_path / "scans" / first.case / f"{modality}.nii") for modality in MODALITIES)


def test_counts_of_each_site_are_printed(tmp_path: Path) -> None:
    table = make_table(tmp_path, make_rows(A=5, B=2))

    result = run_partition(table, "--strategy", "institution", "--sites", 2, "--out", tmp_path / "sites", "--no-page")

    lines = [line.split() for line in result.stdout.splitlines() if "hospital" in line]
    assert lines == [
        ["hospital-1", "3", "1", "1", "5", "A", "(5)"],
        ["hospital-2", "1", "0", "1", "2", "B", "(2)"],
    ]
    assert "no validation case at hospital-2" in result.stderr


def test_same_command_twice_writes_the_same_bytes(tmp_path: Path) -> None:
    table = make_table(tmp_path, make_rows(A=12))

    for name in ("one", "two"):
        assert run_partition(table, "--strategy", "even", "--out", tmp_path / name, "--no-page").exit_code == 0

    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*.json"))
    assert len(files) == 6
    assert all((tmp_path / "one" / f).read_bytes() == (tmp_path / "two" / f).read_bytes() for f in files)


def test_folder_that_holds_something_is_refused_without_force(tmp_path: Path) -> None:
    table = make_table(tmp_path, make_rows(A=12))
    out = tmp_path / "sites"
    out.mkdir()
    (out / "notes.txt").write_text("mine")

    result = run_partition(table, "--strategy", "even", "--out", out, "--no-page")

    assert "is not empty; give --force" in str(result.exception)
    assert [path.name for path in out.iterdir()] == ["notes.txt"]


def test_data_lists_of_other_origin_are_kept_even_with_force(tmp_path: Path) -> None:
    table = make_table(tmp_path, make_rows(A=12))
    own = tmp_path / "sites" / "north" / "datalist.json"
    own.parent.mkdir(parents=True)
    own.write_text("mine")

    result = run_partition(table, "--strategy", "even", "--out", tmp_path / "sites", "--force", "--no-page")

    assert "no partition of brats-fl's" in str(result.exception)
    assert own.read_text() == "mine"


def test_force_replaces_every_list_and_nothing_else(tmp_path: Path) -> None:
    table = make_table(tmp_path, make_rows(A=12))
    out = tmp_path / "sites"
    run_partition(table, "--strategy", "even", "--sites", 4, "--out", out, "--no-page")
    (out / "hospital-4" / "notes.txt").write_text("mine")

    result = run_partition(table, "--strategy", "even", "--sites", 3, "--out", out, "--force", "--no-page")

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

    result = run_partition(table, "--strategy", "even", "--out", tmp_path / "sites", "--no-page")

    assert "1 of the 60 files it names are not there" in str(result.exception)
    assert not (tmp_path / "sites").exists()


def test_unknown_strategy_is_wrong_usage_and_all_are_listed(tmp_path: Path) -> None:
    result = run_partition(tmp_path / "cases.csv", "--strategy", "odd", "--out", tmp_path / "sites", "--no-page")

    assert result.exit_code == 2
    assert "'institution', 'even', 'size', 'dirichlet', 'grade', 'scanner'" in " ".join(result.stderr.split())


@pytest.mark.parametrize(
    "options",
    [
        ("--strategy", "even", "--validation", "0.5", "--test", "0.5"),
        ("--strategy", "even", "--test", "-0.1"),
        ("--strategy", "even", "--validation", "nan"),
        ("--strategy", "even", "--sites", "0"),
        ("--strategy", "even", "--institutions", "table.csv"),
        ("--strategy", "even", "--alpha", "1"),
        ("--strategy", "dirichlet", "--alpha", "0"),
        ("--strategy", "dirichlet", "--alpha", "nan"),
        ("--strategy", "size", "--exponent", "-1"),
        ("--strategy", "scanner", "--shift", "0"),
        ("--strategy", "even", "--seed", "-1"),
        ("--manifest", "partition.json", "--seed", "1"),
        (),
    ],
)
def test_options_that_make_no_sense_are_wrong_usage(tmp_path: Path, options: tuple[str, ...]) -> None:
    assert run_partition(tmp_path / "cases.csv", "--out", tmp_path / "sites", *options).exit_code == 2


@needs(NAME_MAPPING)
def test_brats_2020_makes_five_hospitals_of_its_institutions() -> None:
    rows = [make_row(f"BraTS20_Training_{number:03}") for number in range(1, 370)]

    result = deal(assign_origins(NAME_MAPPING, rows, read_origins(NAME_MAPPING)), Strategy.INSTITUTION)

    # 129, 35, 34, 34 and 30 begin; then 22 goes to the 30, 14 to a 34, 13 to the other, 12 to the 35, ...
    assert result.institutions("hospital-1") == {"CBICA": 129}
    assert [len(cases) for cases in result.cases.values()] == [129, 58, 62, 60, 60]


@needs(NAME_MAPPING)
@pytest.mark.parametrize(
    ("strategy", "sizes"),
    [
        (Strategy.EVEN, [74, 74, 74, 74, 73]),
        (Strategy.SIZE, [162, 81, 54, 40, 32]),  # 369 / (1 + 1/2 + 1/3 + 1/4 + 1/5) = 161.6, and so on
        (Strategy.GRADE, [74, 74, 74, 74, 73]),
        (Strategy.SCANNER, [74, 74, 74, 74, 73]),
    ],
)
def test_brats_2020_makes_hospitals_by_every_strategy(strategy: Strategy, sizes: list[int]) -> None:
    origins = read_origins(NAME_MAPPING)
    rows = [make_row(name, grade=origins[name].grade) for name in (f"BraTS20_Training_{n:03}" for n in range(1, 370))]

    result = deal(rows, strategy)

    assert [len(cases) for cases in result.cases.values()] == sizes
    low = [sum(row.grade == "LGG" for row in cases) for cases in result.cases.values()]
    assert sum(low) == 76
    if strategy is Strategy.GRADE:
        assert low == [0, 8, 15, 23, 30]  # 76 in shares of 0, 1, 2, 3 and 4 tenths


@needs(REAL_CASES, CASE_TABLE)
def test_thirteen_real_cases_go_to_their_five_hospitals() -> None:
    rows = list(import_cases(REAL_CASES).rows)

    result = deal(assign_origins(CASE_TABLE, rows, read_origins(CASE_TABLE)), Strategy.INSTITUTION)

    assert counts(result) == {
        "hospital-1": (2, 1, 1),
        "hospital-2": (1, 1, 1),
        "hospital-3": (1, 0, 1),
        "hospital-4": (1, 0, 1),
        "hospital-5": (1, 0, 1),
    }
