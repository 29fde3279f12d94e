"""From the network's probabilities to a label map on another grid, without resampling them all.

An interpolated value lies between the values around it. So where all eight voxels around have the
same winning class, that class wins; only the cells between classes interpolate every class. One
pair of slices is in memory at a time, for any number of classes. Axes: K classes, D, H, W.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from nnunetlike.core.compiled import compiled
from nnunetlike.core.errors import ShapeError
from nnunetlike.core.typing import FloatArray, IntArray, LabelMap
from nnunetlike.preprocessing.cells import Reach, fill_plain, reach
from nnunetlike.preprocessing.resampling import check_request, resample_image
from nnunetlike.preprocessing.taps import LinearTaps, Weights, linear_taps, nearest_taps

Manner: TypeAlias = tuple[int, "int | None", int]
"""Order of the interpolation, the separate axis or None, and the order along that."""

HALF = 0.5
TOGETHER = 16
"""Classes that are turned from planes to columns at a time; a cache line holds 16 values."""

LEAST = -(2**31)
MANY = 16
"""From so many classes on they are interpolated side by side; fewer one after another, row-wise."""

GAP = 24
"""Voxels between two mixed cells of a row beyond which the row is blended in two pieces."""


def resampled_argmax(
    probabilities: FloatArray,
    shape: Sequence[int],
    *,
    order: int = 1,
    axis: int | None = None,
    order_z: int = 0,
    regions: Sequence[int] | None = None,
) -> LabelMap:
    """Return the label map that `resample_image` of the probabilities and an argmax would give.

    Memory beyond the result does not grow with the number of classes but for two slices (orders
    0 and 1) or one channel (order 3).

    Args:
        probabilities: (K, D, H, W), 16 or 32 bit; may be a transposed view or a memory map.
        shape: new (D, H, W).
        order: of the interpolation, 0, 1 or 3.
        axis: the axis whose slices are resampled each for itself, or None.
        order_z: of the interpolation along the separate axis.
        regions: the label each channel stands for; a later channel overwrites where its value
            exceeds 1/2, and where none does the label is 0. None: the largest value wins, the
            lowest class among equals.

    Returns:
        (D, H, W), uint8, or uint16 if a label exceeds 255.

    Raises:
        UsageError: an order or axis is not known.
        ShapeError: the probabilities or the shape have the wrong number of axes, or `regions` has
            not one label per channel.
    """
    if probabilities.ndim != 4:
        raise ShapeError(f"probabilities have axes K, D, H, W; these have {probabilities.shape}")
    new_shape = check_request(shape, order, axis, order_z)
    by_region = regions is not None
    winners = empty_winners(len(probabilities), new_shape, regions)
    manner = (order, axis, order_z)
    if is_streamed(probabilities.shape[1:], new_shape, manner):
        taps = taps_of(probabilities.shape[1:], new_shape, manner)
        fill_winners(probabilities, winners, taps, 0 if axis is None else axis, by_region)
    else:
        channels = (
            resample_image(channel[None], new_shape, order=order, axis=axis, order_z=order_z)[0]
            for channel in (channel.astype(np.float32, copy=False) for channel in probabilities)
        )
        _channel_by_channel(channels, winners, by_region)
    return labels_of(winners, regions)


def is_streamed(old: Sequence[int], new: Sequence[int], manner: Manner) -> bool:
    """Tell whether a new voxel depends on the eight old ones around it alone."""
    order, axis, order_z = manner
    return tuple(old) == tuple(new) or (order <= 1 and (axis is None or order_z <= 1))


def empty_winners(classes: int, shape: Sequence[int], regions: Sequence[int] | None) -> LabelMap:
    """Return an array for winning classes, or for 0 and 1 + winning regions.

    Raises:
        ShapeError: `regions` has not one label per channel.
    """
    if regions is not None and len(regions) != classes:
        raise ShapeError(f"{len(regions)} region labels for {classes} channels")
    return np.zeros(shape, _smallest(classes - (regions is None)))


def labels_of(winners: LabelMap, regions: Sequence[int] | None) -> LabelMap:
    """Return the labels that winners stand for."""
    if regions is None:
        return winners
    table: LabelMap = np.array([0, *regions], _smallest(max(regions)))
    return table[winners]


def _smallest(largest: int) -> type[np.uint8] | type[np.uint16]:
    return np.uint8 if largest < 256 else np.uint16


def _channel_by_channel(channels: Iterable[FloatArray], winners: LabelMap, by_region: bool) -> None:
    """Write the winners of channels that come one after another."""
    best: FloatArray | None = None
    for index, channel in enumerate(channels):
        if by_region:
            winners[channel > HALF] = index + 1
        elif best is None:
            best = channel.copy()
        else:
            better = channel > best
            winners[better] = index
            best[better] = channel[better]


def taps_of(old: Sequence[int], new: Sequence[int], manner: Manner) -> list[LinearTaps]:
    """Return the taps of the axes D, H, W."""
    order, axis, order_z = manner
    orders = [order_z if number == axis else order for number in range(3)]
    return [
        (linear_taps if degree else nearest_taps)(a, b)
        for degree, a, b in zip(orders, old, new, strict=True)
    ]


def fill_winners(
    probabilities: FloatArray,
    winners: LabelMap,
    taps: Sequence[LinearTaps],
    apart: int,
    by_region: bool,
) -> None:
    """Write the winning class (or 1 + the winning region) of each new voxel.

    Args:
        probabilities: (K, D, H, W).
        winners: new (D, H, W), written.
        taps: of the axes D, H, W.
        apart: axis that is gone along slice by slice, the separate one or 0.
        by_region: channels are regions.
    """
    slices = np.moveaxis(probabilities, 1 + apart, 1)
    out = np.moveaxis(winners, apart, 0)
    depth, height, width = (taps[apart], *(t for n, t in enumerate(taps) if n != apart))
    reached = reach(width, slices.shape[3])
    for begin, stop, low, high in _slice_pairs(slices, depth, winners.dtype, by_region):
        weights = np.stack([depth.low_weight[begin:stop], depth.high_weight[begin:stop]], axis=1)
        if (weights == weights[0]).all():
            weights = weights[:1]  # the planes are the same
        planes: LabelMap = np.empty((len(weights), *out.shape[1:]), winners.dtype)
        _fill_planes(*low, *high, planes, weights, height, width, reached, by_region)
        out[begin:stop] = planes


def _slice_pairs(
    slices: FloatArray, depth: LinearTaps, dtype: npt.DTypeLike, by_region: bool
) -> Iterator[tuple[int, int, tuple[FloatArray, LabelMap], tuple[FloatArray, LabelMap]]]:
    """Yield which new slices lie between the same two (H, K, W), and these with their winners."""
    held: dict[int, tuple[FloatArray, LabelMap]] = {}
    ends = np.flatnonzero(np.diff(depth.low) | np.diff(depth.high)) + 1
    bounds = [0, *ends.tolist(), len(depth.low)]
    for begin, stop in pairwise(bounds):
        pair = int(depth.low[begin]), int(depth.high[begin])
        held = {index: value for index, value in held.items() if index in pair}
        for index in pair:
            if index not in held:
                values = np.ascontiguousarray(slices[:, index].swapaxes(0, 1), np.float32)
                winners: LabelMap = np.empty((len(values), values.shape[2]), dtype)
                _find_winners(values, winners, by_region)
                held[index] = values, winners
        yield begin, stop, held[pair[0]], held[pair[1]]


@compiled
def _find_winners(values: FloatArray, winners: IntArray, by_region: bool) -> None:
    """Write the winner at each voxel of one slice, (H, K, W) to (H, W)."""
    height, classes, width = values.shape
    best = np.empty(width, values.dtype)
    half = values.dtype.type(HALF)
    for y in range(height):
        row = winners[y]
        for x in range(width):
            row[x] = 0
            best[x] = half if by_region else values[y, 0, x]
        for k in range(0 if by_region else 1, classes):
            channel = values[y, k]
            if by_region:
                for x in range(width):
                    row[x] = k + 1 if channel[x] > half else row[x]
            else:
                for x in range(width):
                    row[x] = k if channel[x] > best[x] else row[x]
                    best[x] = max(best[x], channel[x])


@compiled
def _fill_planes(
    low: FloatArray,
    top_low: IntArray,
    high: FloatArray,
    top_high: IntArray,
    out: IntArray,
    depth: Weights,
    height: LinearTaps,
    width: LinearTaps,
    reached: Reach,
    by_region: bool,
) -> None:
    """Write the winners of the new planes (N, H, W) between two old slices (h, K, w)."""
    _, classes, across = low.shape
    flags = np.empty(across, np.uint8)
    plain = np.empty(out.shape[2], out.dtype)
    mixed = np.empty(out.shape[2], np.int64)
    many = classes >= MANY
    columns = np.empty((across if many else 0, 4, classes), np.float32)
    blended = np.empty((2, max(classes, across)), np.float64)
    values = np.empty(max(classes, out.shape[2]), np.float32)
    weights = np.empty(4, np.float64)
    before = (-1, -1)
    count = 0
    for j in range(out.shape[1]):
        y0, y1 = height.low[j], height.high[j]
        if before != (y0, y1):
            count = fill_plain(
                top_low[y0], top_low[y1], top_high[y0], top_high[y1], reached, flags, plain, mixed
            )
            if many:
                _stand_up(low, high, y0, y1, width, mixed[:count], columns)
            before = (y0, y1)
        for i in range(len(out)):
            out[i, j] = plain
            weights[0] = depth[i, 0] * height.low_weight[j]
            weights[1] = depth[i, 0] * height.high_weight[j]
            weights[2] = depth[i, 1] * height.low_weight[j]
            weights[3] = depth[i, 1] * height.high_weight[j]
            row, listed = out[i, j], mixed[:count]
            if many:
                _settle_columns(columns, weights, width, listed, blended, values, row, by_region)
            else:
                rows = low[y0], low[y1], high[y0], high[y1]
                _settle_rows(rows, weights, width, listed, blended[0], values, row, by_region)


@compiled
def _stand_up(
    low: FloatArray,
    high: FloatArray,
    y0: int,
    y1: int,
    width: LinearTaps,
    mixed: IntArray,
    columns: FloatArray,
) -> None:
    """Copy the four old rows around a new one to (x, 4, K), where mixed voxels need them."""
    m = 0
    while m < len(mixed):
        first, stop = width.low[mixed[m]], width.high[mixed[m]] + 1
        while m < len(mixed) and width.low[mixed[m]] <= stop:
            stop = width.high[mixed[m]] + 1
            m += 1
        for begin in range(0, low.shape[1], TOGETHER):
            end = min(begin + TOGETHER, low.shape[1])
            for x in range(first, stop):
                for k in range(begin, end):
                    columns[x, 0, k] = low[y0, k, x]
                    columns[x, 1, k] = low[y1, k, x]
                    columns[x, 2, k] = high[y0, k, x]
                    columns[x, 3, k] = high[y1, k, x]


@compiled
def _settle_rows(
    rows: tuple[FloatArray, FloatArray, FloatArray, FloatArray],
    weights: Weights,
    width: LinearTaps,
    mixed: IntArray,
    blended: Weights,
    best: FloatArray,
    row: IntArray,
    by_region: bool,
) -> None:
    """Interpolate class after class at the voxels `mixed` of one row and write the winners."""
    start = 0
    while start < len(mixed):
        stop = start + 1
        while stop < len(mixed) and width.low[mixed[stop]] - width.high[mixed[stop - 1]] < GAP:
            stop += 1
        near = mixed[start:stop]
        first, last = width.low[near[0]], width.high[near[-1]] + 1
        for x in near:
            best[x] = HALF if by_region else -np.inf
            row[x] = 0
        for k in range(len(rows[0])):
            a, b = rows[0][k, first:last], rows[1][k, first:last]
            c, d = rows[2][k, first:last], rows[3][k, first:last]
            for x in range(last - first):
                blended[x] = (
                    weights[0] * a[x] + weights[1] * b[x] + weights[2] * c[x] + weights[3] * d[x]
                )
            for x in near:
                value = np.float32(
                    width.low_weight[x] * blended[width.low[x] - first]
                    + width.high_weight[x] * blended[width.high[x] - first]
                )
                if value > best[x]:
                    row[x] = k + 1 if by_region else k
                    best[x] = HALF if by_region else value
        start = stop


@compiled
def _settle_columns(
    columns: FloatArray,
    weights: Weights,
    width: LinearTaps,
    mixed: IntArray,
    blended: Weights,
    values: FloatArray,
    row: IntArray,
    by_region: bool,
) -> None:
    """Interpolate all classes side by side at the voxels `mixed` of one row; write the winners."""
    classes = columns.shape[2]
    at = -1  # the last column that is blended; the one before is still held
    for x in mixed:
        for column in range(max(at + 1, width.low[x]), width.high[x] + 1):
            a, b = columns[column, 0], columns[column, 1]
            c, d = columns[column, 2], columns[column, 3]
            target = blended[column & 1]
            for k in range(classes):
                target[k] = (
                    weights[0] * a[k] + weights[1] * b[k] + weights[2] * c[k] + weights[3] * d[k]
                )
            at = column
        left, right = blended[width.low[x] & 1], blended[width.high[x] & 1]
        low_weight, high_weight = width.low_weight[x], width.high_weight[x]
        for k in range(classes):
            value = np.float32(low_weight * left[k] + high_weight * right[k])
            values[k] = value + np.float32(0.0) if value == value else np.float32(-np.inf)
        row[x] = _last_above_half(values[:classes]) if by_region else _largest(values[:classes])


@compiled
def _last_above_half(values: FloatArray) -> np.int32:
    """Return 1 + the last index whose value exceeds 1/2, or 0."""
    found = np.int32(0)
    for k in range(len(values)):
        found = max(found, np.int32(k + 1) if values[k] > HALF else np.int32(0))
    return found


@compiled
def _largest(values: FloatArray) -> np.int32:
    """Return the first index of the largest value; missing ones (NaN) never win.

    Compares integers in the order of the floats, since a largest float is not found several at a
    time by the rules of IEEE arithmetic.
    """
    bits = values.view(np.int32)
    best = np.int32(LEAST)
    for k in range(len(values)):
        best = max(best, _ordered(bits[k]))
    found = np.int32(len(values))
    for k in range(len(values)):
        found = min(found, np.int32(k) if _ordered(bits[k]) == best else np.int32(len(values)))
    return found


@compiled
def _ordered(bits: np.int32) -> np.int32:
    """Return an integer that grows with the float of these bits; of both zeros the same."""
    return np.int32(bits ^ ((bits >> np.int32(31)) & np.int32(0x7FFFFFFF)))
