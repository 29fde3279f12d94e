"""The memory of a process and all that it starts, looked at from outside while it works."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

INTERVAL_S = 0.05
KIB = 1024


class Seen:
    """What was seen of a family of processes."""

    peak: int | None = None
    """Largest sum of their memory in bytes; pages that several share are counted once."""


@contextmanager
def watched(pid: int, wanted: bool = True) -> Iterator[Seen]:
    """Look at a process and its children twenty times a second until the block ends.

    Args:
        pid: the oldest of them.
        wanted: False looks at nothing.
    """
    seen, done = Seen(), threading.Event()

    def look() -> None:
        while not done.wait(INTERVAL_S):
            now = sum(map(memory_of, family(pid)))
            seen.peak = max(now, seen.peak or 0)

    thread = threading.Thread(target=look, daemon=True)
    if wanted and Path("/proc/self/stat").exists():
        thread.start()
    try:
        yield seen
    finally:
        done.set()
        if thread.is_alive():
            thread.join()


def family(pid: int) -> list[int]:
    """Return a process and all below it."""
    found = [pid]
    for parent in found:
        for task in Path(f"/proc/{parent}/task").glob("*/children"):
            try:
                found += map(int, task.read_text().split())
            except OSError:  # it has ended
                continue
    return found


def memory_of(pid: int) -> int:
    """Return the proportional set size of a process in bytes, 0 if it has ended."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * KIB for line in lines if line.startswith("Pss:"))
