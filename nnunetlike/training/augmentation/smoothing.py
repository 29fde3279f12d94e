"""Gaussian blur of a patch, one axis after the other. Axes: D, H, W; lines are (N, M), along N."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from nnunetlike.core.compiled import compiled
from nnunetlike.training.augmentation.interpolation import transpose_into

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
    first, second = np.empty((height, width), np.float32), np.empty((height, width), np.float32)
    turned, smoothed = np.empty((width, height), np.float32), np.empty((width, height), np.float32)
    across = np.empty((depth, height * width), np.float32)
    for z in range(depth):
        first[:] = volume[z]
        smooth_lines(first, kernel, second)
        transpose_into(second, turned)
        smooth_lines(turned, kernel, smoothed)
        transpose_into(smoothed, across[z].reshape(height, width))
    smooth_lines(across, kernel, result.reshape(depth, height * width))


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
