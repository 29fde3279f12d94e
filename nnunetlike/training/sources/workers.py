"""Batches made ahead of time by worker processes, in the order of their numbers.

A batch is a function of the seed and its number, so order and content do not depend on how many
workers there are, and a batch whose worker died is simply made again. One thread of this process
gives the workers numbers and takes their batches while the network is busy with earlier ones. The
arrays of a batch lie in memory that both processes see, see `core.ring`; it is used again when
nothing looks at them any more.
"""

from __future__ import annotations

import logging
import multiprocessing
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache

from threadpoolctl import threadpool_limits

from nnunetlike.core.errors import NnunetlikeError, WorkerError
from nnunetlike.core.resources import NO_LIMIT
from nnunetlike.core.ring import Parcel, Ring, Slot, Ticket, packed
from nnunetlike.core.workers import WorkerPool
from nnunetlike.training.sources import BatchSource, HostBatch

PREFETCH = 2
"""Batches per worker that are in the making or ready at most."""

logger = logging.getLogger(__name__)


@contextmanager
def stream(
    source: BatchSource,
    *,
    workers: int,
    first: int = 0,
    memory: int | None = None,
    arrived: Callable[[HostBatch], HostBatch] = lambda batch: batch,
) -> Iterator[Iterator[HostBatch]]:
    """Yield an endless iterator over the batches `first`, `first + 1`, ...

    Args:
        source: picklable when there are workers.
        workers: processes that make batches ahead; 0 makes them in this process.
        first: number of the first batch.
        memory: bytes that the batches of workers may take together; where they would take more,
            fewer are made ahead. None does not limit them.
        arrived: called with each batch that a worker has made, beside the network's work; what it
            returns is what is yielded.

    A batch whose worker died or met a fault of the program is made once more, alone, in a fresh
    process. The processes end with the context.

    Raises:
        NnunetlikeError: as `source.batch` raised it, when its batch is due.
        WorkerError: a batch failed twice; the message names its cases and says why.
    """
    if workers < 1:
        yield _in_process(source, first)
        return
    line = _Line(source, workers, first, memory, arrived)
    line.start()
    batches = line.batches()
    try:
        yield batches
    finally:
        batches.close()
        line.end()


def _in_process(source: BatchSource, first: int) -> Generator[HostBatch, None, None]:
    index = first
    while True:
        yield source.batch(index)
        index += 1


@cache
def _use_one_thread() -> None:
    """Keep this worker's libraries from starting threads of their own."""
    threadpool_limits(limits=1)


@dataclass(frozen=True)
class _MakeBatch:
    """What each worker calls; picklable."""

    source: BatchSource
    slots: Sequence[Slot]

    def __call__(self, call: tuple[int, Ticket | None]) -> Parcel:
        index, ticket = call
        _use_one_thread()
        return packed(self.source.batch(index), self.slots, ticket)


class _Line(threading.Thread):
    """The thread that owns the workers; a few batches beyond the next one due are ready or made."""

    def __init__(
        self,
        source: BatchSource,
        workers: int,
        first: int,
        memory: int | None,
        arrived: Callable[[HostBatch], HostBatch],
    ) -> None:
        super().__init__(name="batches", daemon=True)
        self._source = source
        self._arrived = arrived
        self._workers = workers
        self._ring = Ring(PREFETCH * workers, NO_LIMIT if memory is None else memory, "batches")
        self._tickets: dict[int, Ticket | None] = {}
        self._due = first
        self._next = first
        self._lost: list[int] = []
        self._tried_twice: set[int] = set()
        self._ready: dict[int, HostBatch | NnunetlikeError] = {}
        self._fault: BaseException | None = None
        self._stopped = False
        self._changed = threading.Condition()
        self._wake, self._waker = multiprocessing.Pipe(duplex=False)

    def batches(self) -> Generator[HostBatch, None, None]:
        """Yield the batches in order; raise a failure when its batch is due."""
        while True:
            yield self._take()

    def end(self) -> None:
        """End the workers and the thread."""
        self._stopped = True
        self._waker.send_bytes(b"x")
        self.join()
        self._wake.close()
        self._waker.close()

    def run(self) -> None:
        """Keep the workers busy until the end."""
        try:
            make = _MakeBatch(self._source, self._ring.slots)
            with WorkerPool(make, self._workers) as pool:
                while not self._stopped:
                    self._begin_calls(pool)
                    for index, outcome in pool.collect(self._wake):
                        assert isinstance(index, int)
                        self._note(index, outcome)
                    while self._wake.poll():
                        self._wake.recv_bytes()
        except BaseException as error:  # noqa: BLE001 - raised again where the batches are taken
            with self._changed:
                self._fault = error
                self._changed.notify()

    def _take(self) -> HostBatch:
        with self._changed:
            while self._due not in self._ready:
                if self._fault is not None:
                    raise self._fault
                self._changed.wait()
            item = self._ready.pop(self._due)
            self._due += 1
        self._waker.send_bytes(b"x")
        if isinstance(item, NnunetlikeError):
            raise item
        return item

    def _begin_calls(self, pool: WorkerPool[Parcel]) -> None:
        """Give numbers to idle workers; one that is tried again is alone."""
        if self._lost:
            if pool.in_hand == 0:
                self._tried_twice.add(self._lost[0])
                self._begin(pool, self._lost[0])
            return
        while pool.has_room and self._next < self._due + self._ring.ahead:
            self._begin(pool, self._next)
            self._next += 1

    def _begin(self, pool: WorkerPool[Parcel], index: int) -> None:
        self._tickets[index] = self._ring.ticket()
        pool.begin(index, (index, self._tickets[index]))

    def _note(self, index: int, outcome: Parcel | NnunetlikeError) -> None:
        ticket = self._tickets.pop(index)
        if isinstance(outcome, Parcel):
            self._have_ready(index, self._arrived(self._ring.opened(outcome, ticket)))
            return
        self._ring.give_back(ticket)  # what held it is dead, or done with the call
        if isinstance(outcome, WorkerError) and index not in self._tried_twice:
            first = str(outcome).splitlines()[0]
            logger.warning("%s. It is made once more, alone", self._described(index, first))
            self._lost.append(index)
            return
        if isinstance(outcome, WorkerError):
            text = f"tried twice, the second time alone: {outcome}"
            outcome = type(outcome)(self._described(index, text))
        else:
            outcome = type(outcome)(f"batch {index}: {outcome}")
        self._have_ready(index, outcome)

    def _have_ready(self, index: int, item: HostBatch | NnunetlikeError) -> None:
        if index in self._lost:
            self._lost.remove(index)
        with self._changed:
            self._ready[index] = item
            self._changed.notify()

    def _described(self, index: int, what: str) -> str:
        cases = ", ".join(dict.fromkeys(self._source.cases(index)))
        return f"batch {index} (cases {cases}): {what.rstrip('.')}"
