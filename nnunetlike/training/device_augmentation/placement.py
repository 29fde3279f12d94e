"""Patches rotated and scaled by torch: `training.augmentation.spatial.resample` on a device.

Positions are computed in double precision in the order of the loops for the CPU, so that labels are
the same, and nothing is read back from the device. Only rotations gather; a scaling is a product of
matrices.

Axes: L slices or channels, then two or three spatial axes; n points of the patch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from math import prod

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from nnunetlike.core.typing import Size
from nnunetlike.preprocessing.banded import Banded, spline_matrix, stretch_matrix
from nnunetlike.training.augmentation.spatial import Affine
from nnunetlike.training.device_augmentation.orders import PatchOrder

POINTS = 2**19
"""Points that are gathered together, which bounds the memory beside source and result."""

BYTES_PER_POINT = 800
"""Scratch of a point: 64 taps twice and where they lie, or eight corners in double precision."""

CUBIC = np.array([[1, -3, 3, -1], [4, 0, -6, 3], [1, 3, 3, -3], [0, 0, 0, 1]], np.float64)
"""Coefficients of the four B-spline weights, times six, by powers of the distance."""


@dataclass(frozen=True)
class _Map:
    """An affine map from a patch into the block that was read."""

    matrix: npt.NDArray[np.float64]
    start: npt.NDArray[np.float64]
    """Position of the patch's first voxel in the whole source."""

    last: tuple[int, ...]
    origin: tuple[int, ...]

    @classmethod
    def of(cls, affine: Affine, order: PatchOrder) -> _Map:
        """Return the map of the last axes of an order, as many as the rotation has."""
        matrix = affine.matrix
        axes = len(matrix)
        whole = np.array(order.source[-axes:])
        start = (whole - 1) / 2 - matrix @ ((np.array(order.patch_size[-axes:]) - 1) / 2)
        return cls(matrix, start, tuple(int(n) - 1 for n in whole), tuple(order.origin[-axes:]))


def placed(image: Tensor, label: Tensor, order: PatchOrder) -> tuple[Tensor, Tensor]:
    """Return a patch and its label, rotated and scaled as ordered, or the block as it is.

    Args:
        image: block that was read, (C, *block) float32.
        label: (*block) int16.
        order: with the affine map, and where the block lies.

    Returns:
        (C, *patch) and (*patch).
    """
    affine = order.changes.affine
    if affine is None:
        return image, label
    at = _Map.of(affine, order)
    axes = len(at.last)
    inner = order.patch_size[-axes:]
    slices, labels = (a.reshape(-1, *a.shape[-axes:]) for a in (image, label))
    if any(affine.angles):
        new_image = _gathered(slices, at, inner)
    else:
        new_image = _stretched(slices, at, inner)
    new_label = _labels(labels, at, inner)
    return new_image.view(len(image), *order.patch_size), new_label.view(order.patch_size)


def _stretched(slices: Tensor, at: _Map, inner: Size) -> Tensor:
    """Return (L, *block) scaled to (L, *inner), one axis after the other."""
    for axis, length in enumerate(inner):
        old = slices.shape[axis + 1]
        where = at.start[axis] + at.matrix[axis, axis] * np.arange(length)
        inside = (where >= 0) & (where <= at.last[axis])
        first = np.where(inside, np.floor(where), at.origin[axis]).astype(np.int64)
        t = (where - first).astype(np.float32).astype(np.float64)
        powers = np.stack([np.ones_like(t), t, t * t, t * t * t])
        weights = (CUBIC @ powers).T * inside[:, None]
        matrix = stretch_matrix(old, first - at.origin[axis], weights)
        slices = Banded.of(matrix, slices.device).along(slices, axis + 1)
    return slices


def _gathered(slices: Tensor, at: _Map, inner: Size) -> Tensor:
    """Return (L, *block) at all points of a patch, (L, *inner)."""
    for axis, length in enumerate(slices.shape[1:]):
        slices = Banded.of(spline_matrix(length), slices.device).along(slices, axis + 1)
    steps, flat = _steps(slices.shape[1:]), slices.reshape(len(slices), -1)
    rows = _offsets(steps[:-1], 4, slices.device)
    fours = flat.unfold(1, 4, 1)  # the taps along the last axis lie side by side
    result = slices.new_empty(len(slices), prod(inner))
    for begin, position in _points(at, inner, slices):
        inside, first, rest = _split(position, at)
        *others, along = (_cubic_weights(t.float()) for t in rest)
        values = fours[:, _index(first, steps)[:, None] + rows]
        summed = (values * along[:, None]).sum(-1) * _outer(others)
        result[:, begin : begin + len(inside)] = summed.sum(-1).masked_fill_(~inside, 0)
    return result


def _labels(labels: Tensor, at: _Map, inner: Size) -> Tensor:
    """Return for each slice (L, *block) the labels that hold half of the corners, (L, *inner).

    The largest label of those; 0 where none does, and outside.
    """
    padded = labels
    for axis, length in enumerate(labels.shape[1:], start=1):  # the last voxel is its own neighbour
        once_more = torch.arange(length + 1, device=labels.device).clamp_(max=length - 1)
        padded = padded.index_select(axis, once_more)
    steps, flat = _steps(padded.shape[1:]), padded.reshape(len(labels), -1)
    around = _offsets(steps, 2, labels.device)
    lowest = torch.iinfo(labels.dtype).min
    result = labels.new_zeros(len(labels), prod(inner))
    for begin, position in _points(at, inner, labels):
        inside, first, rest = _split(position, at)
        corners = flat[:, _index(first, steps)[:, None] + around]
        weights = _outer([torch.stack([1 - t, t], dim=-1) for t in rest])
        held = torch.zeros(corners.shape, dtype=torch.float64, device=labels.device)
        for corner in range(len(around)):  # one after another, as the order of a sum decides ties
            held += (corners == corners[..., corner, None]) * weights[:, corner, None]
        winner = corners.masked_fill(held < 0.5, lowest).amax(-1)
        winner.masked_fill_((winner == lowest) | ~inside, 0)
        result[:, begin : begin + len(inside)] = winner
    return result


def _steps(sizes: Sequence[int]) -> list[int]:
    """Return how many entries lie from one voxel to the next along each axis."""
    return [prod(sizes[axis + 1 :]) for axis in range(len(sizes))]


def _offsets(steps: Sequence[int], count: int, device: torch.device) -> Tensor:
    """Return where `count` taps along each axis lie, the last axis fastest."""
    taps = [torch.arange(count, device=device) * step for step in steps]
    return reduce(lambda before, one: (before[:, None] + one).flatten(), taps)


def _index(first: Sequence[Tensor], steps: Sequence[int]) -> Tensor:
    """Return the entry of each voxel, given by axis."""
    return reduce(torch.add, [f * step for f, step in zip(first, steps, strict=True)])


def _outer(weights: Sequence[Tensor]) -> Tensor:
    """Return the products of weights (n, m) of several axes, (n, m^axes), the last axis fastest."""
    return reduce(lambda before, one: (before[..., None] * one[:, None]).flatten(1), weights)


def _points(at: _Map, inner: Size, slices: Tensor) -> Iterator[tuple[int, list[Tensor]]]:
    """Yield the number of a first point, and the positions of it and those that follow by axis.

    The sums are those of `interpolation.locate_row` and `gather_slices`, in their order. All
    `slices` (L, *block) have the same points, so the more there are, the fewer at a time.
    """
    total, most = prod(inner), max(1, POINTS // len(slices))
    for begin in range(0, total, most):
        number = torch.arange(begin, min(begin + most, total), device=slices.device)
        index: list[Tensor] = []
        for length in reversed(inner):
            index.insert(0, (number % length).double())
            number = number // length
        yield (
            begin,
            [
                reduce(torch.add, [i * float(s) for i, s in zip(index, row, strict=True)])
                + float(begin_at)
                for row, begin_at in zip(at.matrix, at.start, strict=True)
            ],
        )


def _split(position: Sequence[Tensor], at: _Map) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Return which points lie inside, the voxel of the block before each, and the distance to it.

    Points outside are thought to lie at the block's first voxel.
    """
    inside = reduce(
        torch.logical_and,
        [(p >= 0) & (p <= last) for p, last in zip(position, at.last, strict=True)],
    )
    whole = [torch.where(inside, p.floor(), o) for p, o in zip(position, at.origin, strict=True)]
    first = [w.long() - o for w, o in zip(whole, at.origin, strict=True)]
    return inside, first, [p - w for p, w in zip(position, whole, strict=True)]


def _cubic_weights(t: Tensor) -> Tensor:
    """Return the four B-spline weights, times six, at distances (n,) behind a sample: (n, 4)."""
    rest = 1 - t
    a, d = rest * rest * rest, t * t * t
    b = 4 - 6 * t * t + 3 * d
    return torch.stack([a, b, 6 - a - b - d, d], dim=-1)
