"""Seeded images, label maps and probabilities that look enough like real ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.spatial import KDTree

Array = npt.NDArray[Any]


def image(rng: np.random.Generator, shape: Sequence[int], channels: int = 1) -> Array:
    """Return smooth structure with noise, (C, *shape) float32, some hundred units wide."""
    out = np.empty((channels, *shape), np.float32)
    for channel in out:
        noise = rng.standard_normal(shape, np.float32)
        ndimage.uniform_filter(noise, 9, output=channel)
        channel *= 2000
        channel += 20 * rng.standard_normal(shape, np.float32)
    return out


def labels(
    rng: np.random.Generator, shape: Sequence[int], count: int, *, background: bool = True
) -> Array:
    """Return cells of `count` labels (Voronoi), uint8; with 0 around them and between some."""
    step = 2 if np.prod(shape) < 10**7 else 4
    coarse = [-(-n // step) for n in shape]
    seeds = rng.random((max(3 * count, 12), 3)) * coarse
    of_seed = np.resize(np.arange(0 if background else 1, count + 1), len(seeds))
    grid = np.stack(np.meshgrid(*map(np.arange, coarse), indexing="ij"), axis=-1)
    _, nearest = KDTree(seeds).query(grid.reshape(-1, 3), workers=1)
    cells = of_seed[nearest].reshape(coarse)
    if background:
        middle = (np.array(coarse) - 1) / 2
        cells[(((grid - middle) / (0.48 * np.array(coarse))) ** 2).sum(-1) > 1] = 0
    for axis in range(3):
        cells = cells.repeat(step, axis)
    return np.ascontiguousarray(cells[tuple(slice(n) for n in shape)], np.uint8)


def probabilities(rng: np.random.Generator, shape: Sequence[int], classes: int) -> Array:
    """Return smooth probabilities (K, *shape) float32 of cells, that sum to 1."""
    cells = labels(rng, shape, classes - 1)
    out = np.empty((classes, *shape), np.float32)
    for value, channel in enumerate(out):
        ndimage.uniform_filter((cells == value).astype(np.float32), 5, output=channel)
        channel += 1e-3 * rng.random(shape, np.float32)
    out /= out.sum(0)
    return out


def fields(rng: np.random.Generator, shape: Sequence[int], classes: int) -> Array:
    """Return probabilities-like channels (K, *shape) float16, cheaply: coarse noise made fine."""
    from nnunetlike.preprocessing.resampling import resample_image

    coarse = rng.random((classes, *(max(2, n // 10) for n in shape)), np.float32)
    out = np.empty((classes, *shape), np.float16)
    for seed, channel in zip(coarse, out, strict=True):
        channel[:] = resample_image(seed[None], shape, order=1)[0]
    return out


def head(rng: np.random.Generator, shape: Sequence[int]) -> Array:
    """Return a stripped brain (1, *shape): zero outside an ellipsoid, with a few zeros inside."""
    grid = np.ogrid[tuple(slice(-1, 1, complex(0, n)) for n in shape)]
    inside = sum((axis / extent) ** 2 for axis, extent in zip(grid, (0.85, 0.8, 0.7), strict=True))
    out = np.where(inside < 1, 100 * rng.random(shape, np.float32) + 1, 0).astype(np.float32)
    out *= rng.random(shape, np.float32) > 1e-3
    return out[None]


def shifted(label: Array, by: int = 2) -> Array:
    """Return a label map that is wrong at its borders, as a prediction is."""
    return np.roll(label, by, axis=(1, 2))
