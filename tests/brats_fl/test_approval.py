"""What a hospital approves: any change of what would run there is another job, and nothing that FLARE does to it is."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brats_fl.approval import (
    Approval,
    add_approval,
    approval_hash,
    check_approved,
    read_approvals,
    withdraw_approval,
)
from brats_fl.errors import KitError, NotApprovedError

CONFIG: dict[str, Any] = {
    "format_version": 2,
    "bundle": "brats_unet",
    "start_round": 0,
    "overrides": {"learning_rate": 0.001, "patch_size": [64, 64, 64]},
    "executors": [{"tasks": ["train"], "executor": {"path": "brats_fl.components.executor.BratsExecutor", "args": {}}}],
}
META: dict[str, Any] = {"name": "study", "resource_spec": {}}


def write_app(folder: Path, config: Any = CONFIG, **files: str) -> Path:
    """An app with a configuration and other files, ``__`` in a name for a folder."""
    texts = {"config/config_fed_client.json": json.dumps(config, indent=4), **files}
    for name, text in texts.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder


def hash_of(config: Any, folder: Path) -> str:
    """Hash of an app with this configuration."""
    return approval_hash(write_app(folder, config), META, "hospital-1")


def places(content: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every value of a JSON tree."""
    entries = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    return [*([path] if path else []), *(place for key, value in entries for place in places(value, (*path, key)))]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=3,
)


@settings(max_examples=60, deadline=None)
@given(place=st.sampled_from(places(CONFIG)), value=JSON)
def test_every_change_of_a_value_changes_the_hash(
    tmp_path_factory: pytest.TempPathFactory, place: tuple[Any, ...], value: Any
) -> None:
    folder = tmp_path_factory.getbasetemp() / "changed_app"
    changed = copy.deepcopy(CONFIG)
    parent = changed
    for key in place[:-1]:
        parent = parent[key]
    parent[place[-1]] = value
    is_round_alone = place == ("start_round",) and type(value) is int and value >= 0
    same = is_round_alone or json.dumps(changed, sort_keys=True) == json.dumps(CONFIG, sort_keys=True)

    assert (hash_of(changed, folder) == hash_of(CONFIG, folder)) == same


@pytest.mark.parametrize("value", ["$__import__('os')", -1, 1.0, True, None, [0], "0"])
def test_number_of_the_first_round_is_left_out_as_a_count_and_as_nothing_else(value: Any, tmp_path: Path) -> None:
    first = hash_of(CONFIG, tmp_path / "a")

    assert hash_of({**CONFIG, "start_round": 7}, tmp_path / "a") == first
    assert hash_of({**CONFIG, "start_round": value}, tmp_path / "a") != first
    assert hash_of({**CONFIG, "overrides": {**CONFIG["overrides"], "start_round": 7}}, tmp_path / "a") != first


@pytest.mark.parametrize(
    "files",
    [
        {"custom__train.py": "print('other')"},
        {"custom__train.py": "print('mine')", "custom__more.py": ""},
        {"custom__trained.py": "print('mine')"},
        {"config__config_fed_client.conf": "", "custom__train.py": "print('mine')"},
        {},
    ],
    ids=["content", "one more", "renamed", "another configuration beside", "one less"],
)
def test_every_change_of_a_file_changes_the_hash(files: dict[str, str], tmp_path: Path) -> None:
    mine = write_app(tmp_path / "mine", **{"custom__train.py": "print('mine')"})

    changed = write_app(tmp_path / "changed", **files)

    assert approval_hash(changed, META, "hospital-1") != approval_hash(mine, META, "hospital-1")


def test_order_and_layout_of_json_and_what_flare_adds_change_nothing(tmp_path: Path) -> None:
    plain = write_app(tmp_path / "plain", **{"custom__a.json": '{"b": 1, "a": [2, 3]}'})
    sent = write_app(
        tmp_path / "sent",
        dict(reversed(CONFIG.items())),
        **{"custom__a.json": '{\n  "a": [2, 3],\n  "b": 1\n}\n'},
    )
    for folder in (sent, sent / "custom"):
        for name in (".__nvfl_sig.json", ".__nvfl_submitter.crt"):
            (folder / name).write_text("{}", encoding="utf-8")
    meta = {**META, "job_id": "0f7a", "submitter_name": "lead", "byoc": True, "launcher_spec": {}, "schedule_count": 3}

    assert approval_hash(sent, meta, "hospital-1") == approval_hash(plain, META, "hospital-1")


def test_numbers_and_text_that_are_not_the_same_in_python_are_not_the_same_here(tmp_path: Path) -> None:
    hashes = {hash_of({**CONFIG, "seed": seed}, tmp_path) for seed in (1, 1.0, True, "1", [1])}

    assert len(hashes) == 5


@pytest.mark.parametrize(
    "meta",
    [
        {"launcher_spec": {"default": {"docker": {"image": "mine"}}}},
        {"launcher_spec": {"hospital-1": {"process": {"python_path": "/tmp/mine"}}}},
        {"resource_spec": {"hospital-1": {"num_of_gpus": 1}}},
        {"resource_spec": {"@default": {"num_of_gpus": 1}}},
        {"resource_spec": {"hospital-1": {"docker": {"image": "mine"}}}},
        {"launcher_spec": "docker"},
        {"scope": "public"},
        {"study": "another"},
        {"study": ["another"]},
    ],
)
def test_meta_data_that_change_how_the_job_runs_here_change_the_hash(meta: dict[str, Any], tmp_path: Path) -> None:
    app = write_app(tmp_path)

    assert approval_hash(app, {**META, **meta}, "hospital-1") != approval_hash(app, META, "hospital-1")


@pytest.mark.parametrize("study", ["default", "", "0f" * 32])
def test_study_that_flare_puts_in_place_of_the_built_jobs_changes_nothing(study: str, tmp_path: Path) -> None:
    app = write_app(tmp_path)

    assert approval_hash(app, {**META, "study": study}, "hospital-1") == approval_hash(app, META, "hospital-1")


def test_what_other_hospitals_are_given_does_not_change_the_hash_here(tmp_path: Path) -> None:
    app = write_app(tmp_path)
    for_others = {"resource_spec": {"hospital-2": {"num_of_gpus": 1}}, "launcher_spec": {"hospital-2": {"docker": {}}}}

    assert approval_hash(app, {**META, **for_others}, "hospital-1") == approval_hash(app, META, "hospital-1")
    same = [approval_hash(app, META, site) for site in ("hospital-1", "hospital-2")]
    assert same[0] == same[1]


@pytest.mark.parametrize("text", ["{", '{"a": 1' + "0" * 5000 + "}", "[" * 100_000, "\ufeff{}"])
def test_file_that_is_no_json_counts_byte_by_byte(text: str, tmp_path: Path) -> None:
    first = approval_hash(write_app(tmp_path, **{"custom__a.json": text}), META, "hospital-1")

    assert approval_hash(write_app(tmp_path, **{"custom__a.json": text + " "}), META, "hospital-1") != first


# The site's list


def approval(start: str) -> Approval:
    return Approval(start.ljust(64, "0"), "study", "", "it@hospital", "2026-11-29T08:00:00+00:00")


def test_approved_job_is_approved_until_it_is_withdrawn_by_the_first_digits_of_its_hash(tmp_path: Path) -> None:
    file = tmp_path / "approved_jobs.json"
    assert read_approvals(file) == ()
    for start in ("aa1", "ab2", "aa1"):
        add_approval(file, approval(start))

    assert [one.hash[:3] for one in read_approvals(file)] == ["ab2", "aa1"]
    check_approved(file, approval("aa1").hash)
    for start in ("a", "c", ""):
        with pytest.raises(KitError, match=r"the hash must be that of one approved job .*; there are a"):
            withdraw_approval(file, start)
    assert withdraw_approval(file, "aa") == approval("aa1")
    with pytest.raises(NotApprovedError, match=r"does not hold aa1.*agree with `brats-fl kit approve KIT JOB_FOLDER`"):
        check_approved(file, approval("aa1").hash)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"approved": 1}', '{"approved": [1]}', '{"approved": [{"hash": "aa"}]}', "\xff"]
)
def test_damaged_list_approves_nothing_and_says_so(text: str, tmp_path: Path) -> None:
    file = tmp_path / "approved_jobs.json"
    file.write_bytes(text.encode("latin-1"))

    with pytest.raises(KitError, match="no job runs here until it is mended"):
        check_approved(file, "aa")
    with pytest.raises(KitError, match="no job runs here until it is mended"):
        add_approval(file, approval("aa"))
    assert file.read_bytes() == text.encode("latin-1")
