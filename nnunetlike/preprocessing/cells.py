"""A new label map between the voxels of an old one: what is plain, and what is mixed.

Where the eight voxels around a new one have the same value, no interpolation is needed. Such
voxels come in runs, found once for all new rows between the same four old ones. Elsewhere the
weights of the voxels around are added label by label.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from nnunetlike.core.compiled import compiled
from nnunetlike.core.typing import IntArray, LabelMap
from nnunetlike.preprocessing.taps import Indices, LinearTaps, Weights

T = TypeVar("T")
Eight: TypeAlias = tuple[T, T, T, T, T, T, T, T]
AGREES, CONTINUES = 1, 2


class Reach(NamedTuple):
    """Which voxels of a new row lie within a run of old ones."""

    first: Indices
    """By old voxel: the first new voxel whose lower neighbour is not before it."""

    stop: Indices
    """By old voxel: one past the last new voxel whose upper neighbour is not behind it."""


def reach(taps: LinearTaps, old: int) -> Reach:
    """Return what runs of an axis of `old` voxels cover of the new axis."""
    voxels = np.arange(old)
    return Reach(
        np.searchsorted(taps.low, voxels, side="left").astype(np.int64),
        np.searchsorted(taps.high, voxels, side="right").astype(np.int64),
    )


@compiled
def fill_plain(
    a: LabelMap,
    b: LabelMap,
    c: LabelMap,
    d: LabelMap,
    reached: Reach,
    flags: npt.NDArray[np.uint8],
    row: LabelMap,
    mixed: IntArray,
) -> int:
    """Write the voxels of `row` whose neighbours agree, and list the others.

    Args:
        a: old row (w,); b, c and d are the three others around the new row.
        b: old row.
        c: old row.
        d: old row.
        reached: what runs of old voxels cover.
        flags: scratch (w,).
        row: new row (W,), written where plain.
        mixed: receives the other voxels in ascending order; (W,).

    Returns:
        How many are mixed.
    """
    old = len(a)
    for x in range(old):
        flags[x] = (a[x] == b[x]) & (a[x] == c[x]) & (a[x] == d[x])
    for x in range(1, old):
        flags[x] += CONTINUES * (a[x] == a[x - 1])
    count = 0
    at = 0
    x = 0
    while x < old:
        begin = x
        x += 1
        if not flags[begin] & AGREES:
            continue
        while x < old and flags[x] == AGREES + CONTINUES:
            x += 1
        start, stop = reached.first[begin], reached.stop[x - 1]
        for k in range(at, start):
            mixed[count] = k
            count += 1
        row[start:stop] = a[begin]
        at = max(at, start, stop)
    for k in range(at, len(row)):
        mixed[count] = k
        count += 1
    return count


SURELY_MORE = 0.5 + 1e-9
"""A share above which no other label can reach 1/2, rounding considered."""


@compiled
def largest_half(labels: LabelMap | Eight[int], weights: Weights | Eight[float]) -> int:
    """Return the largest of a few labels whose weights reach 1/2 together, or 0.

    Args:
        labels: of the voxels around, in the order in which weights are to be added.
        weights: of the same voxels.
    """
    best, found = 0, False
    for p in range(len(labels)):
        value = labels[p]
        if found and value <= best:
            continue
        total = 0.0
        for q in range(len(labels)):
            if labels[q] == value:
                total += weights[q]
        if total > SURELY_MORE:
            return int(value)
        if total >= 0.5:
            best, found = int(value), True
    return best
