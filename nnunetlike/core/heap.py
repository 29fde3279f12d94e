"""Memory of large arrays, kept by the C library from one to the next.

glibc takes every array above 32 MiB from the kernel and gives it back when it is freed. The kernel
hands out pages one by one, each filled with zeros, as they are first touched: of a network whose
layers are such arrays that was a fifth of the CPU time on a CPU.

Source: mallopt(3), malloc_trim(3).
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from nnunetlike.core import resources

MIB = 2**20
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4
_KEEP = ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, -1))
_GIVE_BACK = ((_MMAP_MAX, 2**16), (_MMAP_THRESHOLD, 32 * MIB), (_TRIM_THRESHOLD, 64 * MIB))
"""What glibc comes to by itself once an array of 32 MiB was freed."""

_OF_THE_USER = ("MALLOC_", "GLIBC_TUNABLES", "LD_PRELOAD")
"""Begins of variables by which a user chooses how memory is taken."""


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Keep freed memory for the next arrays of this process; all of it is given back at the end.

    What is kept does not always fit what comes next, so the peak rises, by a quarter to a half of
    what layers take. So nothing is kept where less than half of the memory is free; nor where the C
    library is not glibc, or the user has chosen how memory is taken (`MALLOC_...`,
    `GLIBC_TUNABLES`, `LD_PRELOAD`). It concerns the whole process.
    """
    library = _glibc()
    if library is None or not _is_plenty():
        yield
        return
    _set(library, _KEEP)
    try:
        yield
    finally:
        _set(library, _GIVE_BACK)
        library.malloc_trim(0)


def _is_plenty() -> bool:
    free, total = resources.free_memory(), resources.total_memory()
    return free is not None and total is not None and 2 * free >= total


def _glibc() -> ctypes.CDLL | None:
    if not sys.platform.startswith("linux"):
        return None
    if any(name.startswith(_OF_THE_USER) for name in os.environ):
        return None
    library = ctypes.CDLL(None)
    needed = ("gnu_get_libc_version", "mallopt", "malloc_trim")
    return library if all(hasattr(library, name) for name in needed) else None


def _set(library: ctypes.CDLL, values: tuple[tuple[int, int], ...]) -> None:
    for parameter, value in values:
        library.mallopt(parameter, value)
