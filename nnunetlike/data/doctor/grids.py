"""How far two grids lie apart, in voxels, and whether that matters.

World axes are LPS (x, y, z); array axes are D, H, W.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product

import numpy as np

from nnunetlike.core.typing import FloatArray
from nnunetlike.data.doctor.complaint import (
    BETWEEN_VOXELS,
    OTHER_GRID,
    OTHER_SIZE,
    ROUNDED_GRID,
    Kind,
)
from nnunetlike.data.geometry import Geometry
from nnunetlike.data.orientation import orientation_of

ROUNDING = 0.01
"""Displacement in voxels that is taken for rounding of the header."""

NEAREST = 0.5
"""Displacement in voxels below which the nearest voxels of two grids have the same indices."""


def affine(grid: Geometry) -> FloatArray:
    """Return the 4 x 4 matrix from indices (x, y, z) to world coordinates in mm."""
    matrix = np.eye(4)
    matrix[:3, :3] = np.reshape(grid.direction, (3, 3)) * np.array(grid.itk_spacing)
    matrix[:3, 3] = grid.origin
    return matrix


def displacement(grid: Geometry, reference: Geometry) -> float:
    """Return how far the corners of `grid` lie from where `reference` has them, in its voxels.

    This weighs origin, spacing and direction at once, by what they do to the voxels; the largest
    of all corners and axes is given. Grids of one size are meant.
    """
    depth, height, width = grid.shape
    corners = np.array([(*c, 1) for c in product((0, width - 1), (0, height - 1), (0, depth - 1))])
    there = corners @ (np.linalg.pinv(affine(reference)) @ affine(grid)).T
    return float(np.abs(there - corners).max())


def compare(grid: Geometry, reference: Geometry) -> tuple[Kind, str, str] | None:
    """Return what kind of difference there is, what was found and what was expected.

    Fields that are equal as v1 compares them (`numpy.isclose`) are no difference.
    """
    if grid.shape != reference.shape:
        kind, apart = OTHER_SIZE, ""
    else:
        distance = displacement(grid, reference)
        kind = _kind(distance)
        apart = f", {distance:.2g} voxels apart"
    differences = list(_differences(grid, reference))
    if not differences:
        return None
    found, expected = zip(*differences, strict=True)
    return kind, ", ".join(found) + apart, ", ".join(expected)


def _kind(distance: float) -> Kind:
    if distance <= ROUNDING:
        return ROUNDED_GRID
    return BETWEEN_VOXELS if distance < NEAREST else OTHER_GRID


def _differences(grid: Geometry, reference: Geometry) -> Iterator[tuple[str, str]]:
    """Yield what is found and expected of each field that differs."""
    if grid.shape != reference.shape:
        yield f"{_times(grid.shape)} voxels (D × H × W)", f"{_times(reference.shape)} voxels"
    for name in ("spacing", "origin"):
        found, wanted = getattr(grid, name), getattr(reference, name)
        if not np.isclose(found, wanted).all():
            yield f"{name} {_numbers(found)}", f"{name} {_numbers(wanted)}"
    if not np.isclose(grid.direction, reference.direction).all():
        yield _directions(grid.direction, reference.direction)


def _directions(found: Sequence[float], wanted: Sequence[float]) -> tuple[str, str]:
    """Return what nine numbers each mean: other axes, or the same ones turned by an angle."""
    if orientation_of(found) != orientation_of(wanted):
        return f"axes {orientation_of(found)}", f"axes {orientation_of(wanted)}"
    distance = np.linalg.norm(np.reshape(found, (3, 3)) - np.reshape(wanted, (3, 3)), axis=0).max()
    angle = 2 * np.degrees(np.arcsin(min(distance / 2, 1.0)))
    return f"axes turned by {angle:.2g}°", "the same axes"


def _times(shape: Sequence[int]) -> str:
    return "×".join(map(str, shape))


def _numbers(values: Sequence[float]) -> str:
    return "(" + ", ".join(f"{value:.7g}" for value in values) + ")"
