"""Cases computed by a Dask cluster that is there already; needs `dask.distributed`, an extra.

A case travels as the paths of its files, so workers must see the same folders by the same names.
The scheduler gives the case of a worker that dies to another one, as often as its setting
`distributed.scheduler.allowed-failures` says.
"""

from __future__ import annotations

import importlib
import logging
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from nnunetlike.core.errors import (
    NnunetlikeError,
    ResourceError,
    UsageError,
    WorkerBugError,
    WorkerError,
)
from nnunetlike.core.worker_notes import PACKAGE, Note, Notebook, Relay, package_level
from nnunetlike.core.workers import Failure, outcome_of, sendable

T = TypeVar("T")
R = TypeVar("R")
CONNECT_S = 20.0
"""How long a scheduler may take to answer."""

LOOK_S = 20.0
"""How often it is looked at whether there are workers, while nothing comes back."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class DaskCluster:
    """An executor that hands cases to the workers of a cluster."""

    client: Any
    address: str

    def outcomes(
        self,
        function: Callable[[T], R],
        items: Sequence[T],
        names: Sequence[str],
        cost: Callable[[T], float] | None,
        title: str,
    ) -> Generator[tuple[int, R | NnunetlikeError], None, None]:
        """Yield outcomes as they come; how many are in hand, and with what memory, Dask decides.

        A case whose call ran out of memory or met a fault of the program is tried once more. So
        is one that workers died of, but alone: Dask blames all the cases a dead worker had.
        """
        call, relay = _Call(function, package_level()), Relay()
        tried: set[int] = set()
        suspects: list[int] = []
        with _Futures(self) as futures:
            for index, item in enumerate(items):
                futures.submit(index, call, item)
            while futures.waiting or suspects:
                if not futures.waiting:
                    futures.submit(suspects[0], call, items[suspects.pop(0)])
                index, answer = futures.next()
                relay.pass_on(answer.notes)
                outcome: Any = answer.outcome
                if isinstance(outcome, Failure):
                    outcome = outcome.error()
                if not isinstance(outcome, WorkerError) or answer.final or index in tried:
                    yield index, outcome
                    continue
                tried.add(index)
                first = str(outcome).splitlines()[0].rstrip(".")
                if answer.killed:
                    logger.warning("%s: %s. It is tried once more, alone", names[index], first)
                    suspects.append(index)
                else:
                    logger.warning("%s: %s. It is tried once more", names[index], first)
                    futures.submit(index, call, items[index])
        relay.sum_up()


@contextmanager
def dask_cluster(address: str, timeout_s: float = CONNECT_S) -> Iterator[DaskCluster]:
    """Connect to the scheduler of a cluster.

    Args:
        address: `HOST:PORT` or `tcp://HOST:PORT`.
        timeout_s: how long it may take to answer.

    Raises:
        UsageError: `dask.distributed` is not installed, or the address is none.
        ResourceError: nothing answers there, or something that is no scheduler.
    """
    client = _connect(address, timeout_s)
    dask_says = logging.getLogger("distributed.client")
    level = dask_says.level
    dask_says.setLevel(logging.CRITICAL)  # what goes wrong is raised, in fewer words
    try:
        threads = client.nthreads()
        logger.info(
            "Dask cluster at %s: %d workers with %d threads", address, len(threads),
            sum(threads.values()),
        )  # fmt: skip
        yield DaskCluster(client, address)
    finally:
        client.close()
        dask_says.setLevel(level)


def _connect(address: str, timeout_s: float) -> Any:
    try:
        distributed = importlib.import_module("distributed")
    except ModuleNotFoundError:
        raise UsageError(
            "--dask needs dask.distributed, which is not installed here. Install it with: "
            "pip install 'nnunetlike[dask]'"
        ) from None
    try:
        return distributed.Client(address, timeout=timeout_s, set_as_default=False)
    except ValueError as error:
        raise UsageError(
            f"{address!r} is not the address of a Dask scheduler ({error}). Give the one that "
            "'dask scheduler' printed, tcp://HOST:8786 for example"
        ) from None
    except OSError:
        raise ResourceError(
            f"no Dask scheduler answered at {address} within {timeout_s:g} s. Start one with 'dask "
            "scheduler' and workers with 'dask worker ADDRESS', see that its port is open, or "
            "leave --dask out to work on this machine"
        ) from None
    except Exception as error:  # noqa: BLE001 - whatever an answer that is not Dask's leads to
        raise ResourceError(
            f"what answers at {address} is no Dask scheduler ({type(error).__name__}). Give the "
            "address that 'dask scheduler' printed; 8787 is the port of its web page, not its own"
        ) from None


@dataclass(frozen=True)
class _Answer:
    """What became of a call."""

    outcome: object
    notes: tuple[Note, ...] = ()
    killed: bool = False
    """Workers died while they had this call; it need not be the one they died of."""

    final: bool = False
    """No further attempt is to be made."""


@dataclass(frozen=True)
class _Call:
    """Runs in a worker: calls a function and keeps what it logs."""

    function: Callable[[Any], Any]
    level: int

    def __call__(self, item: Any) -> _Answer:
        package, notebook = logging.getLogger(PACKAGE), Notebook()
        here = threading.get_ident()  # a worker may have several threads
        notebook.addFilter(lambda record: record.thread == here)
        notebook.setLevel(self.level)
        package.addHandler(notebook)
        package.setLevel(self.level)
        try:
            outcome = sendable(outcome_of(self.function, item))
        finally:
            package.removeHandler(notebook)
        return _Answer(outcome, notebook.taken())


class _Futures:
    """Calls in hand of a cluster; leaving the `with` block cancels what has not begun."""

    def __init__(self, cluster: DaskCluster) -> None:
        self._cluster = cluster
        self._ended: SimpleQueue[Any] = SimpleQueue()
        self._in_hand: dict[str, tuple[int, Any]] = {}
        """Index and future of a call, by the future's key."""

    def __enter__(self) -> _Futures:
        return self

    def __exit__(self, *error: object) -> None:
        if self._in_hand and self._cluster.client.status == "running":
            futures = [future for _, future in self._in_hand.values()]
            self._cluster.client.cancel(futures, force=True)

    @property
    def waiting(self) -> bool:
        """Tell whether calls are in hand."""
        return bool(self._in_hand)

    def submit(self, index: int, call: _Call, item: Any) -> None:
        """Begin a call, whose answer comes with an index."""
        future = self._cluster.client.submit(call, item, pure=False)
        self._in_hand[future.key] = index, future
        future.add_done_callback(self._ended.put)

    def next(self) -> tuple[int, _Answer]:
        """Return the next answer and its index; wait for it as long as it takes.

        Raises:
            ResourceError: the scheduler is gone.
            UsageError: the cluster lacks this package.
        """
        future = self._wait()
        while future.status in ("lost", "pending"):  # its worker died with the answer
            future.add_done_callback(self._ended.put)
            future = self._wait()
        index, _ = self._in_hand.pop(future.key)
        answer = self._answer(future)
        future.release()  # else Dask computes it again when the worker that holds it dies
        return index, answer

    def _wait(self) -> Any:
        told = False
        while True:
            try:
                return self._ended.get(timeout=LOOK_S)
            except Empty:
                has_workers = self._has_workers()
            if not has_workers and not told:
                logger.warning(
                    "the Dask cluster at %s has no workers; waiting for one. Start some with 'dask "
                    "worker %s', or press Ctrl-C to give up",
                    self._cluster.address, self._cluster.address,
                )  # fmt: skip
            told = not has_workers

    def _has_workers(self) -> bool:
        """Tell whether the cluster has workers; while it is out of reach, that it has."""
        client = self._cluster.client
        try:
            return client.status != "running" or bool(client.nthreads())
        except OSError:  # lost in between; the calls in hand end with it
            return True

    def _answer(self, future: Any) -> _Answer:
        if future.status == "finished":
            answer: _Answer = future.result()
            return answer
        if future.status != "error":
            raise ResourceError(
                f"the Dask scheduler at {self._cluster.address} is gone. Start it, or leave --dask "
                "out, and give the same command again: what is done is not done again"
            )
        error = future.exception()
        if isinstance(error, ImportError) or "deserializ" in str(error):
            raise UsageError(
                f"the Dask cluster cannot read what it is sent ({str(error).splitlines()[0]}); "
                "install the same versions of nnunetlike and of Dask where its scheduler and "
                "workers run"
            )
        if type(error).__name__ == "KilledWorker":
            return _Answer(_died(error), killed=True)
        why = f"Dask could not run it: {type(error).__name__}: {error}"
        return _Answer(WorkerBugError(why), final=True)


def _died(error: Any) -> WorkerError:
    return WorkerError(
        f"{error.allowed_failures + 1} Dask workers died of it, the last at "
        f"{error.last_worker.address}. The usual cause is that memory ran out: give workers "
        "more of it (--memory-limit), or fewer threads (--nthreads 1)"
    )
