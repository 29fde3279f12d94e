"""Work beside the network: inputs prepared ahead, results written behind; both bounded."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from types import TracebackType
from typing import Any, TypeVar

from nnunetlike.core.errors import NnunetlikeError, WorkerError
from nnunetlike.core.parallel import process_context

T = TypeVar("T")
R = TypeVar("R")


@contextmanager
def worker_pool(processes: int) -> Iterator[ProcessPoolExecutor | None]:
    """Yield a pool of worker processes, or None (work here) for 0.

    An error inside the block drops what has not begun; nothing is left running afterwards.
    """
    if processes <= 0:
        yield None
        return
    pool = ProcessPoolExecutor(processes, mp_context=process_context())
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def ahead(
    pool: ProcessPoolExecutor | None,
    function: Callable[[T], R],
    items: Sequence[T],
    *,
    at_once: int,
    name: Callable[[T], str] = str,
) -> Iterator[tuple[T, R | NnunetlikeError]]:
    """Yield each item with `function(item)`, in order, computed ahead of need.

    Args:
        pool: worker processes, or None to compute here when asked.
        function: picklable, called with one item.
        items: picklable arguments.
        at_once: most results and calls in hand, which bounds memory.
        name: gives an item's name for messages.

    Yields:
        (item, result), or (item, error) where the call raised something the user can mend.

    Raises:
        WorkerError: a worker process died.
    """
    if pool is None:
        for item in items:
            yield item, _outcome(lambda item=item: function(item), [name(item)])  # type: ignore[misc]  # mypy does not infer bound lambda arguments
        return
    waiting = iter(items)
    calls = deque((item, pool.submit(function, item)) for item in islice(waiting, at_once))
    while calls:
        item, call = calls.popleft()
        outcome = _outcome(call.result, [name(item)])
        calls.extend((later, pool.submit(function, later)) for later in islice(waiting, 1))
        yield item, outcome


class Behind:
    """Calls whose results nobody waits for, at most `at_once` in hand; errors are collected.

    Leaving the `with` block waits for all calls. `errors` then holds what the user can mend.
    """

    def __init__(self, pool: ProcessPoolExecutor | None, at_once: int) -> None:
        self.errors: list[NnunetlikeError] = []
        self._pool = pool
        self._at_once = max(1, at_once)
        self._calls: dict[Future[None], str] = {}

    def submit(self, name: str, function: Callable[..., None], *arguments: Any) -> None:
        """Call `function(*arguments)` in a worker; first waits while too many are in hand.

        Raises:
            WorkerError: a worker process died.
        """
        if self._pool is None:
            self._note(name, _outcome(lambda: function(*arguments), [name]))
            return
        while len(self._calls) >= self._at_once:
            self._collect()
        self._calls[self._pool.submit(function, *arguments)] = name

    def finish(self) -> None:
        """Wait for all calls.

        Raises:
            WorkerError: a worker process died.
        """
        while self._calls:
            self._collect()

    def __enter__(self) -> Behind:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.finish()

    def _collect(self) -> None:
        finished, _ = wait(self._calls, return_when=FIRST_COMPLETED)
        for call in finished:
            self._note(self._calls[call], _outcome(call.result, list(self._calls.values())))
            del self._calls[call]

    def _note(self, name: str, outcome: object) -> None:
        if isinstance(outcome, NnunetlikeError):
            self.errors.append(named(outcome, name))


def named(error: NnunetlikeError, name: str) -> NnunetlikeError:
    """Return the error with the case's name in front, once."""
    return error if str(error).startswith(name) else type(error)(f"{name}: {error}")


def _outcome(call: Callable[[], R], names: Sequence[str]) -> R | NnunetlikeError:
    try:
        return call()
    except BrokenProcessPool:
        raise WorkerError(
            f"a worker process died while these were in hand: {', '.join(names)}. The usual cause "
            "is that memory ran out; use fewer processes"
        ) from None
    except NnunetlikeError as error:
        return error
