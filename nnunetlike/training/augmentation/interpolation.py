"""Compiled loops that resample a patch through an affine map: cubic for images, linear for labels.

Axes: C channels, S slices, D, H, W. A coefficient array has one mirrored entry in front of each
spline axis and two behind it, so that the taps of a point inside the image need no border test.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from nnunetlike.core.compiled import compiled

Float32: TypeAlias = npt.NDArray[np.float32]
Float64: TypeAlias = npt.NDArray[np.float64]
Integers: TypeAlias = npt.NDArray[np.integer[Any]]

POLE = np.float32(np.sqrt(3.0) - 2.0)
SIXTH = np.float32(1.0 / 6.0)
LAST = np.float32(POLE / (POLE * POLE - 1.0))
HORIZON = 24
"""Samples after which the pole's power (2e-14) no longer matters."""

CHUNK = 512
BLOCK = 16
ONE, THREE, FOUR, SIX = np.float32(1), np.float32(3), np.float32(4), np.float32(6)


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
    """Replace `lines` (N, M) along N by cubic B-spline coefficients over six, mirrored ends.

    Source: Unser, Aldroubi and Eden, "B-spline signal processing: part II", IEEE Trans. Signal
    Processing 41 (1993): one causal and one anticausal recursion with the pole sqrt(3) - 2.
    """
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
def transpose_into(source: Float32, target: Float32) -> None:
    """Write the transpose of `source` (N, M) into `target` (M, N), block by block."""
    n, m = source.shape
    for i0 in range(0, n, BLOCK):
        for j0 in range(0, m, BLOCK):
            for i in range(i0, min(i0 + BLOCK, n)):
                for j in range(j0, min(j0 + BLOCK, m)):
                    target[j, i] = source[i, j]


@compiled
def slice_coefficients(image: Float32, result: Float32) -> None:
    """Fill `result` (S, H + 3, W + 3) with coefficients of the slices of `image`, over 36."""
    slices, h, w = image.shape
    rows, columns = np.empty((h, w), np.float32), np.empty((w, h), np.float32)
    for s in range(slices):
        rows[:] = image[s]
        filter_columns(rows)
        transpose_into(rows, columns)
        filter_columns(columns)
        padded = result[s]
        transpose_into(columns, padded[1 : h + 1, 1 : w + 1])
        for i in range(1, h + 1):
            padded[i, 0] = padded[i, mirrored(-1, w) + 1]
            for pad in range(2):
                padded[i, w + 1 + pad] = padded[i, mirrored(w + pad, w) + 1]
        padded[0] = padded[mirrored(-1, h) + 1]
        for pad in range(2):
            padded[h + 1 + pad] = padded[mirrored(h + pad, h) + 1]


@compiled
def volume_coefficients(image: Float32, result: Float32) -> None:
    """Fill `result` (D + 3, H + 3, W + 3) with coefficients of `image` (D, H, W), over 216."""
    d, h, w = image.shape
    size = (h + 3) * (w + 3)
    slice_coefficients(image, result[1 : d + 1])
    flat = result.reshape(d + 3, size)
    lines = np.zeros((d, CHUNK), np.float32)
    for start in range(0, size, CHUNK):
        width = min(CHUNK, size - start)
        for k in range(d):
            lines[k, :width] = flat[k + 1, start : start + width]
        filter_columns(lines)
        for k in range(d):
            flat[k + 1, start : start + width] = lines[k, :width]
    flat[0] = flat[mirrored(-1, d) + 1]
    for pad in range(2):
        flat[d + 1 + pad] = flat[mirrored(d + pad, d) + 1]


@compiled
def cubic_weights(t: np.float32) -> tuple[np.float32, np.float32, np.float32, np.float32]:
    """Return the four B-spline weights, times six, at a distance `t` behind a sample."""
    rest = ONE - t
    a, d = rest * rest * rest, t * t * t
    b = FOUR - SIX * t * t + THREE * d
    return a, b, SIX - a - b - d, d


@compiled
def gather_volume(
    coefficients: Float32,
    matrix: Float64,
    start: Float64,
    last: Float64,
    origin: Integers,
    result: Float32,
) -> None:
    """Fill `result` (C, D, H, W) with the spline at `start + matrix @ (i, j, k)`, outside 0.

    Args:
        coefficients: of a block of the image, (C, d + 3, h + 3, w + 3).
        matrix: (3, 3), step in image coordinates per step in the patch.
        start: image coordinates of the patch's first voxel.
        last: largest coordinate inside the image, per axis.
        origin: first voxel of the block in the image.
        result: written.
    """
    channels, depth, height, width = result.shape
    for i in range(depth):
        for j in range(height):
            for k in range(width):
                z = start[0] + (matrix[0, 0] * i + matrix[0, 1] * j + matrix[0, 2] * k)
                y = start[1] + (matrix[1, 0] * i + matrix[1, 1] * j + matrix[1, 2] * k)
                x = start[2] + (matrix[2, 0] * i + matrix[2, 1] * j + matrix[2, 2] * k)
                if z < 0 or y < 0 or x < 0 or z > last[0] or y > last[1] or x > last[2]:
                    for c in range(channels):
                        result[c, i, j, k] = 0
                    continue
                fz, fy, fx = int(z), int(y), int(x)
                wz = cubic_weights(np.float32(z - fz))
                wy = cubic_weights(np.float32(y - fy))
                w0, w1, w2, w3 = cubic_weights(np.float32(x - fx))
                fz, fy, fx = fz - origin[0], fy - origin[1], fx - origin[2]
                for c in range(channels):
                    total = np.float32(0)
                    for a in range(4):
                        plane = np.float32(0)
                        for b in range(4):
                            row = coefficients[c, fz + a, fy + b]
                            plane += wy[b] * (
                                (w0 * row[fx] + w1 * row[fx + 1])
                                + (w2 * row[fx + 2] + w3 * row[fx + 3])
                            )
                        total += wz[a] * plane
                    result[c, i, j, k] = total


@compiled
def stretch_volume(
    coefficients: Float32,
    matrix: Float64,
    start: Float64,
    last: Float64,
    origin: Integers,
    result: Float32,
) -> None:
    """Do what `gather_volume` does for a diagonal `matrix`: one axis after the other."""
    channels, depth, height, width = result.shape
    z_at, z_by = straight_taps(start[0], matrix[0, 0], last[0], origin[0], depth)
    y_at, y_by = straight_taps(start[1], matrix[1, 1], last[1], origin[1], height)
    x_at, x_by = straight_taps(start[2], matrix[2, 2], last[2], origin[2], width)
    _, _, rows, columns = coefficients.shape
    plane, line = np.empty((rows, columns), np.float32), np.empty(columns, np.float32)
    for c in range(channels):
        for i in range(depth):
            combine(coefficients[c], z_at[i], z_by[i], plane)
            for j in range(height):
                combine(plane, y_at[j], y_by[j], line)
                for k in range(width):
                    x = x_at[k]
                    result[c, i, j, k] = (x_by[k, 0] * line[x] + x_by[k, 1] * line[x + 1]) + (
                        x_by[k, 2] * line[x + 2] + x_by[k, 3] * line[x + 3]
                    )


@compiled
def combine(entries: Float32, first: int, weights: Float32, result: Float32) -> None:
    """Fill `result` (...) with the weighted sum of four `entries` (N, ...) from `first` on."""
    a, b = entries[first].reshape(-1), entries[first + 1].reshape(-1)
    c, d = entries[first + 2].reshape(-1), entries[first + 3].reshape(-1)
    w0, w1, w2, w3 = weights[0], weights[1], weights[2], weights[3]
    flat = result.reshape(-1)
    for i in range(len(flat)):
        flat[i] = (w0 * a[i] + w1 * b[i]) + (w2 * c[i] + w3 * d[i])


@compiled
def straight_taps(
    start: float, step: float, last: float, origin: int, length: int
) -> tuple[Integers, Float32]:
    """Return for each point of an axis its first coefficient, and its weights: 0 outside."""
    first, weights = np.zeros(length, np.int64), np.zeros((length, 4), np.float32)
    for i in range(length):
        position = start + step * i
        if 0 <= position <= last:
            whole = int(position)
            first[i] = whole - origin
            a, b, c, d = cubic_weights(np.float32(position - whole))
            weights[i, 0], weights[i, 1], weights[i, 2], weights[i, 3] = a, b, c, d
    return first, weights


@compiled
def gather_slices(
    coefficients: Float32,
    matrix: Float64,
    start: Float64,
    last: Float64,
    origin: Integers,
    result: Float32,
) -> None:
    """Fill each slice of `result` (S, H, W) like `gather_volume`, in the plane."""
    slices, height, width = result.shape
    for j in range(height):
        for k in range(width):
            y = start[0] + (matrix[0, 0] * j + matrix[0, 1] * k)
            x = start[1] + (matrix[1, 0] * j + matrix[1, 1] * k)
            if y < 0 or x < 0 or y > last[0] or x > last[1]:
                for s in range(slices):
                    result[s, j, k] = 0
                continue
            fy, fx = int(y), int(x)
            wy = cubic_weights(np.float32(y - fy))
            w0, w1, w2, w3 = cubic_weights(np.float32(x - fx))
            fy, fx = fy - origin[0], fx - origin[1]
            for s in range(slices):
                total = np.float32(0)
                for b in range(4):
                    row = coefficients[s, fy + b]
                    total += wy[b] * (
                        (w0 * row[fx] + w1 * row[fx + 1]) + (w2 * row[fx + 2] + w3 * row[fx + 3])
                    )
                result[s, j, k] = total


@compiled
def majority(labels: Integers, weights: Float64, corners: int) -> int:
    """Return the largest label whose corners weigh at least one half together, else 0."""
    found, best = False, 0
    for a in range(corners):
        label = labels[a]
        if found and label <= best:
            continue
        total = 0.0
        for b in range(corners):
            if labels[b] == label:
                total += weights[b]
        if total >= 0.5:
            found, best = True, label
    return best


@compiled
def gather_volume_labels(
    label: Integers,
    matrix: Float64,
    start: Float64,
    last: Float64,
    origin: Integers,
    result: Integers,
) -> None:
    """Fill `result` (D, H, W) with the label that holds half of the eight corners, outside 0.

    The arguments are those of `gather_volume`, with a block of the label in place of coefficients.
    """
    depth, height, width = result.shape
    end_z, end_y, end_x = label.shape[0] - 1, label.shape[1] - 1, label.shape[2] - 1
    corners, weights = np.zeros(8, label.dtype), np.zeros(8)
    for i in range(depth):
        for j in range(height):
            for k in range(width):
                z = start[0] + (matrix[0, 0] * i + matrix[0, 1] * j + matrix[0, 2] * k)
                y = start[1] + (matrix[1, 0] * i + matrix[1, 1] * j + matrix[1, 2] * k)
                x = start[2] + (matrix[2, 0] * i + matrix[2, 1] * j + matrix[2, 2] * k)
                if z < 0 or y < 0 or x < 0 or z > last[0] or y > last[1] or x > last[2]:
                    result[i, j, k] = 0
                    continue
                fz, fy, fx = int(z), int(y), int(x)
                tz, ty, tx = z - fz, y - fy, x - fx
                z0, y0, x0 = fz - origin[0], fy - origin[1], fx - origin[2]
                z1, y1, x1 = min(z0 + 1, end_z), min(y0 + 1, end_y), min(x0 + 1, end_x)
                corners[0], corners[1] = label[z0, y0, x0], label[z0, y0, x1]
                corners[2], corners[3] = label[z0, y1, x0], label[z0, y1, x1]
                corners[4], corners[5] = label[z1, y0, x0], label[z1, y0, x1]
                corners[6], corners[7] = label[z1, y1, x0], label[z1, y1, x1]
                same = True
                for c in range(1, 8):
                    same = same and corners[c] == corners[0]
                if same:
                    result[i, j, k] = corners[0]
                    continue
                weights[0], weights[1] = (1 - tz) * (1 - ty) * (1 - tx), (1 - tz) * (1 - ty) * tx
                weights[2], weights[3] = (1 - tz) * ty * (1 - tx), (1 - tz) * ty * tx
                weights[4], weights[5] = tz * (1 - ty) * (1 - tx), tz * (1 - ty) * tx
                weights[6], weights[7] = tz * ty * (1 - tx), tz * ty * tx
                result[i, j, k] = majority(corners, weights, 8)


@compiled
def gather_slice_labels(
    label: Integers,
    matrix: Float64,
    start: Float64,
    last: Float64,
    origin: Integers,
    result: Integers,
) -> None:
    """Fill each slice of `result` (S, H, W) like `gather_volume_labels`, with four corners."""
    slices, height, width = result.shape
    end_y, end_x = label.shape[1] - 1, label.shape[2] - 1
    corners, weights = np.zeros(4, label.dtype), np.zeros(4)
    for j in range(height):
        for k in range(width):
            y = start[0] + (matrix[0, 0] * j + matrix[0, 1] * k)
            x = start[1] + (matrix[1, 0] * j + matrix[1, 1] * k)
            if y < 0 or x < 0 or y > last[0] or x > last[1]:
                for s in range(slices):
                    result[s, j, k] = 0
                continue
            fy, fx = int(y), int(x)
            ty, tx = y - fy, x - fx
            y0, x0 = fy - origin[0], fx - origin[1]
            y1, x1 = min(y0 + 1, end_y), min(x0 + 1, end_x)
            weights[0], weights[1] = (1 - ty) * (1 - tx), (1 - ty) * tx
            weights[2], weights[3] = ty * (1 - tx), ty * tx
            for s in range(slices):
                corners[0], corners[1] = label[s, y0, x0], label[s, y0, x1]
                corners[2], corners[3] = label[s, y1, x0], label[s, y1, x1]
                result[s, j, k] = majority(corners, weights, 4)
