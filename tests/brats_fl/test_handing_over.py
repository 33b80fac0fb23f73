from __future__ import annotations

import gc
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from brats_fl import handing_over
from brats_fl.handing_over import ALIGNMENT, SMALL, hand_over, take_over

Ends = tuple[Connection, Connection]
LARGE = 4 * SMALL
"""Values of float32: 16 times what travels through the pipe."""


@pytest.fixture
def ends() -> Iterator[Ends]:
    both = Pipe()
    yield both
    for end in both:
        end.close()


def passed(ends: Ends, message: object) -> Any:
    """What the other end gets."""
    taken: list[Any] = []
    thread = threading.Thread(target=lambda: taken.append(take_over(ends[1])))
    thread.start()
    hand_over(ends[0], message)
    thread.join()
    return taken[0]


def open_memory() -> list[str]:
    """Anonymous files that this process has open or mapped."""
    mapped = [line for line in Path("/proc/self/maps").read_text().splitlines() if "memfd:brats_fl" in line]
    opened = [fd.readlink() for fd in Path("/proc/self/fd").iterdir() if fd.is_symlink()]
    return mapped + [str(name) for name in opened if "memfd:brats_fl" in str(name)]


def named_memory() -> set[str]:
    """Segments of shared memory of the size of the array that is handed over."""
    return {file.name for file in Path("/dev/shm").iterdir() if file.stat().st_size == 4 * LARGE}


@pytest.mark.parametrize("is_linux", [True, False], ids=["linux", "elsewhere"])
@pytest.mark.parametrize("size", [3, LARGE], ids=["small", "large"])
def test_what_is_handed_over_arrives(ends: Ends, monkeypatch: pytest.MonkeyPatch, size: int, is_linux: bool):
    monkeypatch.setattr(handing_over, "HAS_ANONYMOUS_FILES", is_linux)
    arrays = {
        "odd": np.arange(7, dtype=np.int8),
        "long": np.arange(size, dtype=np.float32),
        "turned": np.arange(2 * size, dtype=np.float64).reshape(2, size).T,
        "every other": np.arange(size, dtype=np.float32)[::2],
        "empty": np.zeros((0, 3), np.float32),
        "single": np.array(2.5),
    }

    text, taken = passed(ends, ("train", arrays))

    assert text == "train"
    for name, array in arrays.items():
        np.testing.assert_array_equal(taken[name], array)
        assert (taken[name].dtype, taken[name].flags.writeable) == (array.dtype, True)
    if is_linux and size == LARGE:
        assert taken["long"].ctypes.data % ALIGNMENT == 0


def test_change_on_one_side_is_none_on_the_other(ends: Ends):
    sent = np.zeros(LARGE, np.float32)

    first, second = passed(ends, sent), passed(ends, sent)
    sent[0], first[0] = 1, 2

    assert (sent[0], first[0], second[0]) == (1, 2, 0)


def test_memory_is_let_go_of_with_the_last_array_that_lies_in_it(ends: Ends):
    taken = passed(ends, {"a": np.zeros(LARGE, np.float32), "b": np.ones(LARGE, np.float32)})
    kept = taken["b"]
    del taken
    assert open_memory()

    assert kept.sum() == LARGE
    del kept
    gc.collect()

    assert open_memory() == []


HOLDER = """
import sys
from multiprocessing.connection import Connection
import numpy as np
from brats_fl.handing_over import hand_over, take_over

connection = Connection(int(sys.argv[1]))
taken = take_over(connection)
hand_over(connection, taken + 1)
print("has both", flush=True)
take_over(connection)
"""


def test_process_that_is_killed_leaves_nothing_in_memory_and_what_it_sent_can_still_be_read():
    ours, theirs = Pipe()
    named = named_memory()
    command = [sys.executable, "-c", HOLDER, str(theirs.fileno())]
    with subprocess.Popen(command, pass_fds=[theirs.fileno()], stdout=subprocess.PIPE) as process:
        theirs.close()
        hand_over(ours, np.arange(LARGE, dtype=np.float32))
        assert process.stdout is not None
        process.stdout.readline()  # it has mapped what it got, and has sent what it made of it
        process.send_signal(signal.SIGKILL)
        process.wait()

    taken = take_over(ours)
    assert taken[:3].tolist() == [1.0, 2.0, 3.0]
    with pytest.raises((EOFError, ConnectionError)):
        take_over(ours)
    del taken
    gc.collect()
    assert open_memory() == []
    assert named_memory() <= named
    ours.close()


def test_nobody_at_the_other_end_is_an_error_and_leaves_nothing(ends: Ends):
    ends[1].close()

    with pytest.raises(OSError, match="Broken pipe"):
        hand_over(ends[0], np.zeros(LARGE, np.float32))
    assert open_memory() == []


def test_sender_that_dies_before_the_memory_comes_is_gone(ends: Ends):
    ends[0].send_bytes(pickle.dumps((pickle.dumps("x"), (4,), ())))
    ends[0].close()

    with pytest.raises(EOFError):
        take_over(ends[1])


def test_memory_that_is_announced_and_does_not_come_is_not_waited_for(ends: Ends, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(handing_over, "PATIENCE_SECONDS", 0.1)
    ends[0].send_bytes(pickle.dumps((pickle.dumps("x"), (4,), ())))

    with pytest.raises(ValueError, match="4 bytes of memory were announced and did not come in"):
        take_over(ends[1])


@pytest.mark.parametrize("sizes", [True, 7, [3], (3, "x"), (-1,)])
def test_sizes_that_are_none_are_refused(ends: Ends, sizes: object):
    ends[0].send_bytes(pickle.dumps((pickle.dumps("x"), sizes, ())))

    with pytest.raises(ValueError, match="sizes of arrays must be whole numbers"):
        take_over(ends[1])
