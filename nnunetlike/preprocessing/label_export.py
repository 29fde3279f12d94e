"""From the network's probabilities to a label map on another grid, without resampling them all.

An interpolated value lies between the values around it. So where all eight voxels around have the
same winning class, that class wins; only the cells between classes interpolate every class. One
pair of slices is in memory at a time, for any number of classes. Axes: K classes, D, H, W.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from nnunetlike.core.compiled import compiled
from nnunetlike.core.errors import ShapeError
from nnunetlike.core.typing import FloatArray, IntArray, LabelMap
from nnunetlike.preprocessing.cells import Reach, fill_plain, reach
from nnunetlike.preprocessing.resampling import check_request, resample_image
from nnunetlike.preprocessing.taps import LinearTaps, Weights, linear_taps, nearest_taps

HALF = 0.5
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
    if regions is not None and len(regions) != len(probabilities):
        raise ShapeError(f"{len(regions)} region labels for {len(probabilities)} channels")
    new_shape = check_request(shape, order, axis, order_z)
    by_region = regions is not None
    codes = len(probabilities) + by_region
    winners: LabelMap = np.zeros(new_shape, _smallest(codes - 1))
    streamed = order <= 1 and (axis is None or order_z <= 1)
    if streamed or probabilities.shape[1:] == new_shape:
        _stream(probabilities, winners, (order, axis, order_z), by_region)
    else:
        channels = (
            resample_image(channel[None], new_shape, order=order, axis=axis, order_z=order_z)[0]
            for channel in (channel.astype(np.float32, copy=False) for channel in probabilities)
        )
        _channel_by_channel(channels, winners, by_region)
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


def _stream(
    probabilities: FloatArray,
    winners: LabelMap,
    manner: tuple[int, int | None, int],
    by_region: bool,
) -> None:
    """Write the winning class (or 1 + the winning region) of each new voxel."""
    order, axis, order_z = manner
    apart = 0 if axis is None else axis
    slices = np.moveaxis(probabilities, 1 + apart, 1)
    out = np.moveaxis(winners, apart, 0)
    orders = [order if axis is None else order_z, order, order]
    depth, height, width = (
        (linear_taps if degree else nearest_taps)(old, new)
        for degree, old, new in zip(orders, slices.shape[1:], out.shape, strict=True)
    )
    reached = reach(width, slices.shape[3])
    plane: LabelMap = np.empty(out.shape[1:], winners.dtype)
    before = None
    for i, (low, high) in enumerate(_slice_pairs(slices, depth, plane.dtype, by_region)):
        key = (depth.low[i], depth.low_weight[i])
        if key != before:
            weights = np.array([depth.low_weight[i], depth.high_weight[i]])
            _fill_plane(*low, *high, plane, weights, height, width, reached, by_region)
            before = key
        out[i] = plane


def _slice_pairs(
    slices: FloatArray, depth: LinearTaps, dtype: npt.DTypeLike, by_region: bool
) -> Iterator[tuple[tuple[FloatArray, LabelMap], tuple[FloatArray, LabelMap]]]:
    """Yield the slices (K, H, W) below and above each new one, with their winners (H, W)."""
    held: dict[int, tuple[FloatArray, LabelMap]] = {}
    for pair in zip(depth.low.tolist(), depth.high.tolist(), strict=True):
        held = {index: value for index, value in held.items() if index in pair}
        for index in pair:
            if index not in held:
                values = np.ascontiguousarray(slices[:, index], np.float32)
                winners: LabelMap = np.empty(values.shape[1:], dtype)
                _find_winners(values, winners, by_region)
                held[index] = values, winners
        yield held[pair[0]], held[pair[1]]


@compiled
def _find_winners(values: FloatArray, winners: IntArray, by_region: bool) -> None:
    """Write the winner at each voxel of one slice, (K, H, W) to (H, W)."""
    classes, height, width = values.shape
    best = np.empty(width, values.dtype)
    half = values.dtype.type(HALF)
    for y in range(height):
        row = winners[y]
        for x in range(width):
            row[x] = 0
            best[x] = half if by_region else values[0, y, x]
        for k in range(0 if by_region else 1, classes):
            channel = values[k, y]
            if by_region:
                for x in range(width):
                    row[x] = k + 1 if channel[x] > half else row[x]
            else:
                for x in range(width):
                    row[x] = k if channel[x] > best[x] else row[x]
                    best[x] = max(best[x], channel[x])


@compiled
def _fill_plane(
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
    """Write the winners of one new plane (H, W) between two old slices (K, h, w)."""
    flags = np.empty(low.shape[2], np.uint8)
    plain = np.empty(out.shape[1], out.dtype)
    mixed = np.empty(out.shape[1], np.int64)
    blended = np.empty(low.shape[2], np.float64)
    best = np.empty(out.shape[1], np.float32)
    row_weights = np.empty(4, np.float64)
    before = (-1, -1)
    count = 0
    for j in range(out.shape[0]):
        y0, y1 = height.low[j], height.high[j]
        if before != (y0, y1):
            count = fill_plain(
                top_low[y0], top_low[y1], top_high[y0], top_high[y1], reached, flags, plain, mixed
            )
            before = (y0, y1)
        out[j] = plain
        row_weights[0] = depth[0] * height.low_weight[j]
        row_weights[1] = depth[0] * height.high_weight[j]
        row_weights[2] = depth[1] * height.low_weight[j]
        row_weights[3] = depth[1] * height.high_weight[j]
        start = 0
        while start < count:
            stop = start + 1
            while stop < count and width.low[mixed[stop]] - width.high[mixed[stop - 1]] < GAP:
                stop += 1
            _settle(
                low,
                high,
                y0,
                y1,
                row_weights,
                width,
                mixed[start:stop],
                blended,
                best,
                out[j],
                by_region,
            )
            start = stop


@compiled
def _settle(
    low: FloatArray,
    high: FloatArray,
    y0: int,
    y1: int,
    weights: Weights,
    width: LinearTaps,
    mixed: IntArray,
    blended: Weights,
    best: FloatArray,
    row: IntArray,
    by_region: bool,
) -> None:
    """Interpolate every class at the voxels `mixed` of one row and write the winners."""
    first = width.low[mixed[0]]
    last = width.high[mixed[-1]] + 1
    for x in mixed:
        best[x] = HALF if by_region else -np.inf
        row[x] = 0
    for k in range(low.shape[0]):
        a, b = low[k, y0, first:last], low[k, y1, first:last]
        c, d = high[k, y0, first:last], high[k, y1, first:last]
        for x in range(last - first):
            blended[x] = (
                weights[0] * a[x] + weights[1] * b[x] + weights[2] * c[x] + weights[3] * d[x]
            )
        for x in mixed:
            value = np.float32(
                width.low_weight[x] * blended[width.low[x] - first]
                + width.high_weight[x] * blended[width.high[x] - first]
            )
            if value > best[x]:
                row[x] = k + 1 if by_region else k
                best[x] = HALF if by_region else value
