"""Voxels of every class, drawn once per case, for patches that are sure to show foreground."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from nnunetlike.core.compiled import compiled
from nnunetlike.core.typing import IntArray, LabelMap

SEED = 1234
MOST = 10000
"""Voxels drawn per class, if there are so many."""

LEAST_SHARE = 0.01
"""Share of a class that is drawn at least."""

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
    low = int(flat.min()) if flat.size else 0
    counts = np.zeros((int(flat.max()) if flat.size else 0) - low + 1, np.int64)
    _count(flat, low, counts)
    random = np.random.RandomState(SEED)
    drawn = {int(value): _draw(_count_of(counts, value - low), random) for value in classes}
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


def _count_of(counts: IntArray, slot: int) -> int:
    return int(counts[slot]) if 0 <= slot < len(counts) else 0


def _draw(total: int, random: np.random.RandomState) -> Locations:
    """Return which of `total` voxels, counted in C order, are taken."""
    if total == 0:
        return np.empty(0, np.int64)
    size = max(min(total, MOST), int(np.ceil(LEAST_SHARE * total)))
    return random.choice(total, size, replace=False).astype(np.int64)


@compiled
def _count(label: LabelMap, low: int, counts: IntArray) -> None:
    for value in label:
        counts[value - low] += 1


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
    for i in range(len(label)):
        slot = label[i] - low
        at = next_of[slot]
        if at == end_of[slot]:
            continue
        if wanted[at] == ranks[slot]:
            found[at] = i
            next_of[slot] = at + 1
        ranks[slot] += 1
