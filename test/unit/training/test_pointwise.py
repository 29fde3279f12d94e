from __future__ import annotations

import numpy as np
import pytest

from nnunetlike.training.augmentation.pointwise import BLOCK, LANES, pick, reverse, statistics


@pytest.mark.parametrize("count", [1, LANES - 1, LANES, BLOCK, 3 * BLOCK + LANES + 5])
@pytest.mark.parametrize("offset", [0, -300])
def test_statistics_are_those_of_numpy(count: int, offset: float) -> None:
    values = (np.random.RandomState(count).standard_normal(count) + offset).astype(np.float32)
    low, high, mean, deviation = statistics(values)
    assert (low, high) == (values.min(), values.max())
    assert mean == pytest.approx(values.mean(dtype=np.float64), rel=1e-8, abs=1e-7)
    assert deviation == pytest.approx(values.std(dtype=np.float64), rel=1e-6)


def test_the_deviation_of_a_constant_is_0() -> None:
    assert statistics(np.full(1000, -7.3, np.float32)).deviation == 0


@pytest.mark.parametrize("flipped", [(False,) * 3, (True, False, True), (False, True, False)])
def test_volumes_are_reversed(flipped: tuple[bool, bool, bool]) -> None:
    volume = np.arange(2 * 3 * 5).reshape(2, 3, 5)
    found = np.empty((2, 3, 5), np.float32)
    reverse(volume, flipped, found)
    assert np.array_equal(found, np.flip(volume, [a for a in range(3) if flipped[a]]))


def test_picked_voxels_are_those_at_the_crossings() -> None:
    volume = np.random.RandomState(0).random_sample((4, 5, 6)).astype(np.float32)
    places = np.array([0, 3]), np.array([1, 1, 4]), np.array([5])
    found = np.empty((2, 3, 1), np.float32)
    pick(volume, *places, found)
    assert np.array_equal(found, volume[np.ix_(*places)])
