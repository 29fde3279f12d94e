"""Work spread over processes: progress shown, failures named, never a hang.

Workers are started by `forkserver` (or `spawn` where that is missing): a fork of a process that
already ran threaded convolutions may deadlock.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.context import BaseContext
from typing import Any, TypeVar

from tqdm import tqdm

from nnunetlike.core.errors import NnunetlikeError, WorkerError

T = TypeVar("T")
R = TypeVar("R")
PROCESSES_VARIABLE = "nnUNet_def_n_proc"


def process_context() -> BaseContext:
    """Return the way worker processes are started."""
    methods = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
    context.set_forkserver_preload(["nnunetlike.core.compiled"])  # numba, once for all workers
    return context


def available_cores() -> int:
    """Return the number of cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def default_processes() -> int:
    """Return `nnUNet_def_n_proc` (8 when unset), never more than the cores available."""
    return min(int(os.environ.get(PROCESSES_VARIABLE, "8")), available_cores())


def process_map(
    function: Callable[..., R],
    items: Sequence[T],
    *,
    processes: int,
    name: Callable[[T], str] = str,
    title: str = "",
) -> list[R]:
    """Return `[function(item) for item in items]`, computed in worker processes.

    Args:
        function: picklable, called with one item.
        items: picklable arguments, one call each.
        processes: most processes at a time; 0 or 1 computes in this process.
        name: gives an item's name for messages.
        title: what the progress bar says; no bar when empty.

    Raises:
        NnunetlikeError: as `function` raised it, with the item's name in front.
        WorkerError: a worker process died (out of memory, killed); names the items in hand.
    """
    processes = min(processes, len(items))
    bar = tqdm(total=len(items), desc=title, disable=not title, unit="case")
    with bar:
        if processes <= 1:
            return [_done(bar, _call(function, item, name(item))) for item in items]
        results: dict[int, R] = {}
        with ProcessPoolExecutor(processes, mp_context=process_context()) as pool:
            for index, result in _unordered(pool, function, items, processes, name):
                results[index] = _done(bar, result)
    return [results[index] for index in range(len(items))]


def _done(bar: Any, result: R) -> R:
    bar.update()
    return result


def _call(function: Callable[[T], R], item: T, name: str) -> R:
    try:
        return function(item)
    except NnunetlikeError as error:
        if str(error).startswith(name):
            raise
        raise type(error)(f"{name}: {error}") from error


def _unordered(
    pool: ProcessPoolExecutor,
    function: Callable[[T], R],
    items: Sequence[T],
    processes: int,
    name: Callable[[T], str],
) -> Iterator[tuple[int, R]]:
    """Yield (index, result) as they come, with at most `processes` items in hand."""
    waiting: Iterable[int] = iter(range(len(items)))
    in_hand: dict[Future[R], int] = {}

    def submit_next() -> None:
        for index in waiting:
            task = pool.submit(_call, function, items[index], name(items[index]))
            in_hand[task] = index
            return

    for _ in range(processes):
        submit_next()
    while in_hand:
        finished, _ = wait(in_hand, return_when=FIRST_COMPLETED)
        for task in finished:
            try:
                result = task.result()
            except BrokenProcessPool:
                names = ", ".join(name(items[index]) for index in in_hand.values())
                raise WorkerError(
                    f"a worker process died while these were in hand: {names}. The usual cause is "
                    "that memory ran out; use fewer processes"
                ) from None
            index = in_hand.pop(task)
            submit_next()
            yield index, result
