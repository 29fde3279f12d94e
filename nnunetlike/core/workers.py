"""Worker processes that may die: every call ends with a result or with an error that says all.

Each worker has a pipe of its own and one call at a time, so it is known whose call was in hand when
a process dies, and the others go on. Nothing needs a semaphore or a file in `/dev/shm`; large
arrays can bypass the pipe, see `core.ring`. There is no thread on this side: the owner of a pool
collects what has ended when it asks for it. A worker ends when its owner says so, when its owner
is gone, however that ended, or, if it does not obey, by a signal that cannot be refused. What a
call logs comes with its answer and is logged here; a worker has no console and no log file.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.context import BaseContext
from types import TracebackType
from typing import Any, Generic, TypeVar

from nnunetlike.core.errors import (
    NnunetlikeError,
    UsageError,
    WorkerBugError,
    WorkerError,
)
from nnunetlike.core.resources import free_memory, in_words, process_memory
from nnunetlike.core.system_errors import explained, is_out_of_memory
from nnunetlike.core.worker_notes import Note, Relay, keep_notes, package_level

R = TypeVar("R")
START_VARIABLE = "nnUNet_start_method"
GRACE_S = 5.0
"""How long a worker that was asked to end may take before it is killed."""

LOOK_S = 1.0
"""How often workers are looked at: their memory, for the report in case one dies, and whether they
live, since a process that something else forked may hold the pipe of a dead one open."""

_starting = threading.Lock()
"""Held while a worker starts: one that another thread forks meanwhile would inherit its pipe."""


def process_context() -> BaseContext:
    """Return the way worker processes are started: `nnUNet_start_method`, else forkserver.

    A plain fork of a process that already ran threaded convolutions may deadlock, so `fork` is only
    taken when asked for. `spawn` is the way where there is no forkserver (Windows).

    Raises:
        UsageError: this system has no such method.
    """
    methods = multiprocessing.get_all_start_methods()
    asked = os.environ.get(START_VARIABLE, "").strip()
    if asked and asked not in methods:
        raise UsageError(
            f"{START_VARIABLE} is {asked!r}; this system can start processes by "
            f"{', '.join(methods)}"
        )
    context = multiprocessing.get_context(
        asked or ("forkserver" if "forkserver" in methods else "spawn")
    )
    context.set_forkserver_preload(["nnunetlike.core.compiled"])  # numba, once for all workers
    return context


def may_start_processes() -> bool:
    """Tell whether this process may start others; a worker may not and works alone."""
    return not multiprocessing.current_process().daemon


def _require_main_guard() -> None:
    """Refuse to start a process while one is being started, which happens to unguarded scripts."""
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise UsageError(
            "worker processes import the script that started them, which starts workers again. Put "
            "the script's work under  if __name__ == '__main__':  or ask for 0 processes"
        )


@dataclass(eq=False)
class _Worker:
    process: Any  # multiprocessing has one class of process per way to start
    pipe: Connection
    key: Hashable = None
    busy: bool = False
    peak: int = 0


@dataclass(frozen=True)
class Failure:
    """What a worker sends instead of a result; errors themselves may not be picklable."""

    kind: type[NnunetlikeError]
    message: str

    def error(self) -> NnunetlikeError:
        """Return the error as it was raised."""
        return self.kind(self.message)


@dataclass(frozen=True)
class _Answer:
    """What a worker sends back: the result or the failure of a call, and what the call logged."""

    outcome: object
    notes: tuple[Note, ...] = ()


@dataclass
class WorkerPool(Generic[R]):
    """Up to `processes` workers that call one function; a context manager.

    Workers start when they are needed. Leaving the context ends them: politely after success, at
    once after an error or an interruption.

    Args:
        function: picklable; sent to each worker once.
        processes: most workers at a time.
    """

    function: Callable[[Any], R]
    processes: int
    _workers: list[_Worker] = field(default_factory=list, init=False)
    _ended: list[tuple[Hashable, R | NnunetlikeError]] = field(default_factory=list, init=False)
    _looked: float = field(default=0.0, init=False)
    _relay: Relay = field(default_factory=Relay, init=False)

    def __enter__(self) -> WorkerPool[R]:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end(self._workers, politely=kind is None)
        self._relay.sum_up()

    @property
    def in_hand(self) -> int:
        """Number of calls that have begun and whose outcome was not collected."""
        return sum(worker.busy for worker in self._workers) + len(self._ended)

    @property
    def has_room(self) -> bool:
        """Tell whether a call can begin now."""
        return sum(worker.busy for worker in self._workers) < self.processes

    def begin(self, key: Hashable, item: Any) -> None:
        """Give an item to a worker; `collect` returns its outcome under `key`."""
        assert self.has_room
        worker = next((w for w in self._workers if not w.busy), None) or self._start()
        worker.key, worker.busy = key, True
        try:
            worker.pipe.send(item)
        except OSError:  # it died while it was idle, or of this item
            self._bury(worker)

    def collect(self, wake: Connection | None = None) -> list[tuple[Hashable, R | NnunetlikeError]]:
        """Return the outcomes of calls that have ended; wait until there is at least one.

        Args:
            wake: also ends the wait as soon as there is something to read in it; it is not read.

        Returns:
            Pairs of key and result or error; an error of a worker that died or whose call raised
            something unforeseen is a `WorkerError`. Nothing when no call is in hand and there is no
            `wake`, or after waking.
        """
        woken = False
        while not (self._ended or woken):
            self._look_at_memory()
            busy = {worker.pipe: worker for worker in self._workers if worker.busy}
            if not busy and wake is None:
                break
            ready = wait([*busy, *([wake] if wake else [])], timeout=LOOK_S)
            woken = wake in ready
            for pipe, worker in busy.items():
                if pipe in ready:
                    self._receive(worker)
                elif worker.process.exitcode is not None and not pipe.poll():
                    self._bury(worker)
        ended, self._ended = self._ended, []
        return ended

    def _start(self) -> _Worker:
        _require_main_guard()
        context = process_context()
        with _starting:
            ours, theirs = context.Pipe()
            process = context.Process(  # type: ignore[attr-defined]  # every context has it
                target=_work,
                args=(theirs, self.function, package_level()),
                daemon=True,
            )
            process.start()
            theirs.close()  # so that its end is seen on our side
        worker = _Worker(process, ours)
        self._workers.append(worker)
        return worker

    def _receive(self, worker: _Worker) -> None:
        try:
            answer: _Answer = worker.pipe.recv()
        except (EOFError, OSError):  # even in the middle of an answer
            self._bury(worker)
            return
        worker.busy = False
        self._relay.pass_on(answer.notes)
        outcome: Any = answer.outcome
        if isinstance(outcome, Failure):
            outcome = outcome.error()
            if isinstance(outcome, WorkerError):  # the next call gets a fresh process
                self._end([worker], politely=True)
        self._ended.append((worker.key, outcome))

    def _bury(self, worker: _Worker) -> None:
        """Note the death of a worker as the outcome of its call."""
        self._workers.remove(worker)
        worker.process.join(GRACE_S)
        _make_sure(worker)
        self._ended.append((worker.key, WorkerError(_obituary(worker))))

    def _look_at_memory(self) -> None:
        if time.monotonic() - self._looked < LOOK_S:
            return
        self._looked = time.monotonic()
        for worker in self._workers:
            memory = process_memory(worker.process.pid)
            worker.peak = max(worker.peak, memory.peak if memory else 0)

    def _end(self, workers: Sequence[_Worker], *, politely: bool) -> None:
        for worker in workers:
            if politely and not worker.busy:
                _say_goodbye(worker)
            else:
                worker.process.terminate()
        end = time.monotonic() + GRACE_S
        for worker in workers:
            worker.process.join(max(0.0, end - time.monotonic()))
            _make_sure(worker)
        self._workers = [worker for worker in self._workers if worker not in workers]


def _make_sure(worker: _Worker) -> None:
    """Close the pipe of a worker and kill it if it has not ended by now."""
    if worker.process.exitcode is None:
        worker.process.kill()
        worker.process.join(GRACE_S)
    worker.pipe.close()


class _Goodbye:
    """Asks a worker to end."""


def _say_goodbye(worker: _Worker) -> None:
    try:
        worker.pipe.send(_Goodbye())
    except OSError:
        worker.process.terminate()


def _obituary(worker: _Worker) -> str:
    code = worker.process.exitcode
    if code is not None and code < 0:
        how = f"was killed by {signal.Signals(-code).name}"
    else:
        how = f"ended with exit code {code}"
    return (
        f"its worker (process {worker.process.pid}) {how}{_memory_text(worker.peak)}. "
        + (
            "The usual cause is that memory ran out; use fewer processes or more memory"
            if code == -9
            else ""
        )
    ).rstrip()


def _memory_text(peak: int) -> str:
    free = free_memory()
    texts = [
        f"it had taken {in_words(peak)}" if peak else "",
        f"{in_words(free)} of memory are free now" if free is not None else "",
    ]
    found = ", ".join(text for text in texts if text)
    return f"; {found}" if found else ""


def outcome_of(function: Callable[[Any], R], item: Any) -> R | NnunetlikeError:
    """Return `function(item)`, or what it raised as an error in words, traceback included."""
    try:
        return function(item)
    except Exception as error:  # noqa: BLE001 - handed to the owner, who raises it
        return _in_words(error)


def _in_words(error: Exception) -> NnunetlikeError:
    """Return what a call raised as an error whose message is complete without the error."""
    memory = process_memory(os.getpid())
    took = _memory_text(memory.peak if memory else 0)
    if is_out_of_memory(error):
        return WorkerError(f"memory ran out ({error}){took}. Use fewer processes or more memory")
    known = explained(error)
    if known is not None:
        return known
    trace = "".join(traceback.format_exception(error)).rstrip()
    return WorkerBugError(f"a fault of the program{took}\n{trace}")


def _work(pipe: Connection, function: Callable[[Any], Any], level: int) -> None:
    """Answer calls until told to end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the owner decides
    signal.signal(signal.SIGTERM, _leave)
    threading.Thread(target=_end_with_owner, daemon=True).start()
    notebook = keep_notes(level)
    while True:
        try:
            item = pipe.recv()
        except (EOFError, OSError):
            return
        except Exception as error:  # noqa: BLE001 - the item cannot be unpickled here
            pipe.send(_Answer(sendable(_in_words(error))))
            continue
        if isinstance(item, _Goodbye):
            return
        outcome = sendable(outcome_of(function, item))
        _answer(pipe, _Answer(outcome, notebook.taken()))


def _answer(pipe: Connection, answer: _Answer) -> None:
    try:
        pipe.send(answer)
    except OSError:  # the owner is gone
        os._exit(1)
    except Exception as error:  # noqa: BLE001 - the result cannot be pickled
        pipe.send(_Answer(sendable(_in_words(error)), answer.notes))


def sendable(outcome: object) -> object:
    """Return the outcome; errors as type and text, the type as one that its owner can build."""
    if not isinstance(outcome, NnunetlikeError):
        return outcome
    kind = type(outcome)
    if kind.__init__ is not Exception.__init__ or "<locals>" in kind.__qualname__:
        kind = next(k for k in kind.__mro__[1:] if k.__module__ == NnunetlikeError.__module__)
    return Failure(kind, str(outcome))


def _leave(signal_number: int, frame: object) -> None:
    """End with temporary files removed, which `finally` clauses do."""
    sys.exit(128 + signal_number)


def _end_with_owner() -> None:
    """Leave when the owner is gone, however it ended."""
    owner = multiprocessing.parent_process()
    if owner is not None:
        owner.join()
        os._exit(1)
