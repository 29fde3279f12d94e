"""Normally distributed noise as a function of a key and of the place in the field.

Nothing is carried from one number to the next, so that vector code can make several at once. Only
integers and IEEE arithmetic occur, so the field of a key is the same on every machine.

Sources: Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014 (the
64 random bits of a counter: SplitMix64); Salmon et al., "Parallel random numbers: as easy as 1, 2,
3", SC 2011 (counters in place of a state); Box and Muller, "A note on the generation of random
normal deviates", Ann. Math. Statist. 29 (1958) (two numbers of a radius and an angle).
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from nnunetlike.core.compiled import compiled
from nnunetlike.training.augmentation.elementary import bits_of, number_of, split
from nnunetlike.training.augmentation.pointwise import put

Float32: TypeAlias = npt.NDArray[np.float32]

PAIRS = 256
"""Pairs of numbers that are made together; one half of a block has their sines, one the cosines."""

STEP = np.uint64(0x9E3779B97F4A7C15)
FIRST, SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
SQUARE = np.float32(-2 * np.log(2))
"""The square of the radius is this times the logarithm, to base 2, of a uniform number."""

TURN = np.float32(np.pi / 2**33)
"""An eighth of a turn, in radians, over 2^31."""

LOW, MIDDLE = np.float32(2.0**-32), np.float32(2.0**-24)
ONE, HALF = np.float32(1), np.float32(0.5)
S1, S2, S3 = np.float32(-1 / 6), np.float32(1 / 120), np.float32(-1 / 5040)
C1, C2, C3, C4 = HALF, np.float32(1 / 24), np.float32(-1 / 720), np.float32(1 / 40320)


@compiled
def random_bits(counter: np.uint64) -> np.uint64:
    """Return the 64 bits of SplitMix64 at a multiple of its step."""
    z = np.uint64((counter ^ (counter >> np.uint64(30))) * FIRST)
    z = np.uint64((z ^ (z >> np.uint64(27))) * SECOND)
    return np.uint64(z ^ (z >> np.uint64(31)))


@compiled
def normal_pair(bits: np.uint64) -> tuple[np.float32, np.float32]:
    """Return two independent normal numbers of 64 random bits.

    32 bits are the uniform number of the radius, which so ends at 6.7. Of the others 30 are an
    angle within an eighth of a turn to either side; one exchanges sine and cosine, one negates the
    cosine, which makes it a whole turn.
    """
    high, low = np.uint32(bits >> np.uint64(32)), np.int32(np.uint32(bits))
    coarse, fine = np.int32(high >> np.uint32(8)), np.int32(high & np.uint32(255))
    whole, rest = split(np.float32(coarse) * MIDDLE + (np.float32(fine) + HALF) * LOW)
    radius = np.sqrt(SQUARE * (whole + rest))
    t = np.float32(np.int32(low << np.int32(2))) * TURN
    square = t * t
    sine = t + t * square * (S1 + square * (S2 + square * S3))
    cosine = ONE - square * (C1 - square * (C2 + square * (C3 + square * C4)))
    cosine = number_of(np.int32(bits_of(cosine) ^ np.int32(low & np.int32(-(2**31)))))
    exchanged = np.int32(low & np.int32(2**30)) != 0
    return radius * (cosine if exchanged else sine), radius * (sine if exchanged else cosine)


@compiled
def fill_block(key: np.uint64, block: int, field: Float32) -> None:
    """Fill `field` (2 · PAIRS) with block number `block` of the field of `key`."""
    for p in range(PAIRS):
        counter = np.uint64(key + np.uint64(block * PAIRS + p) * STEP)
        field[p], field[PAIRS + p] = normal_pair(random_bits(counter))


@compiled
def add_noise(values: Float32, sd: np.float32, key: np.uint64, result: Float32) -> None:
    """Fill `result` (N,), which may be `values`, with these plus `sd` times the field of `key`."""
    field = np.empty(2 * PAIRS, np.float32)
    for start in range(0, len(values), 2 * PAIRS):
        fill_block(key, start // (2 * PAIRS), field)
        some = values[start : start + 2 * PAIRS]
        for i in range(len(some)):
            field[i] = some[i] + sd * field[i]
        put(field, start, result)
