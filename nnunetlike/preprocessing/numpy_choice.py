"""The draws of `numpy.random.RandomState.choice` without replacement, at a third of the time.

NumPy shuffles all numbers below the total and takes the first. Here the same raw numbers are made,
many at a time, but only those steps of the shuffle are followed that decide which come first.
NumPy has promised that the stream of `RandomState` does not change (NEP 19).

Source: Matsumoto and Nishimura, "Mersenne Twister: a 623-dimensionally equidistributed uniform
pseudo-random number generator", ACM Transactions on Modeling and Computer Simulation 8(1), 1998.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from nnunetlike.core.compiled import compiled
from nnunetlike.core.typing import IntArray

Words = npt.NDArray[np.uint32]
WORDS, FAR = 624, 397
UPPER, LOWER, TWIST = np.uint32(0x80000000), np.uint32(0x7FFFFFFF), np.uint32(0x9908B0DF)
ONE = np.uint32(1)


class Chooser:
    """Draws what a `RandomState` of the same seed would draw.

    Args:
        seed: of the generator.
    """

    def __init__(self, seed: int) -> None:
        state: Any = np.random.RandomState(seed).get_state()
        self._key: Words = state[1].copy()
        self._raw: Words = np.empty(WORDS, np.uint32)
        self._used: int = state[2]
        _temper(self._key, self._raw)

    def choose(self, total: int, size: int) -> npt.NDArray[np.int64]:
        """Return `choice(total, size, replace=False)`; nothing is drawn of nothing.

        Args:
            total: how many numbers there are, below 2³².
            size: how many are wanted, at most `total`.
        """
        chosen = np.empty(size, np.int64)
        self._used = _choose(self._key, self._raw, self._used, total, chosen)
        return chosen

    def state(self) -> tuple[str, Words, int]:
        """Return the state as `RandomState.set_state` takes it."""
        return "MT19937", self._key.copy(), self._used


@compiled
def _choose(key: Words, raw: Words, used: int, total: int, chosen: IntArray) -> int:
    """Write the first entries of a shuffle of 0..total-1; return how many of `raw` are used.

    The shuffle swaps entry i, from the last to the second, with a random one that is not behind it.
    After that nothing touches entry i. So what ends at a place came from the last entry that was
    swapped with it, and what was there from the last that was swapped with that: while i is not
    among the first, it is enough to note who came last.
    """
    size = len(chosen)
    came = np.empty(total + 1, np.uint32)
    for i in range(total + 1):
        came[i] = i
    mask, i = 1, total - 1
    while mask < i:
        mask = 2 * mask + 1
    traced = False
    while i > 0:
        if i < size and not traced:
            _trace(came, chosen)
            traced = True
        if used == WORDS:
            _twist(key)
            _temper(key, raw)
            used = 0
        mask = mask >> 1 if i <= mask >> 1 else mask
        last = mask >> 1 if traced else max(mask >> 1, size - 1)
        stop = min(WORDS, used + i - last)
        if traced:
            i = _swap(raw[used:stop], mask, i, chosen)
        else:
            i = _note(raw[used:stop], mask, i, came)
        used = stop
    if not traced:
        _trace(came, chosen)
    return used


@compiled
def _note(raw: Words, mask: int, i: int, came: Words) -> int:
    """Note for one entry after the other with whom it is swapped; return the entry that is next.

    A raw number is cut to the bits of the entry and refused where it exceeds it. The place behind
    all others takes what changes nothing.
    """
    nowhere = len(came) - 1
    for number in raw:
        cut = int(number) & mask
        came[cut if cut < i else nowhere] = i
        i -= cut <= i
    return i


@compiled
def _trace(came: Words, chosen: IntArray) -> None:
    """Write which number is at each of the first places by now."""
    for place in range(len(chosen)):
        origin = place
        while came[origin] != origin:
            origin = came[origin]
        chosen[place] = origin


@compiled
def _swap(raw: Words, mask: int, i: int, order: IntArray) -> int:
    """Swap one entry after the other; a refused number swaps an entry with itself."""
    for number in raw:
        cut = int(number) & mask
        accepted = cut <= i
        other = cut if accepted else i
        order[i], order[other] = order[other], order[i]
        i -= accepted
    return i


@compiled
def _twist(key: Words) -> None:
    """Step the state on by as many words as it has."""
    for i in range(WORDS - FAR):
        key[i] = key[i + FAR] ^ _mixed(key[i], key[i + 1])
    for start in range(WORDS - FAR, WORDS - 1, WORDS - FAR):
        for i in range(start, min(start + WORDS - FAR, WORDS - 1)):
            key[i] = key[i + FAR - WORDS] ^ _mixed(key[i], key[i + 1])
    key[WORDS - 1] = key[FAR - 1] ^ _mixed(key[WORDS - 1], key[0])


@compiled
def _mixed(high: np.uint32, low: np.uint32) -> np.uint32:
    word = (high & UPPER) | (low & LOWER)
    return (word >> ONE) ^ (TWIST if low & ONE else np.uint32(0))


@compiled
def _temper(key: Words, raw: Words) -> None:
    """Write the raw numbers of the state."""
    for i in range(WORDS):
        word = key[i]
        word ^= word >> np.uint32(11)
        word ^= (word << np.uint32(7)) & np.uint32(0x9D2C5680)
        word ^= (word << np.uint32(15)) & np.uint32(0xEFC60000)
        raw[i] = word ^ (word >> np.uint32(18))
