"""Compiled loops that resample a label patch through an affine map by the linear weights of labels.

Axes: S slices, D, H, W. A label wins a voxel when it holds at least half of the weight of the
corners around it. Where all corners agree there is nothing to weigh, which is seen beforehand.
"""

from __future__ import annotations

import numpy as np

from nnunetlike.core.compiled import compiled
from nnunetlike.preprocessing.cells import largest_half
from nnunetlike.training.augmentation.interpolation import Float64, Integers, index_row, locate_row


@compiled
def mark_mixed(label: Integers, marked: Integers) -> None:
    """Write twice each label of (D, H, W), plus one where it and its next seven differ anywhere."""
    depth, height, width = label.shape
    for z in range(depth):
        for y in range(height):
            below, right = min(z + 1, depth - 1), min(y + 1, height - 1)
            a, b, c, d = label[z, y], label[z, right], label[below, y], label[below, right]
            row = marked[z, y]
            for x in range(width - 1):
                mixed = (a[x] != a[x + 1]) | (a[x] != b[x]) | (a[x] != b[x + 1])
                mixed |= (a[x] != c[x]) | (a[x] != c[x + 1]) | (a[x] != d[x]) | (a[x] != d[x + 1])
                row[x] = 2 * a[x] + mixed
            x = width - 1
            row[x] = 2 * a[x] + ((a[x] != b[x]) | (a[x] != c[x]) | (a[x] != d[x]))


@compiled
def gather_volume_labels(
    marked: Integers,
    matrix: Float64,
    start: Float64,
    last: Float64,
    origin: Integers,
    result: Integers,
) -> None:
    """Fill `result` (D, H, W) with the label that holds half of the eight corners, outside 0.

    The arguments are those of `gather_volume`, with a block of the label as `mark_mixed` leaves it
    in place of coefficients.
    """
    depth, height, width = result.shape
    flat = marked.reshape(-1)
    steps = marked.shape[1] * marked.shape[2], marked.shape[2], 1
    points, first = np.empty((3, width)), np.empty(width, np.int64)
    for i in range(depth):
        for j in range(height):
            locate_row(matrix, start, i, j, points)
            index_row(points, last, origin, steps, first)
            row = result[i, j]
            for k in range(width):
                row[k] = 0
                if first[k] >= 0:
                    value = flat[first[k]]
                    row[k] = value >> 1
                    if value & 1:
                        row[k] = corner_majority(marked, points[:, k], origin)


@compiled
def corner_majority(marked: Integers, point: Float64, origin: Integers) -> int:
    """Return the label that holds half of the corners around `point` (3,) of the image."""
    tz, ty, tx = point[0] - int(point[0]), point[1] - int(point[1]), point[2] - int(point[2])
    z0, y0 = int(point[0]) - origin[0], int(point[1]) - origin[1]
    x0 = int(point[2]) - origin[2]
    z1, y1 = min(z0 + 1, marked.shape[0] - 1), min(y0 + 1, marked.shape[1] - 1)
    x1 = min(x0 + 1, marked.shape[2] - 1)
    corners = (
        marked[z0, y0, x0] >> 1, marked[z0, y0, x1] >> 1,
        marked[z0, y1, x0] >> 1, marked[z0, y1, x1] >> 1,
        marked[z1, y0, x0] >> 1, marked[z1, y0, x1] >> 1,
        marked[z1, y1, x0] >> 1, marked[z1, y1, x1] >> 1,
    )  # fmt: skip
    weights = (
        (1 - tz) * (1 - ty) * (1 - tx), (1 - tz) * (1 - ty) * tx,
        (1 - tz) * ty * (1 - tx), (1 - tz) * ty * tx,
        tz * (1 - ty) * (1 - tx), tz * (1 - ty) * tx, tz * ty * (1 - tx), tz * ty * tx,
    )  # fmt: skip
    return largest_half(corners, weights)


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
                result[s, j, k] = largest_half(corners, weights)
