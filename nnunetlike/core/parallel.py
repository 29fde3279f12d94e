"""Work spread over processes: progress shown, failures told last and in full, never a hang.

How many work at a time is decided by what was asked for, by the processors this process may use and
by its free memory; a case that needs more than there is runs alone.
"""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Protocol, TypeVar

from tqdm import tqdm

from nnunetlike.core.errors import (
    NnunetlikeError,
    ResourceError,
    UsageError,
    WorkerBugError,
    WorkerError,
)
from nnunetlike.core.resources import available_cores as available_cores
from nnunetlike.core.resources import free_memory, in_words
from nnunetlike.core.workers import WorkerPool, may_start_processes, outcome_of

T = TypeVar("T")
R = TypeVar("R")
PROCESSES_VARIABLE = "nnUNet_def_n_proc"
WORKER_BYTES = 250 * 2**20
"""Memory of a worker that does nothing: Python with numpy, scipy, SimpleITK and numba."""

SHARE_OF_FREE = 0.9
"""Part of the free memory that workers may take together."""

logger = logging.getLogger(__name__)


def default_processes() -> int:
    """Return `nnUNet_def_n_proc` (8 when unset), never more than the cores available.

    Raises:
        UsageError: the variable is no number.
    """
    text = os.environ.get(PROCESSES_VARIABLE, "8").strip()
    if not text.isdigit():
        raise UsageError(f"{PROCESSES_VARIABLE} is {text!r}; set it to a number of processes")
    return min(int(text), available_cores())


@dataclass(frozen=True)
class Budget:
    """What may be in hand at a time."""

    processes: int
    """0 works in this process."""

    memory: float = float("inf")
    """Bytes."""

    def admits(self, cost: float, in_hand: Sequence[float]) -> bool:
        """Tell whether a case may begin beside those in hand; one alone always may."""
        if not in_hand:
            return True
        return len(in_hand) < self.processes and sum(in_hand) + cost <= self.memory


def budget_for(
    asked: int,
    costs: Sequence[float],
    names: Sequence[str],
    title: str = "",
    share: float = SHARE_OF_FREE,
) -> Budget:
    """Return what may be in hand; one line in the log says so when that is less than asked.

    Args:
        asked: processes asked for.
        costs: bytes that each case needs beside the worker's own.
        names: of the cases.
        title: what the work is called in the log.
        share: part of the free memory that the cases in hand may take.
    """
    if asked <= 0 or not costs:
        return Budget(0)
    wanted, cores, free = min(asked, len(costs)), available_cores(), free_memory()
    processes = max(1, min(wanted, cores))
    memory = float("inf") if free is None else share * free
    largest = max(range(len(costs)), key=costs.__getitem__)
    reasons = []
    if processes < wanted:
        reasons.append(f"{processes} of {asked} processes, since {cores} cores may be used")
    together = sorted((cost + WORKER_BYTES for cost in costs), reverse=True)[:processes]
    if processes > 1 and sum(together) > memory:
        reasons.append(
            f"fewer than {processes} at a time, since the largest case, {names[largest]}, needs "
            f"about {in_words(together[0])} of {in_words(memory)} free memory"
            + ("; it runs alone" if together[0] > memory else "")
        )
    if reasons:
        logger.info("%s: %s", title or "workers", "; ".join(reasons))
    return Budget(processes, memory)


class Executor(Protocol):
    """A place where cases are computed."""

    def outcomes(
        self,
        function: Callable[[T], R],
        items: Sequence[T],
        names: Sequence[str],
        cost: Callable[[T], float] | None,
        title: str,
    ) -> Generator[tuple[int, R | NnunetlikeError], None, None]:
        """Yield (index of an item, result or error) as they come, each once.

        A `WorkerError` is yielded when no further attempt is to be made. Closing the generator
        gives up what has not begun.

        Args:
            function: picklable, called with one item.
            items: picklable.
            names: of the items.
            cost: gives the memory an item needs, in bytes.
            title: what the work is called in the log.
        """
        ...


@dataclass(frozen=True)
class LocalProcesses:
    """Worker processes of this machine; what they need of its memory decides how many."""

    processes: int
    """At most; 0 or 1 computes in this process."""

    def outcomes(
        self,
        function: Callable[[T], R],
        items: Sequence[T],
        names: Sequence[str],
        cost: Callable[[T], float] | None,
        title: str,
    ) -> Generator[tuple[int, R | NnunetlikeError], None, None]:
        """Yield outcomes; cases whose workers died come last, each tried once more, alone."""
        if self.processes <= 1 or len(items) <= 1 or not may_start_processes():
            yield from _here(function, items)
            return
        costs = [float(cost(item)) if cost else 0.0 for item in items]
        budget = budget_for(self.processes, costs, names, title)
        lost: dict[int, WorkerError] = {}
        with closing(_beside(function, items, costs, budget)) as found:
            for index, outcome in found:
                if isinstance(outcome, WorkerError):
                    lost[index] = outcome
                else:
                    yield index, outcome
        for index, error in sorted(lost.items()):
            yield index, again(function, items[index], names[index], error)


Workers = int | Executor
"""Who computes cases: so many processes of this machine, or an executor."""


def process_map(
    function: Callable[..., R],
    items: Sequence[T],
    *,
    processes: Workers,
    name: Callable[[T], str] = str,
    title: str = "",
    cost: Callable[[T], float] | None = None,
) -> list[R]:
    """Return `[function(item) for item in items]`, computed in worker processes.

    A case that fails does not keep the others from being done. One whose worker was killed, ran out
    of memory or met a fault of the program is then tried once more, alone, in a fresh process. Only
    a full disk, or the like, ends the work early.

    Args:
        function: picklable, called with one item.
        items: picklable arguments, one call each.
        processes: most processes at a time, 0 or 1 for this process; or where else to compute.
        name: gives an item's name for messages.
        title: what the progress bar says; no bar when empty.
        cost: gives the memory an item needs, in bytes; cases run side by side as far as it suffices
            and one that needs more than there is runs alone.

    Raises:
        NnunetlikeError: cases failed; all are named, after the others were done.
        WorkerBugError: at least one of them by a fault of the program; its traceback comes last.
    """
    found = outcomes_of(
        function, items, processes=processes, name=name, title=title, cost=cost
    )  # fmt: skip
    errors = {
        name(item): outcome
        for item, outcome in zip(items, found, strict=True)
        if isinstance(outcome, NnunetlikeError)
    }
    if errors:
        raise summed_up(errors, len(items))
    return found  # type: ignore[return-value]  # no errors left


def outcomes_of(
    function: Callable[..., R],
    items: Sequence[T],
    *,
    processes: Workers,
    name: Callable[[T], str] = str,
    title: str = "",
    cost: Callable[[T], float] | None = None,
) -> list[R | NnunetlikeError]:
    """Return for each item the result or the error, as `process_map` computes them.

    Raises:
        NnunetlikeError: no further case can be done, as with a full disk.
    """
    executor = LocalProcesses(processes) if isinstance(processes, int) else processes
    names = [name(item) for item in items]
    outcomes: dict[int, R | NnunetlikeError] = {}
    bar = tqdm(total=len(items), desc=title, disable=not title, unit="case")
    with closing(executor.outcomes(function, items, names, cost, title)) as found, bar:
        for index, outcome in found:
            outcomes[index] = outcome
            bar.update()
            if isinstance(outcome, NnunetlikeError) and ends_the_work(outcome):
                raise named(outcome, names[index])
    return [outcomes[index] for index in range(len(items))]


def ends_the_work(outcome: object) -> bool:
    """Tell whether an outcome makes all further work pointless, as a full disk does."""
    return isinstance(outcome, ResourceError) and not isinstance(outcome, WorkerError)


def named(error: NnunetlikeError, name: str) -> NnunetlikeError:
    """Return the error with the case's name in front, once."""
    is_named = str(error).startswith(f"{name}: ")
    return error if is_named else type(error)(f"{name}: {error}")


def summed_up(errors: dict[str, NnunetlikeError], cases: int) -> NnunetlikeError:
    """Return one error that tells all of them, by the name of the case; the gravest comes last.

    Its kind is the gravest one: a fault of the program, else lacking resources, else wrong data.
    """
    gravity = (WorkerBugError, WorkerError, ResourceError)
    ranked = sorted(
        (named(error, name) for name, error in errors.items()),
        key=lambda error: -next((i for i, k in enumerate(gravity) if isinstance(error, k)), 3),
    )
    worst = ranked[-1]
    if cases == 1:
        return worst
    lines = "\n".join(f"  {error}" for error in ranked)
    return type(worst)(f"{len(ranked)} of {cases} cases failed, the others are done:\n{lines}")


def again(function: Callable[[T], R], item: T, name: str, error: object) -> R | NnunetlikeError:
    """Return the outcome of a second attempt, alone in a fresh process."""
    first = str(error).splitlines()[0]
    logger.warning("%s: %s. It is tried once more, alone", name, first.rstrip("."))
    with WorkerPool(function, 1) as pool:
        pool.begin(name, item)
        _, outcome = pool.collect()[0]
    if isinstance(outcome, WorkerError):
        return type(outcome)(f"{name}: tried twice, the second time alone: {outcome}")
    if not isinstance(outcome, NnunetlikeError):
        logger.info("%s: done at the second attempt", name)
    return outcome


def _here(
    function: Callable[[T], R], items: Sequence[T]
) -> Generator[tuple[int, R | NnunetlikeError], None, None]:
    for index, item in enumerate(items):
        yield index, outcome_of(function, item)


def _beside(
    function: Callable[[T], R], items: Sequence[T], costs: Sequence[float], budget: Budget
) -> Generator[tuple[int, R | NnunetlikeError], None, None]:
    """Yield (index, outcome) as they come; calls begin in order as far as the budget allows."""
    waiting = deque(range(len(items)))
    in_hand: dict[int, float] = {}
    with WorkerPool(function, budget.processes) as pool:
        while waiting or in_hand:
            while waiting and budget.admits(
                costs[waiting[0]] + WORKER_BYTES, list(in_hand.values())
            ):
                index = waiting.popleft()
                in_hand[index] = costs[index] + WORKER_BYTES
                pool.begin(index, items[index])
            for key, outcome in pool.collect():
                assert isinstance(key, int)
                del in_hand[key]
                yield key, outcome
