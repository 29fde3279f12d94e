"""Runs the stages of one side in its own interpreter; told what to do by lines of JSON.

usage: PYTHON benchmarks/sides/worker.py SIDE.py

Requests and answers are single lines on standard input and output; whatever the side prints goes to
standard error. It needs nothing but NumPy and the standard library.

  {"do": "load", "stage": NAME, "folder": PATH}   read the inputs
  {"do": "run", "times": N}                       -> {"cpu": seconds, "wall": seconds} per call
  {"do": "save", "path": PATH}                    write what the last run gave as npz
  {"do": "peak"}                                  -> {"baseline": bytes, "peak": bytes} of a run
  {"do": "limits"}                                -> what the side's function `limits` gives
  {"do": "describe"}                              -> {"python": ..., "versions": {...}}

An answer to what failed is {"error": text}.
"""

from __future__ import annotations

import ctypes
import gc
import importlib.util
import json
import os
import platform
import resource
import sys
import time
import traceback
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

KIB = 1024


class Worker:
    """One side and the stage it has loaded.

    Args:
        side: module with `STAGES` and `DISTRIBUTIONS`.
    """

    def __init__(self, side: Any) -> None:
        self.side = side
        self.call: Callable[[], Any] | None = None
        self.result: Any = None

    def load(self, stage: str, folder: str) -> dict[str, Any]:
        """Read the inputs of a stage; those of the one before are let go."""
        self.call = self.result = None
        gc.collect()
        self.call = self.side.STAGES[stage](Path(folder))
        return {}

    def run(self, times: int = 1) -> dict[str, Any]:
        """Call the stage so many times and return seconds per call, children's CPU included."""
        assert self.call is not None
        self.result = None
        wall, cpu = time.perf_counter(), _cpu()
        for _ in range(times):
            self.result = self.call()
        return {"cpu": (_cpu() - cpu) / times, "wall": (time.perf_counter() - wall) / times}

    def save(self, path: str) -> dict[str, Any]:
        """Write the last result as npz; a single array is called `value`."""
        found = self.result if isinstance(self.result, dict) else {"value": self.result}
        np.savez(path, **{name: np.asarray(value) for name, value in found.items()})
        self.result = None
        return {}

    def peak(self) -> dict[str, Any]:
        """Run once and return the memory before it and at its peak, in bytes."""
        assert self.call is not None
        self.result = None
        gc.collect()
        _give_back()
        baseline = _reset_peak()
        self.result = self.call()
        return {"baseline": baseline, "peak": max(_peak(), baseline)}

    def limits(self) -> dict[str, Any]:
        """Return what one thread of the machine can do, if the side measures that."""
        found: dict[str, Any] = self.side.limits()
        return found

    def describe(self) -> dict[str, Any]:
        """Return the versions of Python and of what the side is made of."""
        found = {}
        for name in self.side.DISTRIBUTIONS:
            try:
                found[name] = version(name)
            except PackageNotFoundError:
                found[name] = None
        return {"python": platform.python_version(), "versions": found}


def _cpu() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def _give_back() -> None:
    """Hand freed memory back to the system, so that it does not count as held; glibc keeps some."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None
    if trim is not None:
        trim(0)


def _reset_peak() -> int:
    """Forget the largest memory so far, where the system can, and return the present baseline.

    Where it cannot, the baseline is the largest so far, and a run that stays below it counts 0.
    """
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return _peak()
    return _status("VmRSS") or _peak()


def _peak() -> int:
    """Return the largest resident memory of this process in bytes.

    A process that was started by a larger one inherits that one's ru_maxrss; VmHWM it does not.
    """
    own = _status("VmHWM")
    if own is not None:
        return own
    unit = 1 if sys.platform == "darwin" else KIB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _status(field: str) -> int | None:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    found = [int(line.split()[1]) * KIB for line in lines if line.startswith(f"{field}:")]
    return found[0] if found else None


def load_side(path: Path) -> Any:
    """Return the module of a file."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main() -> None:
    """Answer requests until there are no more."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    sys.path.pop(0)  # not this folder: a side may be called as the package it measures
    worker = Worker(load_side(Path(sys.argv[1])))
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = getattr(worker, request.pop("do"))(**request)
        except Exception as error:  # noqa: BLE001 - told to the other end, which decides
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}"}
        sys.stderr.flush()
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
