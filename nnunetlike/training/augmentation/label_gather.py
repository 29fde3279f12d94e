"""Compiled loops that resample a label patch through an affine map by the linear weights of labels.

Axes: S slices, D, H, W. A label wins a voxel when it holds at least half of the weight of the
corners around it. Where all corners agree there is nothing to weigh.
"""

from __future__ import annotations

import numpy as np

from nnunetlike.core.compiled import compiled
from nnunetlike.preprocessing.cells import SURELY_MORE, Eight, largest_half
from nnunetlike.training.augmentation.block_agreement import corners_agree
from nnunetlike.training.augmentation.interpolation import (
    Float64,
    Integers,
    index_row,
    inside,
    locate_row,
)


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
    flat = label.reshape(-1)
    plane, row = label.shape[1] * label.shape[2], label.shape[2]
    points, first = np.empty((3, width)), np.empty(width, np.int64)
    mixed = np.empty(width, np.int64)
    before_last = np.array([np.nextafter(end, -1) for end in last])
    for i in range(depth):
        for j in range(height):
            locate_row(matrix, start, i, j, points)
            low, high = inside(points, last)
            begin, end = inside(points, before_last)  # elsewhere there is no next voxel to read
            index_row(points, origin, plane, row, first)
            target = result[i, j]
            target[:low], target[high:] = 0, 0
            count = list_range(mixed, 0, low, min(begin, high))
            for k in range(begin, end):
                target[k] = flat[first[k]]
                mixed[count] = k
                count += not corners_agree(flat, first[k], plane, row)
            count = list_range(mixed, count, max(low, end), high)
            for k in mixed[:count]:
                target[k] = corner_majority(label, points[:, k], origin)


@compiled
def list_range(places: Integers, count: int, begin: int, end: int) -> int:
    """Append `begin` ... `end` to the first `count` of `places`, and return how many there are."""
    for k in range(begin, end):
        places[count] = k
        count += 1
    return count


@compiled
def corner_majority(label: Integers, point: Float64, origin: Integers) -> int:
    """Return the label that holds half of the corners around `point` (3,) of the image."""
    tz, ty, tx = point[0] - int(point[0]), point[1] - int(point[1]), point[2] - int(point[2])
    z0, y0 = int(point[0]) - origin[0], int(point[1]) - origin[1]
    x0 = int(point[2]) - origin[2]
    z1, y1 = min(z0 + 1, label.shape[0] - 1), min(y0 + 1, label.shape[1] - 1)
    x1 = min(x0 + 1, label.shape[2] - 1)
    corners = (
        label[z0, y0, x0], label[z0, y0, x1], label[z0, y1, x0], label[z0, y1, x1],
        label[z1, y0, x0], label[z1, y0, x1], label[z1, y1, x0], label[z1, y1, x1],
    )  # fmt: skip
    weights = (
        (1 - tz) * (1 - ty) * (1 - tx), (1 - tz) * (1 - ty) * tx,
        (1 - tz) * ty * (1 - tx), (1 - tz) * ty * tx,
        tz * (1 - ty) * (1 - tx), tz * (1 - ty) * tx, tz * ty * (1 - tx), tz * ty * tx,
    )  # fmt: skip
    return majority(corners, weights)


@compiled
def majority(corners: Eight[int], weights: Eight[float]) -> int:
    """Return what `largest_half` does, which the first two labels mostly decide."""
    one = other = corners[0]
    for corner in corners:
        if other == one:
            other = corner
    of_one, of_other = 0.0, 0.0
    for corner, weight in zip(corners, weights):  # noqa: B905 - numba knows no strict
        of_one += weight if corner == one else 0.0
        of_other += weight if corner == other else 0.0
    if of_one > SURELY_MORE:
        return one
    return other if of_other > SURELY_MORE else largest_half(corners, weights)


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
