"""What this process may use: memory, processors, shared memory, disk.

A container or a batch system often grants less than the machine has. Its limits are in control
groups (cgroup v1 or v2), in the affinity mask and in `ulimit`; the smallest one counts. Every
function takes the root of the file system, so tests can give their own.

Source: Linux kernel documentation, admin-guide/cgroup-v1/memory.rst and admin-guide/cgroup-v2.rst.
"""

from __future__ import annotations

import math
import os
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from nnunetlike.core.system_errors import existing_parent

ROOT = Path("/")
NO_LIMIT = 2**60
"""Bytes that nothing has; cgroup v1 writes a number near 2^63 where there is no limit."""

GPU_DEVICES = ("dev/nvidiactl", "dev/nvidia0", "dev/nvmap", "dev/kfd", "dev/dxg")
"""Of Linux: NVIDIA's cards, its Jetson boards, AMD's cards, and any card below Windows."""


@dataclass(frozen=True)
class Space:
    """Bytes of a file system."""

    total: int
    free: int


@dataclass(frozen=True)
class ProcessMemory:
    """Main memory that a process holds now and held at most, in bytes."""

    now: int
    peak: int


def free_memory(root: Path = ROOT) -> int | None:
    """Return the bytes that this process may still take; None where the system does not tell.

    The least of what the machine, the control groups and `ulimit -v` leave. Files that the kernel
    keeps in memory count as free.
    """
    groups = [free for _, free in _control_groups(root)]
    found = [_machine_free(root), _limit_free(root), *groups]
    known = [free for free in found if free is not None]
    return max(0, min(known)) if known else None


def total_memory(root: Path = ROOT) -> int | None:
    """Return the bytes that this process could have were nothing else there.

    That is the least of what the machine has and its control groups grant; None if the system does
    not tell.
    """
    machine = _kilobytes(_text(root / "proc/meminfo"), "MemTotal")
    limits = [limit for limit, _ in _control_groups(root)]
    return min([machine, *limits]) if machine is not None else None


def available_cores(root: Path = ROOT) -> int:
    """Return how many cores this process may use: affinity mask and quota of its control group."""
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    return max(1, min([cores, *_quotas(root)]))


def shared_memory(root: Path = ROOT) -> Space | None:
    """Return size and free bytes of `/dev/shm`; None without one."""
    folder = root / "dev/shm"
    return disk_space(folder) if folder.is_dir() else None


def disk_space(path: Path) -> Space:
    """Return size and free bytes of the disk on which `path` lies or would lie."""
    usage = shutil.disk_usage(existing_parent(path))
    return Space(usage.total, usage.free)


def process_memory(pid: int, root: Path = ROOT) -> ProcessMemory | None:
    """Return the memory of a process; None when it has ended or the system does not tell."""
    text = _text(root / f"proc/{pid}/status")
    now, peak = (_kilobytes(text, name) for name in ("VmRSS", "VmHWM"))
    return None if now is None else ProcessMemory(now, max(now, peak or 0))


def in_words(size: float) -> str:
    """Return a number of bytes for people: `5.2 GiB`, `64 MiB`, `12 bytes`."""
    for unit, factor in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size:.0f} bytes"


def _machine_free(root: Path) -> int | None:
    return _kilobytes(_text(root / "proc/meminfo"), "MemAvailable")


def _limit_free(root: Path) -> int | None:
    """Return what `ulimit -v` leaves of this process's addresses."""
    if sys.platform == "win32":
        return None
    import resource  # which Windows lacks

    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit == resource.RLIM_INFINITY:
        return None
    return limit - (_kilobytes(_text(root / "proc/self/status"), "VmSize") or 0)


def _control_groups(root: Path) -> Iterator[tuple[int, int]]:
    """Yield limit and rest of each control group of this process, its own and those around it."""
    for folder in _groups(root, "memory"):
        for limit_name, usage_name, cache_name in (
            ("memory.max", "memory.current", "inactive_file"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        ):
            limit, usage = _number(folder / limit_name), _number(folder / usage_name)
            if limit is not None and usage is not None and limit < NO_LIMIT:
                cache = re.search(rf"^{cache_name} (\d+)$", _text(folder / "memory.stat"), re.M)
                yield limit, limit - usage + (int(cache[1]) if cache else 0)


def _quotas(root: Path) -> Iterator[int]:
    for folder in _groups(root, "cpu"):
        quota, _, period = _text(folder / "cpu.max").partition(" ")
        if not quota:
            quota = _text(folder / "cpu.cfs_quota_us")
            period = _text(folder / "cpu.cfs_period_us")
        if quota.strip().isdigit() and period.strip().isdigit():
            yield math.ceil(int(quota) / int(period))


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """Yield the folders of this process's control groups from its own up to the root.

    Inside a container the path in `/proc/self/cgroup` may be the host's, which is not there; the
    root of the mounted tree then is the container's own.
    """
    for line in _text(root / "proc/self/cgroup").splitlines():
        number, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        if number == "0" and not names:
            mounted = root / "sys/fs/cgroup"
        elif controller in names.split(","):
            mounted = root / "sys/fs/cgroup" / controller
        else:
            continue
        folder = mounted / path.lstrip("/")
        yield folder
        yield from (above for above in folder.parents if above.is_relative_to(mounted))


def _kilobytes(text: str, name: str) -> int | None:
    found = re.search(rf"^{name}:\s+(\d+) kB$", text, re.M)
    return int(found[1]) * 1024 if found else None


def _number(path: Path) -> int | None:
    text = _text(path).strip()
    return int(text) if text.isdigit() else None


def _text(path: Path) -> str:
    """Return the content of a file of the kernel, empty where it does not have it."""
    try:
        return path.read_text(encoding="ascii")
    except (OSError, ValueError):
        return ""


def may_have_gpu(root: Path = ROOT) -> bool:
    """Tell whether torch may find a GPU: not where the device of no driver is there."""
    if sys.platform == "darwin":
        return False  # those of Apple are no CUDA devices
    return sys.platform != "linux" or any((root / path).exists() for path in GPU_DEVICES)
