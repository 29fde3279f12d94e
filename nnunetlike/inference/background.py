"""Work beside the network: inputs prepared ahead, results written behind; both bounded.

A worker that dies takes only its own case along; the error says which, and the others go on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Sequence
from types import TracebackType
from typing import Any, TypeVar

from nnunetlike.core.errors import NnunetlikeError
from nnunetlike.core.parallel import WORKER_BYTES, Budget, ends_the_work, named
from nnunetlike.core.workers import WorkerPool, outcome_of

T = TypeVar("T")
R = TypeVar("R")


def ahead(
    function: Callable[[T], R],
    items: Sequence[T],
    *,
    budget: Budget,
    costs: Sequence[float] = (),
) -> Generator[tuple[T, R | NnunetlikeError], None, None]:
    """Yield each item with `function(item)`, in order, computed ahead of need.

    Args:
        function: picklable, called with one item.
        items: picklable arguments.
        budget: of calls and results in hand together; 0 processes compute here when asked.
        costs: memory that each item needs, in bytes; none by default.

    Yields:
        (item, result), or (item, error) where the call raised or its worker died.
    """
    if budget.processes <= 0:
        for item in items:
            yield item, outcome_of(function, item)
        return
    costs = [WORKER_BYTES + cost for cost in costs or [0.0] * len(items)]
    waiting, in_hand = deque(range(len(items))), deque[int]()
    found: dict[int, R | NnunetlikeError] = {}
    with WorkerPool(function, budget.processes) as pool:
        while waiting or in_hand:
            while waiting and budget.admits(costs[waiting[0]], [costs[i] for i in in_hand]):
                in_hand.append(waiting.popleft())
                pool.begin(in_hand[-1], items[in_hand[-1]])
            while in_hand[0] not in found:
                found.update((int(str(key)), outcome) for key, outcome in pool.collect())
            index = in_hand.popleft()
            yield items[index], found.pop(index)


class Behind:
    """Calls whose results nobody waits for, as many as a budget admits; errors are collected.

    Leaving the `with` block waits for the calls in hand; `errors` then holds, by name, what the
    user can mend. An interruption ends the workers at once.

    Args:
        budget: of the calls in hand; 0 processes call here.
    """

    def __init__(self, budget: Budget) -> None:
        self.errors: dict[str, NnunetlikeError] = {}
        self._budget = budget
        self._pool: WorkerPool[None] = WorkerPool(_call, budget.processes)
        self._costs: dict[str, float] = {}

    def submit(
        self, name: str, function: Callable[..., None], *arguments: Any, cost: float = 0.0
    ) -> None:
        """Call `function(*arguments)` in a worker; first waits while too many are in hand.

        Args:
            name: of the case.
            function: picklable, as its arguments are.
            arguments: of the call.
            cost: memory that the call needs, in bytes.
        """
        call = (function, arguments)
        if self._budget.processes <= 0:
            self._note(name, outcome_of(_call, call))
            return
        cost += WORKER_BYTES
        while not self._budget.admits(cost, list(self._costs.values())):
            self._collect()
        self._costs[name] = cost
        self._pool.begin(name, call)

    def finish(self) -> None:
        """Wait for all calls."""
        while self._costs:
            self._collect()

    def raise_if_pointless(self) -> None:
        """Raise an error after which no further call can succeed.

        Raises:
            ResourceError: the disk is full, or the like.
        """
        for error in self.errors.values():
            if ends_the_work(error):
                raise error

    def __enter__(self) -> Behind:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._pool:
            if kind is None or issubclass(kind, Exception):
                self.finish()

    def _collect(self) -> None:
        for name, outcome in self._pool.collect():
            del self._costs[str(name)]
            self._note(str(name), outcome)

    def _note(self, name: str, outcome: object) -> None:
        if isinstance(outcome, NnunetlikeError):
            self.errors[name] = named(outcome, name)


def _call(call: tuple[Callable[..., None], tuple[Any, ...]]) -> None:
    function, arguments = call
    function(*arguments)
