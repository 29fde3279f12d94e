"""Voxels of every class, drawn once per case, for patches that are sure to show foreground."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from nnunetlike.core.compiled import compiled
from nnunetlike.core.typing import IntArray, LabelMap
from nnunetlike.preprocessing.numpy_choice import Chooser

SEED = 1234
MOST = 10000
"""Voxels drawn per class, if there are so many."""

LEAST_SHARE = 0.01
"""Share of a class that is drawn at least."""

PIECE = 64
"""Voxels that are looked at together."""

Locations = npt.NDArray[np.int64]


def sample_class_locations(label: LabelMap, classes: Sequence[int]) -> dict[int, Locations]:
    """Return voxels of each class, drawn without replacement by nnU-Net v1's random numbers.

    Args:
        label: (D, H, W).
        classes: labels in the order in which v1 draws (that of dataset.json).

    Returns:
        For each class int64 (n, 3) in the order drawn; (0, 3) for a class that does not occur.
    """
    flat = np.ascontiguousarray(label).reshape(-1)
    low, high = _limits(flat)
    counts = np.zeros(high - low + 1, np.int64)
    _count(flat, low, counts)
    chooser = Chooser(SEED)
    drawn = {int(value): _draw(_count_of(counts, value - low), chooser) for value in classes}
    orders = {value: np.argsort(ranks) for value, ranks in drawn.items()}
    starts = np.cumsum([0, *(len(ranks) for ranks in drawn.values())])
    wanted = np.concatenate(
        [np.empty(0, np.int64), *(ranks[orders[value]] for value, ranks in drawn.items())]
    )
    next_of = np.full(len(counts), -1, np.int64)
    end_of = np.full(len(counts), -1, np.int64)
    for value, start, stop in zip(drawn, starts[:-1], starts[1:], strict=True):
        if stop > start:
            next_of[value - low], end_of[value - low] = start, stop
    found = np.empty(len(wanted), np.int64)
    _collect(flat, low, wanted, next_of, end_of, found)
    locations = {}
    for value, start, stop in zip(drawn, starts[:-1], starts[1:], strict=True):
        voxels = np.empty(stop - start, np.int64)
        voxels[orders[value]] = found[start:stop]
        locations[value] = np.stack(np.unravel_index(voxels, label.shape), axis=1)
    return locations


def _limits(label: LabelMap) -> tuple[int, int]:
    """Return two numbers between which all labels lie."""
    if label.dtype.itemsize <= 2:
        return int(np.iinfo(label.dtype).min), int(np.iinfo(label.dtype).max)
    return (int(label.min()), int(label.max())) if label.size else (0, 0)


def _count_of(counts: IntArray, slot: int) -> int:
    return int(counts[slot]) if 0 <= slot < len(counts) else 0


def _draw(total: int, chooser: Chooser) -> Locations:
    """Return which of `total` voxels, counted in C order, are taken."""
    size = max(min(total, MOST), int(np.ceil(LEAST_SHARE * total)))
    return chooser.choose(total, size)


@compiled
def _count(label: LabelMap, low: int, counts: IntArray) -> None:
    start = 0
    while start < len(label):
        stop = _end_of_run(label, start)
        counts[label[start] - low] += stop - start
        start = stop


@compiled
def _end_of_run(label: LabelMap, start: int) -> int:
    """Return where voxels cease to have the label of the one at `start`, or their piece ends."""
    end = min(start - start % PIECE + PIECE, len(label))
    if start % PIECE == 0 and _is_constant(label[start:end]):
        return end
    value, stop = label[start], start + 1
    while stop < end and label[stop] == value:
        stop += 1
    return stop


@compiled
def _is_constant(piece: LabelMap) -> bool:
    first, differs = piece[0], False
    for i in range(len(piece)):
        differs |= piece[i] != first
    return not differs


@compiled
def _collect(
    label: LabelMap,
    low: int,
    wanted: IntArray,
    next_of: IntArray,
    end_of: IntArray,
    found: IntArray,
) -> None:
    """Write the flat index of the voxel of each wanted (class, rank), ranks ascending per class."""
    ranks = np.zeros(len(next_of), np.int64)
    start = 0
    while start < len(label):
        stop = _end_of_run(label, start)
        slot = label[start] - low
        first, at = ranks[slot], next_of[slot]
        ranks[slot] += stop - start
        while at < end_of[slot] and wanted[at] < ranks[slot]:
            found[at] = start + wanted[at] - first
            at += 1
        next_of[slot] = at
        start = stop
