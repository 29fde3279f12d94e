"""Passes over all voxels of a channel: its range and moments, and curves of its values.

Axes: a channel is flat, N voxels.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from nnunetlike.core.compiled import compiled
from nnunetlike.preprocessing.taps import Indices
from nnunetlike.training.augmentation.elementary import halves, power

Float32: TypeAlias = npt.NDArray[np.float32]

LANES = 64
"""Sums that run side by side, so that vector code can have them, in the same order anywhere."""

BLOCK = 64 * LANES
"""Voxels whose sums are in single precision; those of blocks are in double."""


class Statistics(NamedTuple):
    """Range, mean and population standard deviation of a channel."""

    low: float
    high: float
    mean: float
    deviation: float


@compiled
def statistics(values: Float32) -> Statistics:
    """Return range and moments of `values` (N,), N > 0; sums are of distances to the first."""
    first = values[0]
    lows, highs = np.full(LANES, first), np.full(LANES, first)
    total, square = 0.0, 0.0
    whole = len(values) - len(values) % LANES
    for start in range(0, whole, BLOCK):
        sums, squares = np.zeros(LANES, np.float32), np.zeros(LANES, np.float32)
        for at in range(start, min(start + BLOCK, whole), LANES):
            some = values[at : at + LANES]
            for i in range(LANES):
                lows[i], highs[i] = min(lows[i], some[i]), max(highs[i], some[i])
                distance = some[i] - first
                sums[i] += distance
                squares[i] += distance * distance
        for i in range(LANES):
            total += sums[i]
            square += squares[i]
    low, high = lows.min(), highs.max()
    for value in values[whole:]:
        low, high = min(low, value), max(high, value)
        total += value - first
        square += np.float64(value - first) ** 2
    mean = total / len(values)
    variance = max(square / len(values) - mean * mean, 0.0)
    return Statistics(float(low), float(high), first + mean, np.sqrt(variance))


@compiled
def stretch(
    values: Float32,
    factor: np.float32,
    shift: np.float32,
    low: np.float32,
    high: np.float32,
    result: Float32,
) -> None:
    """Fill `result`, which may be `values`, with `factor · values + shift` from `low` to `high`."""
    buffer = np.empty(BLOCK, np.float32)
    for start in range(0, len(values), BLOCK):
        some = values[start : start + BLOCK]
        for i in range(len(some)):
            buffer[i] = min(max(some[i] * factor + shift, low), high)
        put(buffer, start, result)


@compiled
def put(buffer: Float32, start: int, result: Float32) -> None:
    """Write `buffer`, or what of it there is room for, into `result` from `start` on.

    Loops that read one array and write another are vector code only if the two do not overlap.
    """
    target = result[start : start + len(buffer)]
    for i in range(len(target)):
        target[i] = buffer[i]


@compiled
def scale(values: Float32, factor: np.float32, shift: np.float32) -> None:
    """Replace `values` by `factor · values + shift`."""
    for i in range(len(values)):
        values[i] = values[i] * factor + shift


@compiled
def bend(
    values: Float32,
    sign: np.float32,
    low: np.float32,
    extent: np.float32,
    exponent: np.float32,
    result: Float32,
) -> None:
    """Fill `result` with `((sign · values - low) / extent) ^ exponent`, the base within 0 ... 1.

    `result` may be `values`.
    """
    coarse, fine = halves(exponent)
    buffer = np.empty(BLOCK, np.float32)
    for start in range(0, len(values), BLOCK):
        some = values[start : start + BLOCK]
        for i in range(len(some)):
            buffer[i] = power((sign * some[i] - low) / extent, coarse, fine)
        put(buffer, start, result)


@compiled
def reverse(volume: Float32, flipped: tuple[bool, bool, bool], result: Float32) -> None:
    """Fill `result` with `volume` (D, H, W) reversed along the axes that `flipped` tells."""
    depth, height, width = volume.shape
    for z in range(depth):
        for y in range(height):
            row = volume[depth - 1 - z if flipped[0] else z, height - 1 - y if flipped[1] else y]
            target = result[z, y]
            if flipped[2]:
                for x in range(width):
                    target[x] = row[width - 1 - x]
            else:
                for x in range(width):
                    target[x] = row[x]


@compiled
def pick(
    volume: Float32, planes: Indices, rows: Indices, columns: Indices, result: Float32
) -> None:
    """Fill `result` with the voxels of `volume` (D, H, W) in the given planes, rows and columns."""
    for i in range(len(planes)):
        for j in range(len(rows)):
            row, target = volume[planes[i], rows[j]], result[i, j]
            for k in range(len(columns)):
                target[k] = row[columns[k]]
