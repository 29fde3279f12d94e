"""Freed memory that is kept for the next array."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
from contextlib import suppress

import pytest

from nnunetlike.core import heap, resources

BYTES = 64 * heap.MIB
PROGRAM = f"""
import ctypes, resource
from nnunetlike.core import heap, resources
resources.free_memory = resources.total_memory = lambda: 2**40
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    place = libc.malloc({BYTES})
    for offset in range(0, {BYTES}, {mmap.PAGESIZE}):
        ctypes.c_char.from_address(place + offset).value = b"x"
    libc.free(place)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
with heap.freed_memory_kept():
    print(faults(), faults())
print(faults(), faults())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc is asked")
def test_pages_of_a_freed_array_are_used_again_inside_only() -> None:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(heap._OF_THE_USER)}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True,
        timeout=120, check=True,
    )  # fmt: skip
    first, second, after, again = map(int, done.stdout.split())
    pages = BYTES // mmap.PAGESIZE
    assert first > pages // 2
    assert second < pages // 100
    assert min(after, again) > pages // 2


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """What the C library is told; memory is plenty and the user has chosen nothing."""
    calls: list[tuple[int, int]] = []
    for name in list(os.environ):
        if name.startswith(heap._OF_THE_USER):
            monkeypatch.delenv(name)

    class Library:
        gnu_get_libc_version = None

        def mallopt(self, parameter: int, value: int) -> None:
            calls.append((parameter, value))

        def malloc_trim(self, pad: int) -> None:
            calls.append((0, pad))

    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(heap.ctypes, "CDLL", lambda _: Library())
    monkeypatch.setattr(resources, "free_memory", lambda: 6)
    monkeypatch.setattr(resources, "total_memory", lambda: 10)
    return calls


def test_memory_is_given_back_when_the_block_fails(asked: list[tuple[int, int]]) -> None:
    with suppress(KeyError), heap.freed_memory_kept():
        assert asked == list(heap._KEEP)
        raise KeyError
    assert asked == [*heap._KEEP, *heap._GIVE_BACK, (0, 0)]


def test_nothing_is_kept_where_memory_is_short(
    asked: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resources, "free_memory", lambda: 4)
    with heap.freed_memory_kept():
        assert not asked


@pytest.mark.parametrize("name", ["MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES", "LD_PRELOAD"])
def test_what_the_user_chose_stays(
    asked: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "x")
    with heap.freed_memory_kept():
        assert not asked


def test_other_systems_are_left_alone(
    asked: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with heap.freed_memory_kept():
        assert not asked


def test_another_c_library_is_left_alone(
    asked: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heap.ctypes, "CDLL", lambda _: object())
    with heap.freed_memory_kept():
        assert not asked
