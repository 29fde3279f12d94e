"""The machine that the figures are of: what it is, what it can, and whether it is idle."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

BUSY = 0.35
"""Load per core from which on times cannot be trusted."""


def description() -> dict[str, Any]:
    """Return date, processor, cores, memory and load."""
    load = os.getloadavg()[0]
    known = hasattr(os, "sched_getaffinity")
    cores = len(os.sched_getaffinity(0)) if known else os.cpu_count()
    return {
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "processor": _processor(),
        "cores": cores,
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": platform.platform(),
        "load": round(load, 2),
    }  # fmt: skip


def warning(found: dict[str, Any]) -> str | None:
    """Return what is wrong with measuring now, or None."""
    if found["load"] / found["cores"] < BUSY:
        return None
    return (
        f"the machine is not idle (load {found['load']} on {found['cores']} cores): others take "
        "cache and memory bandwidth, so read ratios, not seconds"
    )


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def limits() -> dict[str, float]:
    """Return what one thread can do: bytes copied per second (read + written), float operations.

    Call it in a process of one thread.
    """
    import torch

    source = np.ones(2**26, np.uint8)
    target = np.empty_like(source)
    found = {"bytes_s": 2 * source.nbytes / _median(lambda: np.copyto(target, source))}
    side = 1536
    for dtype in (torch.float32, torch.bfloat16):
        a, b = (torch.ones(side, side, dtype=dtype) for _ in range(2))
        name = str(dtype).removeprefix("torch.")
        found[name] = 2 * side**3 / _median(lambda a=a, b=b: torch.mm(a, b))  # type: ignore[misc]
    return found


def _median(call: Callable[[], object], repeats: int = 9) -> float:
    call()
    seconds = []
    for _ in range(repeats):
        start = time.process_time()
        call()
        seconds.append(time.process_time() - start)
    return statistics.median(seconds)
