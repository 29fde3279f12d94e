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

Float32: TypeAlias = npt.NDArray[np.float32]

POLE = np.float32(np.sqrt(3.0) - 2.0)
ONE = np.float32(1)
SIXTH = np.float32(1.0 / 6.0)
LAST = np.float32(POLE / (POLE * POLE - 1.0))
HORIZON = 24
"""Samples after which the pole's power (2e-14) no longer matters."""

CHUNK = 512
"""Columns of the first axis that are filtered together, so that they stay in the cache."""

ROWS = 4
"""Rows that are filtered together, as each step of a recursion waits for the one before."""


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
def filter_columns(lines: Float32) -> None:
    """Replace `lines` (N, M) along N by cubic B-spline coefficients over six, mirrored ends."""
    n, m = lines.shape
    if n == 1:
        for j in range(m):
            lines[0, j] *= SIXTH
        return
    lines[0] = first_coefficients(lines)
    for k in range(1, n):
        for j in range(m):
            lines[k, j] += POLE * lines[k - 1, j]
    for j in range(m):
        lines[n - 1, j] = LAST * (lines[n - 1, j] + POLE * lines[n - 2, j])
    for k in range(n - 2, -1, -1):
        for j in range(m):
            lines[k, j] = POLE * (lines[k + 1, j] - lines[k, j])


@compiled
def filter_rows(rows: Float32) -> None:
    """Do along N of `rows` (M, N), M a multiple of `ROWS`, what `filter_columns` does."""
    m, n = rows.shape
    if n == 1:
        rows *= SIXTH
        return
    first = first_coefficients(rows.T)
    for top in range(0, m, ROWS):
        a, b, c, d = rows[top], rows[top + 1], rows[top + 2], rows[top + 3]
        at_a, at_b, at_c, at_d = first[top], first[top + 1], first[top + 2], first[top + 3]
        a[0], b[0], c[0], d[0] = at_a, at_b, at_c, at_d
        for k in range(1, n):
            at_a, at_b = a[k] + POLE * at_a, b[k] + POLE * at_b
            at_c, at_d = c[k] + POLE * at_c, d[k] + POLE * at_d
            a[k], b[k], c[k], d[k] = at_a, at_b, at_c, at_d
        at_a, at_b = LAST * (at_a + POLE * a[n - 2]), LAST * (at_b + POLE * b[n - 2])
        at_c, at_d = LAST * (at_c + POLE * c[n - 2]), LAST * (at_d + POLE * d[n - 2])
        a[n - 1], b[n - 1], c[n - 1], d[n - 1] = at_a, at_b, at_c, at_d
        for k in range(n - 2, -1, -1):
            at_a, at_b = POLE * (at_a - a[k]), POLE * (at_b - b[k])
            at_c, at_d = POLE * (at_c - c[k]), POLE * (at_d - d[k])
            a[k], b[k], c[k], d[k] = at_a, at_b, at_c, at_d


@compiled
def slice_coefficients(image: Float32, result: Float32) -> None:
    """Fill `result` (S, H + 3, W + 3) with coefficients of the slices of `image`, over 36."""
    slices, h, w = image.shape
    rows = np.zeros((-(-h // ROWS) * ROWS, w), np.float32)
    before, after, beyond = mirrored(-1, w), mirrored(w, w), mirrored(w + 1, w)
    for s in range(slices):
        for i in range(h):
            for j in range(w):
                rows[i, j] = image[s, i, j]
        filter_columns(rows[:h])
        filter_rows(rows)
        padded = result[s]
        for i in range(h):
            row = padded[i + 1]
            for j in range(w):
                row[j + 1] = rows[i, j]
            row[0], row[w + 1], row[w + 2] = rows[i, before], rows[i, after], rows[i, beyond]
        mirror_ends(padded)


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
    """Fill `result` (D + 3, H + 3, W + 3) with coefficients of `image` (D, H, W), over 216."""
    d = len(image)
    slice_coefficients(image, result[1 : d + 1])
    flat = result.reshape(d + 3, -1)
    lines = np.zeros((d, CHUNK), np.float32)
    for start in range(0, flat.shape[1], CHUNK):
        width = min(CHUNK, flat.shape[1] - start)
        for k in range(d):
            row, some = lines[k, :width], flat[k + 1, start : start + width]
            for j in range(width):
                row[j] = some[j]
        filter_columns(lines)
        for k in range(d):
            row, some = lines[k, :width], flat[k + 1, start : start + width]
            for j in range(width):
                some[j] = row[j]
    mirror_ends(flat)
