"""Gaussian blur of a patch, one axis after the other. Axes: D, H, W; lines are (N, M), along N."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from nnunetlike.core.compiled import compiled

Float32: TypeAlias = npt.NDArray[np.float32]
CHUNK = 1024
"""Voxels that are smoothed together, so that sums stay in the cache."""


def gaussian_kernel(sigma: float) -> Float32:
    """Return the weights of a Gaussian of `sigma` voxels, cut at 4 sigma, their sum 1."""
    radius = int(4 * sigma + 0.5)
    weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    weights /= weights.sum()
    return np.asarray(weights, np.float32)


@compiled
def smooth_volume(volume: Float32, kernel: Float32, result: Float32) -> None:
    """Fill `result` with `volume` (D, H, W) correlated with `kernel` along each axis.

    Planes are smoothed one after the other; as many as the kernel has weights are kept, and the
    axis across them follows as soon as it can.
    """
    depth, height, width = volume.shape
    radius, kept = len(kernel) // 2, len(kernel)
    wide = width + 2 * radius
    longer = np.zeros((height + 2 * radius, wide), np.float32)
    ring = np.empty((kept, height * width), np.float32)
    flat = result.reshape(depth, -1)
    for z in range(depth + radius):
        if z < depth:
            reflect_ends(volume[z], radius, longer)
            smooth_plane(longer.reshape(-1), kernel, wide, ring[z % kept].reshape(height, width))
        if z >= radius:
            smooth_across(ring, z - radius, depth, kernel, flat[z - radius])


@compiled
def reflect_ends(plane: Float32, radius: int, longer: Float32) -> None:
    """Fill `longer` with `plane` (H, W), its ends reflected, `radius` more on each side."""
    height, width = plane.shape
    for y in range(-radius, height + radius):
        row, target = plane[reflected(y, height)], longer[y + radius]
        for x in range(width):
            target[radius + x] = row[x]
        for end in range(radius):
            target[end] = row[reflected(end - radius, width)]
            target[radius + width + end] = row[reflected(width + end, width)]


@compiled
def smooth_plane(longer: Float32, kernel: Float32, wide: int, result: Float32) -> None:
    """Fill `result` (H, W) with the smoothed middle of `longer`, flat, in rows of `wide`."""
    height, width = result.shape
    radius = len(kernel) // 2
    rows = max(1, CHUNK // wide)
    down, both = np.empty(rows * wide, np.float32), np.empty(rows * wide, np.float32)
    for y in range(0, height, rows):
        count = min(rows, height - y)
        length = count * wide
        correlate(longer, (y + radius) * wide, wide, kernel, down[:length])
        correlate(down, radius, 1, kernel, both[: length - 2 * radius])
        for i in range(count):
            row, target = both[i * wide : i * wide + width], result[y + i]
            for x in range(width):
                target[x] = row[x]


@compiled
def correlate(values: Float32, start: int, step: int, kernel: Float32, result: Float32) -> None:
    """Fill `result` (N,) with sums of `values` each `step`, the first about `start`.

    What lies between the rows of an image padded on both sides comes out as nonsense.
    """
    n, radius = len(result), len(kernel) // 2
    middle, weight = values[start : start + n], kernel[radius]
    for j in range(n):
        result[j] = weight * middle[j]
    for t in range(1, radius + 1):
        low, high = start - t * step, start + t * step
        add_both(values[low : low + n], values[high : high + n], kernel[radius + t], result)


@compiled
def smooth_across(ring: Float32, z: int, depth: int, kernel: Float32, result: Float32) -> None:
    """Fill `result` (N,) with plane `z` of `depth`, of which `ring` (len(kernel), N) has the last.

    Plane i lies in place i modulo len(kernel).
    """
    kept, radius = len(kernel), len(kernel) // 2
    for start in range(0, len(result), CHUNK):
        stop = min(start + CHUNK, len(result))
        target, middle, weight = result[start:stop], ring[z % kept, start:stop], kernel[radius]
        for j in range(stop - start):
            target[j] = weight * middle[j]
        for t in range(1, radius + 1):
            before = ring[reflected(z - t, depth) % kept, start:stop]
            behind = ring[reflected(z + t, depth) % kept, start:stop]
            add_both(before, behind, kernel[radius + t], target)


@compiled
def add_both(before: Float32, behind: Float32, weight: np.float32, result: Float32) -> None:
    """Add `weight` times the sum of `before` and `behind` to `result`, all (N,)."""
    for j in range(len(result)):
        result[j] += weight * (before[j] + behind[j])


@compiled
def reflected(index: int, length: int) -> int:
    """Return where sample `index` lies when the line is reflected just beyond its end samples."""
    index = index % (2 * length)
    return index if index < length else 2 * length - 1 - index
