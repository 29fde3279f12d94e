from __future__ import annotations

import numpy as np
import pytest

from nnunetlike.data.doctor.grids import compare, displacement
from nnunetlike.data.geometry import Geometry

GRID = Geometry(shape=(3, 10, 20), spacing=(5.0, 1.0, 0.5))


def moved(**changes: object) -> Geometry:
    values = {"shape": GRID.shape, "spacing": GRID.spacing} | changes
    return Geometry(**values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("origin", "voxels"), [((1.0, 0.0, 0.0), 2.0), ((0.0, 1.0, 0.0), 1.0), ((0.0, 0.0, 1.0), 0.2)]
)
def test_an_origin_is_off_by_its_distance_in_voxels(
    origin: tuple[float, float, float], voxels: float
) -> None:
    assert displacement(moved(origin=origin), GRID) == pytest.approx(voxels)


def test_a_spacing_counts_at_the_far_corner() -> None:
    assert displacement(moved(spacing=(5.0, 1.0, 0.55)), GRID) == pytest.approx(19 * 0.1)


def test_a_rotation_counts_at_the_far_corner() -> None:
    angle = 1e-3
    turned = (np.cos(angle), -np.sin(angle), 0, np.sin(angle), np.cos(angle), 0, 0, 0, 1)
    assert displacement(moved(direction=turned), GRID) == pytest.approx(9e-3 / 0.5, rel=1e-2)


def test_equal_grids_do_not_differ() -> None:
    assert compare(moved(origin=(1e-9, 0.0, 0.0)), GRID) is None
