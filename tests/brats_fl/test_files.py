"""Files that appear whole or not at all, whoever else writes them."""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import subprocess
import sys
import threading
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from brats_fl.files import SCRATCH, appearing, append_line, locked, write_whole


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_text_and_bytes_replace_what_was_there_and_leave_nothing_beside_it(tmp_path: Path):
    write_whole(tmp_path / "a.txt", "ä\n")
    write_whole(tmp_path / "a.txt", "ö\n")
    write_whole(tmp_path / "b.bin", memoryview(b"\0\1"))

    assert (tmp_path / "a.txt").read_bytes() == b"\xc3\xb6\n"
    assert (tmp_path / "b.bin").read_bytes() == b"\0\1"
    assert names_in(tmp_path) == ["a.txt", "b.bin"]


def test_line_is_added_in_a_line_of_its_own_also_after_one_that_lost_its_line_break(tmp_path: Path):
    file = tmp_path / "log.jsonl"

    for is_synced in (False, True):
        append_line(file, "ä", is_synced)
    assert file.read_bytes() == "ä\nä\n".encode()

    file.write_text('{"a": 1}')  # as an editor leaves it that strips the last line break
    append_line(file, '{"a": 2}')
    assert file.read_bytes() == b'{"a": 1}\n{"a": 2}\n'


def test_error_leaves_the_old_file_and_no_scratch(tmp_path: Path):
    write_whole(tmp_path / "a", "old")

    with pytest.raises(ZeroDivisionError), appearing(tmp_path / "a") as scratch:
        _ = scratch.write_text("half") / 0

    assert names_in(tmp_path) == ["a"]
    assert (tmp_path / "a").read_text() == "old"


def test_error_about_another_file_names_that_file(tmp_path: Path):
    with pytest.raises(FileNotFoundError) as caught, appearing(tmp_path / "a"):
        (tmp_path / "absent").read_text()

    assert caught.value.filename == str(tmp_path / "absent")


def test_line_for_which_there_is_no_room_leaves_nothing_of_it(tmp_path: Path, small_disk: Path):
    lines = small_disk / "lines"
    lines.write_bytes(b"first\n")

    with pytest.raises(OSError, match="No space left") as caught:
        append_line(lines, "x" * 10**7)

    assert caught.value.filename == str(lines)
    assert lines.read_bytes() == b"first\n"


def test_full_disk_is_told_with_the_file_that_a_line_was_for(tmp_path: Path):
    (tmp_path / "lines").symlink_to("/dev/full")

    with pytest.raises(OSError, match="No space left") as caught:
        append_line(tmp_path / "lines", "a line")

    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(tmp_path / "lines"))


def test_folder_that_is_not_there_is_told_with_the_file_s_name(tmp_path: Path):
    with pytest.raises(FileNotFoundError) as caught:
        write_whole(tmp_path / "absent" / "a", "text")

    assert caught.value.filename == str(tmp_path / "absent" / "a")


def test_full_disk_is_told_with_the_file_s_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(secrets, "token_hex", lambda size: "00" * size)
    (tmp_path / ".brats-fl-00000000.tmp").symlink_to("/dev/full")

    with pytest.raises(OSError, match="No space left") as caught:
        write_whole(tmp_path / "a", "text")

    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(tmp_path / "a"))
    assert names_in(tmp_path) == []


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o002, 0o664)])
def test_file_gets_the_rights_of_any_new_file(tmp_path: Path, umask: int, mode: int):
    before = os.umask(umask)
    try:
        write_whole(tmp_path / "a", "text")
        with appearing(tmp_path / "b.nii.gz", ending=".nii.gz") as scratch:
            nib.save(nib.Nifti1Image(np.zeros((2, 2, 2), np.uint8), np.eye(4)), scratch)
    finally:
        os.umask(before)

    assert [(tmp_path / name).stat().st_mode & 0o777 for name in ("a", "b.nii.gz")] == [mode, mode]


def test_link_is_replaced_in_one_step(tmp_path: Path):
    (tmp_path / "link").symlink_to("old")

    with appearing(tmp_path / "link") as scratch:
        scratch.symlink_to("new")

    assert (tmp_path / "link").readlink() == Path("new")
    assert names_in(tmp_path) == ["link"]


def test_scratch_is_hidden_known_by_its_name_and_another_for_each_writer(tmp_path: Path):
    with appearing(tmp_path / "a") as first, appearing(tmp_path / "a") as second:
        assert first != second
        assert first.parent == tmp_path
        assert SCRATCH.fullmatch(first.name)
        assert first.name.startswith(".")
        first.write_text("first")
        second.write_text("second")

    assert (tmp_path / "a").read_text() == "first"  # its block ends last


WRITE_MANY_TIMES = """
import sys
from pathlib import Path
from brats_fl.files import write_whole
for _ in range(200):
    write_whole(Path(sys.argv[1]), sys.argv[2] * 100_000)
"""


def test_two_processes_that_write_one_file_never_disturb_each_other_nor_a_reader(tmp_path: Path):
    path = tmp_path / "a"
    write_whole(path, "x" * 100_000)
    command = [sys.executable, "-c", WRITE_MANY_TIMES, str(path)]
    writers = [subprocess.Popen([*command, letter]) for letter in "xy"]
    seen: set[str] = set()
    while any(writer.poll() is None for writer in writers):
        seen.add(path.read_text())

    assert [writer.returncode for writer in writers] == [0, 0]
    assert seen <= {"x" * 100_000, "y" * 100_000}
    assert names_in(tmp_path) == ["a"]


def test_two_threads_that_write_one_file_never_disturb_each_other(tmp_path: Path):
    failed: list[BaseException] = []

    def write(letter: str) -> None:
        try:
            for _ in range(200):
                write_whole(tmp_path / "a", letter * 10_000)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=write, args=(letter,)) for letter in "xy"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert failed == []
    assert (tmp_path / "a").read_text() in ("x" * 10_000, "y" * 10_000)


HOLD = """
import sys, time
from pathlib import Path
from brats_fl.files import locked
with locked(Path(sys.argv[1])):
    print("mine", flush=True)
    time.sleep(60)
"""


def test_lock_is_had_by_one_process_at_a_time_and_outlives_no_killed_one(tmp_path: Path):
    path, had = tmp_path / "lock", threading.Event()

    def take() -> None:
        with locked(path):
            had.set()

    with subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"mine\n"
        waiting = threading.Thread(target=take)
        waiting.start()
        assert not had.wait(0.3)
        holder.kill()

    waiting.join(10)
    assert had.is_set()


def test_lock_that_cannot_be_had_is_told_with_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")  # as a network disk without them says

    monkeypatch.setattr(fcntl, "flock", refuse)

    with pytest.raises(OSError, match="No locks available") as caught, locked(tmp_path / "lock"):
        pass
    assert caught.value.filename == str(tmp_path / "lock")
