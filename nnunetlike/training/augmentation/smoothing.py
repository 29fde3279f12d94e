"""Gaussian blur of a patch, one axis after the other. Axes: D, H, W; lines are (N, M), along N."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from nnunetlike.core.compiled import compiled

Float32: TypeAlias = npt.NDArray[np.float32]
COLUMNS = 1024
"""Neighbouring lines that are smoothed together, so that they stay in the cache."""


def gaussian_kernel(sigma: float) -> Float32:
    """Return the weights of a Gaussian of `sigma` voxels, cut at 4 sigma, their sum 1."""
    radius = int(4 * sigma + 0.5)
    weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    weights /= weights.sum()
    return np.asarray(weights, np.float32)


@compiled
def smooth_volume(volume: Float32, kernel: Float32, result: Float32) -> None:
    """Fill `result` with `volume` (D, H, W) correlated with `kernel` along each axis."""
    depth, height, width = volume.shape
    smoothed = np.empty((height, width), np.float32)
    across = np.empty(volume.shape, np.float32)
    for z in range(depth):
        smooth_lines(volume[z], kernel, smoothed)
        smooth_rows(smoothed, kernel, across[z])
    smooth_lines(across.reshape(depth, -1), kernel, result.reshape(depth, -1))


@compiled
def smooth_rows(rows: Float32, kernel: Float32, result: Float32) -> None:
    """Fill `result` with `rows` (M, N) correlated with `kernel` along N, ends reflected."""
    n, radius = rows.shape[1], len(kernel) // 2
    longer = np.empty(n + 2 * radius, np.float32)
    for i in range(len(rows)):
        for end in range(radius):
            longer[end] = rows[i, reflected(end - radius, n)]
            longer[radius + n + end] = rows[i, reflected(n + end, n)]
        target = result[i]
        for j in range(n):
            longer[radius + j] = rows[i, j]
            target[j] = 0
        for t in range(len(kernel)):
            weight, some = kernel[t], longer[t : t + n]
            for j in range(n):
                target[j] += weight * some[j]


@compiled
def smooth_lines(lines: Float32, kernel: Float32, result: Float32) -> None:
    """Fill `result` with `lines` (N, M) correlated with `kernel` along N, ends reflected."""
    n, m = lines.shape
    radius = len(kernel) // 2
    for start in range(0, m, COLUMNS):
        stop = min(start + COLUMNS, m)
        for i in range(n):
            target = result[i]
            target[start:stop] = 0
            for t in range(len(kernel)):
                weight, source = kernel[t], lines[reflected(i + t - radius, n)]
                for j in range(start, stop):
                    target[j] += weight * source[j]


@compiled
def reflected(index: int, length: int) -> int:
    """Return where sample `index` lies when the line is reflected just beyond its end samples."""
    index = index % (2 * length)
    return index if index < length else 2 * length - 1 - index
