"""Cases dealt out to processes that predict them side by side, none of them twice."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from nnunetlike.core.typing import Size
from nnunetlike.data.record import CaseRecord
from nnunetlike.inference.strategies import Request
from nnunetlike.inference.windows import padded_shape, window_starts


def deal(costs: Sequence[float], hands: int) -> list[list[int]]:
    """Return for each hand the numbers of its items, ascending; every item is in one hand.

    The dearest item goes first, each to the hand that holds least so far, so the fullest hand costs
    at most 4/3 - 1/(3 hands) of what the best deal would give it. Equal input is dealt equally.

    Args:
        costs: of the items, 0 or more.
        hands: number of hands, at least 1; those without an item are empty.

    Source: Graham, "Bounds on Multiprocessing Timing Anomalies", SIAM J. Appl. Math. 1969.
    """
    held: list[list[int]] = [[] for _ in range(hands)]
    loads = [0.0] * hands
    for item in sorted(range(len(costs)), key=lambda item: (-costs[item], item)):
        hand = min(range(hands), key=lambda hand: (loads[hand], len(held[hand]), hand))
        held[hand].append(item)
        loads[hand] += costs[item]
    return [sorted(items) for items in held]


def prediction_cost(record: CaseRecord, request: Request, classes: int) -> float:
    """Return how long a preprocessed case takes to predict and to write, in voxels.

    A voxel of a window, seen once by the network, counts as much as one class of a voxel of the
    source grid, which export computes: on a GPU both take some tens of nanoseconds. A CPU spends
    more on the network than this says, and cases then differ by their windows alone.
    """
    shape = record.size_after_resampling or record.size_after_cropping
    views = 2 ** len(request.mirror_axes)
    return float(views * _window_voxels(shape, request) + classes * prod(record.original_size))


def _window_voxels(shape: Size, request: Request) -> int:
    """Return the voxels of all windows of an image (D, H, W); slices have windows of their own."""
    lead = len(shape) - len(request.patch_size)
    inside = padded_shape(shape[lead:], request.patch_size)
    windows = (
        len(window_starts(size, window, request.step_size))
        for size, window in zip(inside, request.patch_size, strict=True)
    )
    return prod(shape[:lead]) * prod(windows) * prod(request.patch_size)
