from __future__ import annotations

import numpy as np
import pytest

from nnunetlike.preprocessing.splines import resize_depth, resize_planes, ruler

OPEN = np.array([0, 0, -np.inf, np.inf])


def resized(line: np.ndarray, new: int, order: int, frame: np.ndarray = OPEN) -> np.ndarray:
    out = np.empty((new, 1))
    resize_depth(line.reshape(-1, 1), out, ruler(len(line), new, order, line.dtype), frame)
    return out.ravel()


@pytest.mark.parametrize("order", [1, 3])
def test_splines_go_through_the_voxels(order: int) -> None:
    line = np.random.default_rng(0).normal(size=9)
    np.testing.assert_allclose(resized(line, 9, order), line, atol=1e-12)
    # of three new voxels per old one the middle lies on it
    np.testing.assert_allclose(resized(line, 27, order)[1::3], line, atol=1e-12)


def test_cubics_reproduce_a_parabola_far_from_the_ends() -> None:
    x = np.arange(80.0)
    found = resized((x - 40) ** 2, 160, 3)
    centres = (np.arange(160) + 0.5) / 2 - 0.5
    np.testing.assert_allclose(found[60:100], ((centres - 40) ** 2)[60:100], atol=1e-9)


def test_the_frame_shifts_and_clips() -> None:
    frame = np.array([10.0, 100.0, 95.0, 101.0])
    assert resized(np.array([0.0, 10, 20]), 3, 1, frame).tolist() == [95, 100, 101]


@pytest.mark.parametrize("shape", [(5, 9), (7, 4), (5, 4), (11, 17)])
def test_planes_equal_their_two_axes_one_by_one(shape: tuple[int, int]) -> None:
    planes = np.random.default_rng(1).normal(size=(3, 5, 4))
    out = np.empty((4, *shape))
    down, across = (ruler(o, n, 3, np.float64) for o, n in zip((5, 4), shape, strict=True))
    frames = np.tile(OPEN, (3, 1))
    resize_planes(planes, out, np.array([2, 0, 0, 1]), down, across, frames)
    for shown, index in zip(out, (2, 0, 0, 1), strict=True):
        tall = np.stack([resized(column, shape[0], 3) for column in planes[index].T], axis=1)
        expected = np.stack([resized(row, shape[1], 3) for row in tall])
        np.testing.assert_allclose(shown, expected, atol=1e-12)
