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

AT_ONCE = 2**18
"""Random numbers that are drawn together."""

Locations = npt.NDArray[np.int64]
RawNumbers = npt.NDArray[np.uint32]


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
    """Return which of `total` voxels, counted in C order, are taken.

    These are the numbers of `random.choice(total, size, replace=False)`, which shuffles all and
    takes the first. No step of the shuffle takes less than one raw number, so never are more drawn
    than it uses, and `random` is left as `choice` leaves it.
    """
    if total == 0:
        return np.empty(0, np.int64)
    size = max(min(total, MOST), int(np.ceil(LEAST_SHARE * total)))
    order = np.arange(total, dtype=np.uint32)
    last = total - 1
    while last > 0:
        raw = random.randint(0, 2**32, size=min(last, AT_ONCE), dtype=np.uint32)
        last = _shuffle_down(order, raw, last)
    return order[:size].astype(np.int64)


@compiled
def _shuffle_down(order: RawNumbers, raw: RawNumbers, last: int) -> int:
    """Swap entries `last`, `last` - 1, ... each with a random one before it while numbers suffice.

    A number is cut to the bits of the index and refused where it exceeds the index; an entry is
    then swapped with itself, as guessing which branch is next takes longer.

    Returns:
        The entry that is next.
    """
    mask = 1
    while mask < last:
        mask = 2 * mask + 1
    for number in raw:
        cut = int(number) & mask
        accepted = cut <= last
        other = cut if accepted else last
        order[last], order[other] = order[other], order[last]
        last -= accepted
        mask = mask >> 1 if last <= mask >> 1 else mask
    return last


@compiled
def _count(label: LabelMap, low: int, counts: IntArray) -> None:
    start = 0
    while start < len(label):
        stop = end_of_run(label, start)
        counts[label[start] - low] += stop - start
        start = stop


@compiled
def end_of_run(label: LabelMap, start: int) -> int:
    """Return where voxels cease to have the label of the one at `start`."""
    value, stop = label[start], start + 1
    while stop < len(label) and label[stop] == value:
        stop += 1
    return stop


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
        stop = end_of_run(label, start)
        slot = label[start] - low
        first, at = ranks[slot], next_of[slot]
        ranks[slot] += stop - start
        while at < end_of[slot] and wanted[at] < ranks[slot]:
            found[at] = start + wanted[at] - first
            at += 1
        next_of[slot] = at
        start = stop
