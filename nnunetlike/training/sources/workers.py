"""Batches made ahead of time by batchgenerators' worker processes, in the order of their numbers.

Worker w of n makes the batches first + w, first + w + n, ...; MultiThreadedAugmenter asks the
workers in turn, so order and content do not depend on n.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
import traceback
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import connection

from batchgenerators.dataloading.multi_threaded_augmenter import MultiThreadedAugmenter
from threadpoolctl import threadpool_limits

from nnunetlike.core.errors import NnunetlikeError, WorkerError
from nnunetlike.core.parallel import process_context
from nnunetlike.training.sources import ArrayBatch, BatchSource

PREFETCH = 2
"""Batches that each worker makes ahead."""

WAIT_S = 0.01
"""How often a full or empty queue is looked at again."""


@dataclass(frozen=True)
class Failure:
    """What a worker sends instead of a batch."""

    kind: type[NnunetlikeError]
    message: str


class NumberedBatches:
    """The data loader that MultiThreadedAugmenter copies into each worker."""

    def __init__(self, source: BatchSource, first: int, step: int) -> None:
        self.source = source
        self.next_index = first
        self.step = step

    def set_thread_id(self, thread_id: int) -> None:
        """Make this the copy of worker `thread_id`; called once, inside the worker."""
        self.next_index += thread_id
        threadpool_limits(limits=1)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the training process decides when to end
        threading.Thread(target=_end_with_parent, daemon=True).start()

    def __iter__(self) -> NumberedBatches:
        return self

    def __next__(self) -> ArrayBatch | Failure:
        index = self.next_index
        self.next_index += self.step
        try:
            return self.source.batch(index)
        except NnunetlikeError as error:
            return Failure(type(error), f"batch {index}: {error}")
        except Exception:  # noqa: BLE001 - raised again in the training process
            return Failure(
                WorkerError,
                f"a worker failed to make batch {index}; this is a fault of the program:\n"
                f"{traceback.format_exc()}",
            )


def _end_with_parent() -> None:
    """Leave when the training process is gone, however it ended."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


@contextmanager
def stream(source: BatchSource, *, workers: int, first: int = 0) -> Iterator[Iterator[ArrayBatch]]:
    """Yield an endless iterator over the batches `first`, `first + 1`, ...

    Args:
        source: picklable when there are workers.
        workers: processes that make batches ahead, two each; 0 makes them in this process.
        first: number of the first batch.

    The processes end with the context.

    Raises:
        NnunetlikeError: as `source.batch` raised it, when its batch is due.
        WorkerError: a worker raised another error (its traceback is in the message) or died.
    """
    if workers < 1:
        yield _in_process(source, first)
        return
    with (
        _root_logger_as_it_is(),
        _started(NumberedBatches(source, first, workers), workers) as made,
    ):
        batches = _from(made)
        try:
            yield batches
        finally:
            batches.close()


class Workers(MultiThreadedAugmenter):  # type: ignore[misc]  # batchgenerators has no types
    """batchgenerators' worker processes, ended by `stream` and never by the garbage collector."""

    def __del__(self) -> None:
        """Do nothing: `stream` has cleaned up."""


def _in_process(source: BatchSource, first: int) -> Generator[ArrayBatch, None, None]:
    index = first
    while True:
        yield source.batch(index)
        index += 1


def _from(workers: Workers) -> Generator[ArrayBatch, None, None]:
    """Yield what the workers send; raise their failures here."""
    while True:
        try:
            item = next(workers)
        except RuntimeError:
            raise WorkerError(
                "a worker process that makes batches died. The usual cause is that memory ran "
                "out; use fewer workers (nnUNet_n_proc_DA) or a smaller batch"
            ) from None
        if isinstance(item, Failure):
            raise item.kind(item.message)
        yield item


@contextmanager
def _started(batches: NumberedBatches, workers: int) -> Iterator[Workers]:
    """Yield running workers; end them with the context.

    They are started the way `core.parallel` does, not by batchgenerators' fork: this process may
    have threads, of torch for one.
    """
    before = multiprocessing.get_start_method(allow_none=True)
    multiprocessing.set_start_method(process_context().get_start_method(), force=True)
    try:
        made = Workers(batches, None, workers, num_cached_per_queue=PREFETCH, wait_time=WAIT_S)
        made.restart()
    finally:
        multiprocessing.set_start_method(before, force=True)
    with _watched(made):
        try:
            yield made
        finally:
            made._finish()


@contextmanager
def _watched(workers: Workers) -> Iterator[None]:
    """Make the death of a worker known at once, even in the middle of sending a batch.

    batchgenerators' collecting thread would wait for the rest of that batch for ever, or end with
    a traceback on the console. Here it sees the end of the pipe, quietly.
    """
    collector, queues = workers.pin_memory_thread, list(workers._queues)
    wake, over = multiprocessing.Pipe(duplex=False)
    hook_before = threading.excepthook

    def hook(failure: threading.ExceptHookArgs) -> None:
        if failure.thread is not collector:
            hook_before(failure)

    def watch() -> None:
        ended = connection.wait([wake, *(process.sentinel for process in processes)])
        if wake not in ended and not workers.abort_event.is_set():
            workers.abort_event.set()
            for queue in queues:
                queue._writer.close()

    processes = list(workers._processes)
    watcher = threading.Thread(target=watch, daemon=True)
    threading.excepthook = hook
    watcher.start()
    try:
        yield
    finally:
        over.close()
        watcher.join()
        wake.close()
        threading.excepthook = hook_before


@contextmanager
def _root_logger_as_it_is() -> Iterator[None]:
    """Keep batchgenerators from giving the root logger a handler, which would repeat our lines.

    It calls `logging.debug`, which configures an unconfigured root logger. One handler that shows
    the warnings of others, as an unconfigured root does, prevents that.
    """
    root = logging.getLogger()
    if root.handlers:
        yield
        return
    others = logging.StreamHandler()
    others.setLevel(logging.WARNING)
    others.addFilter(lambda record: not record.name.startswith("nnunetlike"))
    root.addHandler(others)
    try:
        yield
    finally:
        root.removeHandler(others)
