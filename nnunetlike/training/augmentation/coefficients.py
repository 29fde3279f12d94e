"""Coefficients of cubic B-splines, of slices and of volumes, with mirrored entries around them.

Axes: S slices, D, H, W. A coefficient array has one mirrored entry in front of each spline axis and
two behind it, so that the taps of a point inside the image need no border test.

Source: Unser, Aldroubi and Eden, "B-spline signal processing: part II", IEEE Trans. Signal
Processing 41 (1993): one causal and one anticausal recursion with the pole sqrt(3) - 2.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from nnunetlike.core.compiled import compiled
from nnunetlike.training.augmentation.recursion import (
    COLUMNS,
    LANES,
    recur_down,
    recur_up,
    turn_block,
)

Float32: TypeAlias = npt.NDArray[np.float32]

POLE = np.float32(np.sqrt(3.0) - 2.0)
ZERO, ONE = np.float32(0), np.float32(1)
SIXTH = np.float32(1.0 / 6.0)
LAST = np.float32(POLE / (POLE * POLE - 1.0))
HORIZON = 16
"""Samples after which the pole's power (7e-10) no longer matters in single precision."""


@compiled
def mirrored(index: int, length: int) -> int:
    """Return where sample `index` lies when the line is reflected about its end samples."""
    if length == 1:
        return 0
    period = 2 * length - 2
    index = index % period
    return index if index < length else period - index


@compiled
def first_coefficients(lines: Float32) -> Float32:
    """Return where the causal recursion along `lines` (N, M), N > 1, starts: (M,)."""
    n, m = lines.shape
    terms = min(2 * n - 2, HORIZON)
    first = np.zeros(m, np.float32)
    power = ONE
    for k in range(terms):
        row = mirrored(k, n)
        for j in range(m):
            first[j] += power * lines[row, j]
        power *= POLE
    if terms < HORIZON:  # the mirrored line repeats itself: sum of the geometric series
        first /= ONE - power
    return first


@compiled
def filter_columns(source: Float32, result: Float32) -> None:
    """Fill `result` (N, M) along N with B-spline coefficients of `source` over six, mirrored ends.

    Args:
        source: (N, M), contiguous, M a multiple of `COLUMNS`.
        result: may be `source` itself.
    """
    n, m = source.shape
    if n == 1:
        result[:] = source * SIXTH
        return
    flat, target = source.reshape(-1), result.reshape(-1)
    result[0] = first_coefficients(source)
    for j in range(0, m, COLUMNS):
        recur_down(flat, j, target, j, m, n, POLE)
    last, before = result[n - 1], result[n - 2]
    for j in range(m):
        last[j] = LAST * (last[j] + POLE * before[j])
    for j in range(0, m, COLUMNS):
        recur_up(target, (n - 1) * m + j, m, n, POLE)


@compiled
def filter_rows(plane: Float32, width: int, lines: Float32) -> None:
    """Do along the rows of `plane`, of which `width` entries count, what `filter_columns` does.

    Args:
        plane: (H, W), both multiples of `COLUMNS`.
        width: at most W.
        lines: scratch, (W, COLUMNS).
    """
    height, wide = plane.shape
    flat, turned = plane.reshape(-1), lines.reshape(-1)
    for top in range(0, height, COLUMNS):
        for y in range(0, COLUMNS, LANES):
            for x in range(0, width, LANES):
                turn_block(flat, (top + y) * wide + x, wide, turned, x * COLUMNS + y, COLUMNS)
        filter_columns(lines[:width], lines[:width])
        for y in range(0, COLUMNS, LANES):
            for x in range(0, width, LANES):
                turn_block(turned, x * COLUMNS + y, COLUMNS, flat, (top + y) * wide + x, wide)


@compiled
def room(h: int, w: int) -> Float32:
    """Return zeros for a slice (h, w), each axis the next multiple of `COLUMNS`."""
    return np.zeros((-(-h // COLUMNS) * COLUMNS, -(-w // COLUMNS) * COLUMNS), np.float32)


@compiled
def filter_slice(source: Float32, plane: Float32, lines: Float32, padded: Float32) -> None:
    """Fill `padded` (H + 3, W + 3) with coefficients of a slice.

    Args:
        source: the slice in the corner of a `room`.
        plane: scratch of the same shape.
        lines: scratch of `filter_rows`.
        padded: written.
    """
    h, w = padded.shape[0] - 3, padded.shape[1] - 3
    filter_columns(source[:h], plane[:h])
    filter_rows(plane, w, lines)
    before, after, beyond = mirrored(-1, w), mirrored(w, w), mirrored(w + 1, w)
    for i in range(h):
        row, found = padded[i + 1], plane[i]
        for j in range(w):
            row[j + 1] = found[j]
        row[0], row[w + 1], row[w + 2] = found[before], found[after], found[beyond]
    mirror_ends(padded)


@compiled
def slice_coefficients(image: Float32, result: Float32) -> None:
    """Fill `result` (S, H + 3, W + 3) with coefficients of the slices of `image`, over 36."""
    slices, h, w = image.shape
    source, plane = room(h, w), room(h, w)
    lines = np.zeros((plane.shape[1], COLUMNS), np.float32)
    for s in range(slices):
        for i in range(h):
            for j in range(w):
                source[i, j] = image[s, i, j]
        filter_slice(source, plane, lines, result[s])


@compiled
def mirror_ends(padded: Float32) -> None:
    """Fill the first entry and the last two of `padded` (N + 3, M) from those between."""
    n = len(padded) - 3
    for end in (-1, n, n + 1):
        target, source = padded[end + 1], padded[mirrored(end, n) + 1]
        for j in range(len(target)):
            target[j] = source[j]


@compiled
def volume_coefficients(image: Float32, result: Float32) -> None:
    """Fill `result` (D + 3, H + 3, W + 3) with coefficients of `image` (D, H, W), over 216.

    The recursion down the slices leaves its values in `result`; the one up makes a slice at a time,
    which is filtered along its own axes while it is in the cache.
    """
    d, h, w = image.shape
    filter_down(image, result)
    state, plane = room(h, w), room(h, w)
    lines = np.zeros((plane.shape[1], COLUMNS), np.float32)
    for z in range(d - 1, -1, -1):
        if d == 1:
            add_rows(SIXTH, result[1], ZERO, result[1], state)
        elif z == d - 1:
            add_rows(LAST, result[d], LAST * POLE, result[d - 1], state)
        else:
            recur_once(result[z + 1], state)
        filter_slice(state, plane, lines, result[z + 1])
    mirror_ends(result.reshape(d + 3, -1))


@compiled
def filter_down(image: Float32, result: Float32) -> None:
    """Run the causal recursion along D of `image` (D, H, W), into the middle of `result`."""
    d, h, w = image.shape
    first = image.reshape(1, -1)[0] if d == 1 else first_coefficients(image.reshape(d, -1))
    for y in range(h):
        row = result[1, y + 1, 1 : w + 1]
        for x in range(w):
            row[x] = first[y * w + x]
    for z in range(1, d):
        for y in range(h):
            row, before = result[z + 1, y + 1, 1 : w + 1], result[z, y + 1, 1 : w + 1]
            values = image[z, y]
            for x in range(w):
                row[x] = values[x] + POLE * before[x]


@compiled
def add_rows(a: np.float32, first: Float32, b: np.float32, second: Float32, state: Float32) -> None:
    """Fill `state` with `a · first + b · second`, both padded slices."""
    h, w = first.shape[0] - 3, first.shape[1] - 3
    for y in range(h):
        one, two, row = first[y + 1, 1 : w + 1], second[y + 1, 1 : w + 1], state[y]
        for x in range(w):
            row[x] = a * one[x] + b * two[x]


@compiled
def recur_once(padded: Float32, state: Float32) -> None:
    """Replace `state`, coefficients of the slice behind, by those of a slice of `filter_down`."""
    h, w = padded.shape[0] - 3, padded.shape[1] - 3
    for y in range(h):
        values, row = padded[y + 1, 1 : w + 1], state[y]
        for x in range(w):
            row[x] = POLE * (row[x] - values[x])
