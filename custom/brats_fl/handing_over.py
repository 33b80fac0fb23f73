"""Objects handed from one process to another on the same machine, their arrays in memory that both have.

A model of 19 MB would otherwise be copied four times on its way: into a pickle, into the pipe, out of it, and out of
the pickle. Here it is copied once, into an anonymous file in memory, of which the other side is given the descriptor
and maps it: the arrays that it gets lie there. Such a file has no name. It is gone with the last process that has it,
however that ends, so nothing is left behind, and a small ``/dev/shm`` is no limit to it.
"""

from __future__ import annotations

import mmap
import os
import pickle
from collections.abc import Sequence
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle, send_handle
from typing import Any, Final

SMALL: Final = 1 << 16
"""Bytes of arrays up to which they travel through the pipe, which takes no longer."""

PATIENCE_SECONDS: Final = 10.0
"""From the announcement of memory to its descriptor, which is sent next."""

ALIGNMENT: Final = 64
"""Bytes at a multiple of which each array begins, as NumPy's own do."""

HAS_ANONYMOUS_FILES: Final = hasattr(os, "memfd_create")
"""Linux; elsewhere all travels through the pipe."""


def hand_over(connection: Connection, message: object) -> None:
    """Send an object; its arrays may be changed afterwards, on either side, and the other does not see it.

    Raises:
        OSError: Nobody is at the other end, or there is no memory.
    """
    buffers: list[pickle.PickleBuffer] = []
    content = pickle.dumps(message, pickle.HIGHEST_PROTOCOL, buffer_callback=buffers.append)
    sizes = tuple(buffer.raw().nbytes for buffer in buffers)
    if sum(sizes) <= SMALL or not HAS_ANONYMOUS_FILES:
        connection.send_bytes(pickle.dumps((content, (), buffers), pickle.HIGHEST_PROTOCOL))
        return
    descriptor = os.memfd_create("brats_fl")
    try:
        with open(descriptor, "wb", closefd=False) as file:
            for buffer, begin in zip(buffers, _begins(sizes), strict=True):
                file.seek(begin)
                file.write(buffer.raw())
        connection.send_bytes(pickle.dumps((content, sizes, ()), pickle.HIGHEST_PROTOCOL))
        send_handle(connection, descriptor, None)
    finally:
        os.close(descriptor)


def take_over(connection: Connection) -> Any:
    """The object that the other side handed over.

    Raises:
        EOFError, ConnectionError: The other side is gone.
        ValueError, TypeError: It handed over something else.
    """
    content, sizes, buffers = _unpickled(connection.recv_bytes())
    if not isinstance(sizes, tuple) or not all(isinstance(size, int) and size >= 0 for size in sizes):
        raise ValueError(f"sizes of arrays must be whole numbers of 0 and more (got {sizes!r:.80})")
    if sizes:
        if not connection.poll(PATIENCE_SECONDS):
            raise ValueError(f"{sum(sizes)} bytes of memory were announced and did not come in {PATIENCE_SECONDS} s")
        buffers = _mapped(recv_handle(connection), sizes)
    return _unpickled(content, buffers)


def _unpickled(content: bytes, buffers: Any = ()) -> Any:
    try:
        return pickle.loads(content, buffers=buffers)
    except Exception as error:  # whatever pickle runs into, such as an EOFError of bytes that end too soon
        raise ValueError(f"what came is no message ({type(error).__name__}: {error})") from error


def _mapped(descriptor: int, sizes: Sequence[int]) -> list[memoryview]:
    """The parts of an anonymous file, which is gone when nothing refers to any of them any more."""
    try:
        memory = memoryview(mmap.mmap(descriptor, 0))
    finally:
        os.close(descriptor)
    return [memory[begin : begin + size] for begin, size in zip(_begins(sizes), sizes, strict=True)]


def _begins(sizes: Sequence[int]) -> list[int]:
    """Where each part lies."""
    begins, end = [], 0
    for size in sizes:
        begins.append(end)
        end += -(-size // ALIGNMENT) * ALIGNMENT
    return begins
