"""Probabilities on their way from the network to a label map, a few slices at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from typing import Protocol, cast

import numpy as np
import numpy.typing as npt

from nnunetlike.core.typing import LabelMap
from nnunetlike.inference.spill import Spilled

IN_HAND_BYTES = {"cpu": 2**24, "cuda": 2**30}
"""Slabs that wait for the export hold so much at most, by the device of the network, which waits
then. A GPU must not; on a CPU the network and the export take the same cores."""

Slab = npt.NDArray[np.float32]


class Target(Protocol):
    """Makes a label map of slabs."""

    def see(self, slab: Slab) -> None:
        """Take the next slab (K, d, h, w)."""
        ...

    def label(self) -> LabelMap:
        """Return the label map of all slabs."""
        ...


def settled(
    slabs: Iterator[Slab], target: Target, kept: Spilled | None = None, *, device: str = "cpu"
) -> LabelMap:
    """Return the label map that a target makes of slabs, in a thread beside the network.

    Args:
        slabs: probabilities (K, d, h, w) that follow one another along d.
        target: sees them in order.
        kept: also gets them; removed if anything fails.
        device: type of the device that the slabs are computed on.
    """
    begin, most = 0, IN_HAND_BYTES.get(device, IN_HAND_BYTES["cpu"])
    try:
        with (
            closing(cast(Generator[Slab, None, None], slabs)),
            _InOrder(target.see, most) as beside,
        ):
            for slab in slabs:
                if kept is not None:
                    kept.write(begin, slab)
                begin += slab.shape[1]
                beside.call(slab)
        return target.label()
    except BaseException:
        if kept is not None:
            kept.remove()
        raise


class _InOrder:
    """Calls with arrays, one after another, in one thread; leaving the context waits for them."""

    def __init__(self, function: Callable[[Slab], None], most_bytes: int) -> None:
        self._function, self._most = function, most_bytes
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="nnunetlike")
        self._in_hand: deque[tuple[Future[None], int]] = deque()

    def __enter__(self) -> _InOrder:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        try:
            if kind is None:
                self._wait(0)
        finally:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def call(self, slab: Slab) -> None:
        """Call with a slab; first waits while those in hand hold too much."""
        self._wait(max(0, self._most - slab.nbytes))
        self._in_hand.append((self._pool.submit(self._function, slab), slab.nbytes))

    def _wait(self, most: int) -> None:
        while sum(size for _, size in self._in_hand) > most:
            self._in_hand.popleft()[0].result()
