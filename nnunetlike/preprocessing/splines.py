"""Loops that resize arrays axis by axis with linear or cubic B-splines.

A cubic needs its coefficients first: the recursive filter with the pole √3 - 2 runs down and up
each line, whose end voxels are thought to go on for ever. All loops run over the contiguous axis
innermost; the last axis of a plane is resized on its transpose, plane by plane within the cache.

A `frame` (shift_in, shift_out, lowest, highest) is subtracted before, added after, and clips.
Subtracting the middle of the value range keeps single precision relative to the range. Its dtype is
that of the arithmetic; arrays that are read and written may be less precise.

Source: Unser, Aldroubi and Eden, "B-spline signal processing: Part I—theory",
IEEE Transactions on Signal Processing 41(2), 1993.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from nnunetlike.core.compiled import compiled
from nnunetlike.core.typing import FloatArray
from nnunetlike.preprocessing.taps import Indices, cubic_taps, linear_taps

POLE = math.sqrt(3) - 2
CHUNK = 512
"""Columns of the outermost axis that are filtered together: rows stay in the cache."""

BLOCK = 16
"""Columns that are transposed together."""

SPARE = 16
"""Columns by which scratch is wider: rows a power of two apart would share lines of the cache."""


class Ruler(NamedTuple):
    """How one axis is resized: first tap of each new voxel (m,), weights (m, 2 or 4)."""

    first: Indices
    weights: FloatArray
    constants: FloatArray
    """Pole, start of the causal and the two factors of the anticausal filter."""


def ruler(old: int, new: int, order: int, dtype: npt.DTypeLike) -> Ruler:
    """Return how an axis of `old` voxels becomes one of `new`, by order 1 or 3."""
    z = POLE
    constants = np.array(
        [z, 1 / (1 - z), -z / (1 - z) * (1 / (1 - z) - 1 / (1 - z * z)), -z / (1 - z * z)], dtype
    )
    if order == 3:
        first, weights = cubic_taps(old, new)
        return Ruler(first, np.ascontiguousarray(weights, dtype), constants)
    taps = linear_taps(old, new)
    first = np.minimum(taps.low, max(old - 2, 0))
    high = np.where(taps.low > first, 1.0, taps.high_weight)
    return Ruler(first, np.stack([1 - high, high], axis=1).astype(dtype), constants)


@compiled
def _filter_down(
    source: FloatArray,
    start: int,
    stop: int,
    shift: float,
    state: FloatArray,
    constants: FloatArray,
) -> None:
    """Run the causal filter down the columns start..stop of `source` (n, w) into `state`."""
    n = source.shape[0]
    z, head = constants[0], constants[1]
    first_in = source[0, start:stop]
    first = state[0]
    for j in range(stop - start):
        first[j] = (first_in[j] - shift) * head
    for k in range(1, n + 4):
        row_in = source[min(max(k - 2, 0), n - 1), start:stop]
        above = state[k - 1]
        row = state[k]
        for j in range(stop - start):
            row[j] = (row_in[j] - shift) + z * above[j]


@compiled
def _filter_up(
    source: FloatArray,
    start: int,
    stop: int,
    shift: float,
    state: FloatArray,
    constants: FloatArray,
) -> None:
    """Run the anticausal filter up `state`, which becomes the coefficients of n + 4 places."""
    n = source.shape[0]
    z, by_value, by_state = constants[0], constants[2], constants[3]
    last_in = source[n - 1, start:stop]
    last = state[n + 3]
    for j in range(stop - start):
        last[j] = by_value * (last_in[j] - shift) + by_state * last[j]
    for k in range(n + 2, -1, -1):
        row = state[k]
        below = state[k + 1]
        for j in range(stop - start):
            row[j] = z * (below[j] - row[j])


@compiled
def _gather_cubic(
    state: FloatArray,
    out: FloatArray,
    start: int,
    stop: int,
    first: Indices,
    weights: FloatArray,
    frame: FloatArray,
) -> None:
    shift, low, high = frame[1], frame[2], frame[3]
    for i in range(out.shape[0]):
        k = first[i]
        a, b, c, d = state[k], state[k + 1], state[k + 2], state[k + 3]
        wa, wb, wc, wd = weights[i, 0], weights[i, 1], weights[i, 2], weights[i, 3]
        row = out[i, start:stop]
        for j in range(stop - start):
            value = wa * a[j] + wb * b[j] + wc * c[j] + wd * d[j] + shift
            value = low if value < low else value
            row[j] = high if value > high else value


@compiled
def _gather_linear(
    source: FloatArray,
    out: FloatArray,
    start: int,
    stop: int,
    first: Indices,
    weights: FloatArray,
    frame: FloatArray,
) -> None:
    n = source.shape[0]
    shift_in, shift, low, high = frame[0], frame[1], frame[2], frame[3]
    for i in range(out.shape[0]):
        a = source[first[i], start:stop]
        b = source[min(first[i] + 1, n - 1), start:stop]
        wa, wb = weights[i, 0], weights[i, 1]
        row = out[i, start:stop]
        for j in range(stop - start):
            value = wa * (a[j] - shift_in) + wb * (b[j] - shift_in) + shift
            value = low if value < low else value
            row[j] = high if value > high else value


@compiled
def resize_rows(
    source: FloatArray,
    out: FloatArray,
    start: int,
    stop: int,
    ruler: Ruler,
    frame: FloatArray,
    state: FloatArray,
) -> None:
    """Resize the first axis of `source` (n, w) into `out` (m, w), columns start..stop.

    `state` is scratch of at least (n + 4, stop - start); the tap count of `ruler` is the order.
    """
    if ruler.weights.shape[1] == 4:
        _filter_down(source, start, stop, frame[0], state, ruler.constants)
        _filter_up(source, start, stop, frame[0], state, ruler.constants)
        _gather_cubic(state, out, start, stop, ruler.first, ruler.weights, frame)
    else:
        _gather_linear(source, out, start, stop, ruler.first, ruler.weights, frame)


@compiled
def resize_depth(source: FloatArray, out: FloatArray, ruler: Ruler, frame: FloatArray) -> None:
    """Resize the first axis of `source` (d, h·w) into `out` (D, h·w)."""
    width = source.shape[1]
    state = np.empty((source.shape[0] + 4, min(width, CHUNK)), frame.dtype)
    for start in range(0, width, CHUNK):
        stop = min(start + CHUNK, width)
        resize_rows(source, out, start, stop, ruler, frame, state)


@compiled
def _transpose(source: FloatArray, out: FloatArray) -> None:
    """Write `source` (h, w) turned into `out` (w, h), eight rows at a time.

    Either may have more columns than the other has rows; these are left out.
    """
    height, width = min(source.shape[0], out.shape[1]), min(source.shape[1], out.shape[0])
    whole, pitch = height - height % 8, out.shape[1]
    flat = out.reshape(-1)
    for left in range(0, width, BLOCK):
        right = min(left + BLOCK, width)
        for i in range(0, whole, 8):
            a, b, c, d = source[i], source[i + 1], source[i + 2], source[i + 3]
            e, f, g, h = source[i + 4], source[i + 5], source[i + 6], source[i + 7]
            for j in range(left, right):
                at = j * pitch + i
                flat[at], flat[at + 1], flat[at + 2], flat[at + 3] = a[j], b[j], c[j], d[j]
                flat[at + 4], flat[at + 5], flat[at + 6], flat[at + 7] = e[j], f[j], g[j], h[j]
        for i in range(whole, height):
            for j in range(left, right):
                out[j, i] = source[i, j]


class _Scratch(NamedTuple):
    """Where a plane is resized, with columns to spare (`SPARE`)."""

    tall: FloatArray
    turned: FloatArray
    wide: FloatArray
    down_state: FloatArray
    across_state: FloatArray


@compiled
def resize_planes(
    source: FloatArray,
    out: FloatArray,
    planes: Indices,
    down: Ruler,
    across: Ruler,
    frames: FloatArray,
) -> None:
    """Resize planes of `source` (d, h, w) into `out` (D, H, W): plane `planes[i]` becomes `i`.

    Args:
        source: old planes.
        out: new planes.
        planes: (D,), which old plane each new one shows; neighbours that agree are computed once.
        down: taps of the height.
        across: taps of the width.
        frames: (d, 4), the frame of each old plane.
    """
    _, height, width = source.shape
    new_height, new_width = out.shape[1:]
    dtype = frames.dtype
    scratch = _Scratch(
        np.empty((new_height, width + SPARE), dtype),
        np.empty((width, new_height + SPARE), dtype),
        np.empty((new_width, new_height + SPARE), dtype),
        np.empty((height + 4, width), dtype),
        np.empty((width + 4, new_height), dtype),
    )
    for i in range(len(planes)):
        if i > 0 and planes[i] == planes[i - 1]:
            out[i] = out[i - 1]
        else:
            _resize_plane(source[planes[i]], out[i], down, across, frames[planes[i]], scratch)


@compiled
def _resize_plane(
    plane: FloatArray,
    out: FloatArray,
    down: Ruler,
    across: Ruler,
    frame: FloatArray,
    scratch: _Scratch,
) -> None:
    """Resize a plane (h, w) into `out` (H, W); an axis that stays as it is is left out."""
    height, width = plane.shape
    if out.shape[1] == width:
        resize_rows(plane, out, 0, width, down, frame, scratch.down_state)
        return
    later = frame.copy()
    if len(out) == height:
        _transpose(plane, scratch.turned)
    else:
        first = frame.copy()
        first[1], first[2], first[3] = 0, -np.inf, np.inf
        later[0] = 0
        resize_rows(plane, scratch.tall, 0, width, down, first, scratch.down_state)
        _transpose(scratch.tall, scratch.turned)
    resize_rows(scratch.turned, scratch.wide, 0, len(out), across, later, scratch.across_state)
    _transpose(scratch.wide, out)
