"""Where the voxels of a resized axis lie between the voxels of the old one, and with what weight.

Voxel centres of both grids are spread over the same extent: voxel i of m lies at
(i + 1/2)·n/m - 1/2 of n. Beyond the outermost centres the outermost voxel is repeated.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int64]
Weights = npt.NDArray[np.float64]


class LinearTaps(NamedTuple):
    """For each new voxel the two old ones around it and their weights, which add up to 1."""

    low: Indices
    high: Indices
    low_weight: Weights
    high_weight: Weights


class CubicTaps(NamedTuple):
    """For each new voxel the first of four neighbouring coefficients and the four weights (m, 4).

    Index 0 is the coefficient two places before the first voxel.
    """

    first: Indices
    weights: Weights


def positions(old: int, new: int) -> Weights:
    """Return where the centres of `new` voxels lie on an axis of `old` voxels, not clamped."""
    return (np.arange(new, dtype=np.float64) + 0.5) * (old / new) - 0.5


def nearest(old: int, new: int) -> Indices:
    """Return the index of the old voxel nearest to each new one; halves go up."""
    inside = np.clip(positions(old, new), 0, old - 1)
    return np.floor(inside + 0.5).astype(np.int64)


def nearest_taps(old: int, new: int) -> LinearTaps:
    """Return `nearest` in the form of linear taps, with all weight on the one voxel."""
    index = nearest(old, new)
    return LinearTaps(index, index, np.ones(new), np.zeros(new))


def linear_taps(old: int, new: int) -> LinearTaps:
    """Return the taps of linear interpolation; a voxel hit exactly is its own pair.

    The second weight is 1 minus the first as rounded, as SciPy has it, so that a label whose
    weights add up to exactly 1/2 does so here too.
    """
    inside = np.clip(positions(old, new), 0, old - 1)
    low = np.floor(inside).astype(np.int64)
    low_weight = 1.0 - (inside - low)
    high = np.where(low_weight == 1.0, low, np.minimum(low + 1, old - 1))
    return LinearTaps(low, high, low_weight, 1.0 - low_weight)


def cubic_taps(old: int, new: int) -> CubicTaps:
    """Return the taps of the cubic B-spline, six times too heavy.

    The factor 6 is the gain that the prefilter in `splines` leaves out.

    Source: Unser, Aldroubi and Eden, "B-spline signal processing: Part I—theory",
    IEEE Transactions on Signal Processing 41(2), 1993.
    """
    position = positions(old, new)
    below = np.floor(position)
    t = position - below
    weights = np.stack(
        [(1 - t) ** 3, 4 - 6 * t**2 + 3 * t**3, 1 + 3 * t + 3 * t**2 - 3 * t**3, t**3], axis=1
    )
    return CubicTaps(below.astype(np.int64) + 1, weights)
