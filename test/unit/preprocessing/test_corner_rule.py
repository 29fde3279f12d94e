from __future__ import annotations

import itertools

import numpy as np
import pytest

from nnunetlike.preprocessing.corner_rule import apply_corner_rule
from nnunetlike.preprocessing.taps import LinearTaps, linear_taps


def corner_by_corner(label: np.ndarray, taps: list[LinearTaps]) -> np.ndarray:
    """Add the weight of each corner to the sum of its label, in C order."""
    out = np.zeros([len(axis.low) for axis in taps], label.dtype)
    for place in np.ndindex(*out.shape):
        ends = [
            ((axis.low[i], axis.low_weight[i]), (axis.high[i], axis.high_weight[i]))
            for axis, i in zip(taps, place, strict=True)
        ]
        sums: dict[int, float] = {}
        for (z, wz), (y, wy), (x, wx) in itertools.product(*ends):
            value = int(label[z, y, x])
            sums[value] = sums.get(value, 0.0) + (wz * wy) * wx
        out[place] = max((value for value, total in sums.items() if total >= 0.5), default=0)
    return out


@pytest.mark.parametrize("labels", [1, 2, 3, 9])
@pytest.mark.parametrize("new", [(5, 7, 9), (10, 3, 18), (3, 14, 4), (6, 8, 33), (9, 12, 5)])
@pytest.mark.parametrize("dtype", [np.int16, np.int32])
def test_a_voxel_has_the_largest_label_that_holds_half_of_its_corners(
    labels: int, new: tuple[int, int, int], dtype: type
) -> None:
    random = np.random.default_rng(labels)
    label = np.repeat(random.integers(-1, labels, (5, 7, 3)), 3, axis=2).astype(dtype)
    label[1:3] = label[1, 2, 0]
    taps = [linear_taps(*sides) for sides in zip(label.shape, new, strict=True)]
    out = np.full(new, 99, dtype)
    apply_corner_rule(label, out, *taps)
    np.testing.assert_array_equal(out, corner_by_corner(label, taps))


def test_an_axis_of_one_voxel_is_repeated() -> None:
    out = np.empty((2, 3, 4), np.int16)
    taps = [linear_taps(1, n) for n in out.shape]
    apply_corner_rule(np.full((1, 1, 1), 7, np.int16), out, *taps)
    assert (out == 7).all()
