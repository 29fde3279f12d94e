"""Linear maps along an axis as products of small matrices: what a GPU is good at.

Interpolating splines, blurring and resizing are matrices whose entries vanish away from the
diagonal. Blocks of 64 results and the inputs they depend on are multiplied; the rest is left out.

Axes: n samples before, m after. Matrices are made in double precision.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from scipy.linalg import solve_banded
from torch import Tensor

from nnunetlike.preprocessing.taps import cubic_taps

Matrix = npt.NDArray[np.float64]
ROWS = 64
"""Results of a block."""

NEGLIGIBLE = 1e-8
"""Entries up to this size are left out."""

PADDING = 24
"""Repeated end samples, after which the pole √3 - 2 has no effect (2e-14)."""


@dataclass(frozen=True)
class Banded:
    """A matrix (m, n) as blocks on a device.

    Args:
        rows: m.
        blocks: for each the first row, the first column, and the entries.
    """

    rows: int
    blocks: tuple[tuple[int, int, Tensor], ...]

    @classmethod
    def of(cls, matrix: Matrix, device: torch.device) -> Banded:
        """Return a matrix (m, n) in single precision on a device."""
        blocks = []
        for row in range(0, len(matrix), ROWS):
            some = matrix[row : row + ROWS]
            columns = np.flatnonzero((np.abs(some) > NEGLIGIBLE).any(axis=0))
            first, stop = (columns[0], columns[-1] + 1) if len(columns) else (0, 1)
            entries = torch.from_numpy(np.ascontiguousarray(some[:, first:stop], np.float32))
            blocks.append((row, int(first), entries.to(device, non_blocking=True)))
        return cls(len(matrix), tuple(blocks))

    def along(self, values: Tensor, axis: int) -> Tensor:
        """Return float32 `values`, with m entries in place of n along an axis."""
        before, after = values.shape[:axis], values.shape[axis + 1 :]
        source = values.reshape(before.numel(), values.shape[axis], after.numel())
        result = values.new_empty(len(source), self.rows, source.shape[2])
        for row, column, entries in self.blocks:
            part = source[:, column : column + entries.shape[1]]
            target = result[:, row : row + len(entries)]
            if part.shape[2] == 1:
                target[:, :, 0] = part[:, :, 0] @ entries.T
            else:
                target[:] = torch.bmm(entries.expand(len(part), -1, -1), part)
        return result.reshape(*before, self.rows, *after)


@lru_cache(maxsize=64)
def resize_matrix(old: int, new: int) -> Matrix:
    """Return how an axis of `old` samples becomes one of `new` by cubic splines.

    End samples are repeated outwards.

    Source: Unser, Aldroubi and Eden, "B-spline signal processing: Part I—theory",
    IEEE Transactions on Signal Processing 41(2), 1993.
    """
    samples = np.arange(old + 2 * PADDING)
    repeated = np.zeros((len(samples), old))
    repeated[samples, np.clip(samples - PADDING, 0, old - 1)] = 6
    coefficients = _interpolating(repeated, end=5.0, beside=1.0)
    taps = cubic_taps(old, new)
    return _weighted(coefficients, taps.first + PADDING - 2, taps.weights / 6)


@lru_cache(maxsize=64)
def spline_matrix(length: int) -> Matrix:
    """Return how samples become coefficients of cubic B-splines, over six, ends mirrored.

    Returns:
        (length + 3, length): one mirrored coefficient in front and two behind.

    Source: Unser, Aldroubi and Eden, see `resize_matrix`.
    """
    if length == 1:
        return np.full((4, 1), 1 / 6)
    ends = np.pad(np.arange(length), (1, 2), "reflect")
    return np.asarray(_interpolating(np.eye(length), end=4.0, beside=2.0)[ends])


def stretch_matrix(length: int, first: npt.NDArray[np.int64], weights: Matrix) -> Matrix:
    """Return the spline through `length` samples at some points, whose weights are times six.

    Args:
        length: n.
        first: for each point the first of its four coefficients, see `spline_matrix`.
        weights: (m, 4).
    """
    return _weighted(spline_matrix(length), first, weights)


def blur_matrix(length: int, kernel: npt.NDArray[np.float32]) -> Matrix:
    """Return the correlation with a kernel of odd length, ends reflected about the borders."""
    radius = len(kernel) // 2
    source = np.pad(np.arange(length), radius, "symmetric")
    matrix = np.zeros((length, length))
    for tap, weight in enumerate(kernel):
        np.add.at(matrix, (np.arange(length), source[tap : tap + length]), weight)
    return matrix


def _interpolating(samples: Matrix, *, end: float, beside: float) -> Matrix:
    """Return the coefficients, over six, of splines through the columns of `samples`.

    Args:
        samples: (n, k), n > 1.
        end: entry of the first and last diagonal, by which the ends go on.
        beside: and of their neighbours.
    """
    bands = np.ones((3, len(samples)))
    bands[1] = 4
    bands[1, [0, -1]] = end
    bands[0, 1] = bands[2, -2] = beside
    return np.asarray(solve_banded((1, 1), bands, samples))


def _weighted(coefficients: Matrix, first: npt.NDArray[np.int64], weights: Matrix) -> Matrix:
    """Return for each row of `weights` (m, 4) the sum of four rows of `coefficients`."""
    return np.asarray(sum(weights[:, k, None] * coefficients[first + k] for k in range(4)))
