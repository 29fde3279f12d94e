"""Compiled loops that resample a patch through an affine map by cubic B-splines.

Axes: C channels, S slices, D, H, W. Coefficient arrays are those of `coefficients`.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from nnunetlike.core.compiled import compiled
from nnunetlike.training.augmentation.block_sum import LANES, block_sums, prefetch

Float32: TypeAlias = npt.NDArray[np.float32]
Float64: TypeAlias = npt.NDArray[np.float64]
Integers: TypeAlias = npt.NDArray[np.integer[Any]]

ONE, THREE, FOUR, SIX = np.float32(1), np.float32(3), np.float32(4), np.float32(6)


@compiled
def locate_row(matrix: Float64, start: Float64, i: int, j: int, points: Float64) -> None:
    """Fill `points` (3, W) with `start + matrix @ (i, j, k)` for every k."""
    for axis in range(3):
        at, step = start[axis], matrix[axis, 2]
        before = matrix[axis, 0] * i, matrix[axis, 1] * j
        row = points[axis]
        for k in range(len(row)):
            row[k] = at + (before[0] + before[1] + step * k)


@compiled
def cubic_weights(t: np.float32) -> tuple[np.float32, np.float32, np.float32, np.float32]:
    """Return the four B-spline weights, times six, at a distance `t` behind a sample."""
    rest = ONE - t
    a, d = rest * rest * rest, t * t * t
    b = FOUR - SIX * t * t + THREE * d
    return a, b, SIX - a - b - d, d


@compiled
def inside(points: Float64, last: Float64) -> tuple[int, int]:
    """Return first and one past the last of `points` (3, W) on a line that lie in the image.

    Args:
        points: image coordinates; along each axis they rise or fall.
        last: largest coordinate inside the image, per axis.
    """
    low, high = 0, points.shape[1]
    for axis in range(3):
        at, end = points[axis], last[axis]
        if min(at[0], at[-1]) >= 0 and max(at[0], at[-1]) <= end:
            continue
        while low < high and not 0 <= at[low] <= end:
            low += 1
        while low < high and not 0 <= at[high - 1] <= end:
            high -= 1
    return low, high


@compiled
def index_row(points: Float64, origin: Integers, plane: int, row: int, first: Integers) -> None:
    """Write the index of the voxel before each of `points`; nonsense outside the image.

    Args:
        points: image coordinates, (3, W).
        origin: first voxel of the block in the image.
        plane: entries of the block from one plane to the next.
        row: entries from one row to the next.
        first: written; (W,).
    """
    z, y, x = points[0], points[1], points[2]
    begin = origin[0] * plane + origin[1] * row + origin[2]
    for k in range(len(z)):
        before = np.int64(np.int32(z[k])) * plane + np.int64(np.int32(y[k])) * row
        first[k] = before + np.int64(np.int32(x[k])) - begin


@compiled
def weigh_row(points: Float64, fractions: Float32, weights: Float32) -> None:
    """Write four weights for each axis of each of `points`, (3, W) to (12, W or more).

    Few arrays at a time, lest the compiler give up proving that they do not overlap.
    """
    for axis in range(3):
        at = points[axis]
        for k in range(len(at)):
            fractions[k] = np.float32(at[k] - np.float64(np.int32(at[k])))
        weigh_outer(fractions, weights[4 * axis], weights[4 * axis + 3])
        weigh_inner(fractions, weights[4 * axis + 1], weights[4 * axis + 2])


@compiled
def weigh_outer(fractions: Float32, before: Float32, behind: Float32) -> None:
    """Write the first and the last of four weights, times six, at distances behind a sample."""
    for k in range(len(fractions)):
        t = fractions[k]
        before[k], behind[k] = (ONE - t) * (ONE - t) * (ONE - t), t * t * t


@compiled
def weigh_inner(fractions: Float32, before: Float32, behind: Float32) -> None:
    """Write the second and the third of four weights, times six."""
    for k in range(len(fractions)):
        t, rest = fractions[k], ONE - fractions[k]
        before[k] = FOUR + t * t * (THREE * t - SIX)
        behind[k] = FOUR + rest * rest * (THREE * rest - SIX)


@compiled
def rows_ahead(matrix: Float64, plane: int, row: int) -> tuple[int, int, int, int]:
    """Return how far from a voxel's block the rows lie that voxels two planes on will read first.

    A turned plane runs across the lines of the image, which no machine foresees by itself.
    """
    begin = np.rint(2 * matrix[0, 0]) * plane + np.rint(2 * matrix[1, 0]) * row
    first = int(begin + np.rint(2 * matrix[2, 0])) + 3 * plane
    return first, first + row, first + 2 * row, first + 3 * row


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
    row, plane = coefficients.shape[3], coefficients.shape[2] * coefficients.shape[3]
    points, fractions = np.empty((3, width)), np.empty(width, np.float32)
    first = np.zeros(width + LANES, np.int64)
    weights = np.zeros((12, width + LANES), np.float32)
    line = np.empty(width + LANES, np.float32)
    ahead = rows_ahead(matrix, plane, row)
    for i in range(depth):
        for j in range(height):
            locate_row(matrix, start, i, j, points)
            low, high = inside(points, last)
            index_row(points, origin, plane, row, first[:width])
            first[high : high + LANES] = 0  # computed with the others, and thrown away
            weigh_row(points, fractions, weights)
            for c in range(channels):
                flat, target = coefficients[c].reshape(-1), result[c, i, j]
                for k in range(low, high, LANES):
                    for distance in ahead:
                        prefetch(flat, first[k] + distance)
                    block_sums(flat, first, weights, k, plane, row, line)
                line[:low], line[high:] = 0, 0
                for k in range(width):
                    target[k] = line[k]


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
