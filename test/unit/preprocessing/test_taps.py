from __future__ import annotations

import numpy as np
import pytest

from nnunetlike.preprocessing.taps import cubic_taps, linear_taps, nearest, nearest_taps


@pytest.mark.parametrize(("old", "new"), [(1, 4), (5, 5), (7, 3), (3, 8)])
def test_weights_add_up_and_taps_lie_on_the_axis(old: int, new: int) -> None:
    for taps in (linear_taps(old, new), nearest_taps(old, new)):
        np.testing.assert_array_equal(taps.low_weight + taps.high_weight, 1)
        assert taps.low.min() >= 0 and taps.high.max() < old
    cubic = cubic_taps(old, new)
    np.testing.assert_allclose(cubic.weights.sum(axis=1), 6)
    assert cubic.first.min() >= 0 and cubic.first.max() + 3 < old + 4


def test_halving_an_axis_takes_the_upper_of_each_pair() -> None:
    assert nearest(8, 4).tolist() == [1, 3, 5, 7]


def test_a_voxel_hit_exactly_is_its_own_pair() -> None:
    taps = linear_taps(4, 4)
    assert taps.low.tolist() == taps.high.tolist() == [0, 1, 2, 3]
