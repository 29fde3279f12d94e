"""Windows: places and weights derived by hand."""

from __future__ import annotations

import numpy as np
import pytest

from nnunetlike.core.errors import UsageError
from nnunetlike.inference.windows import (
    axis_weights,
    importance_map,
    padded_shape,
    padding,
    window_starts,
)


def test_windows_of_an_axis_are_spread_evenly() -> None:
    assert window_starts(110, 64, 0.5) == [0, 23, 46]


def test_an_axis_as_long_as_the_window_has_one() -> None:
    assert window_starts(64, 64, 0.5) == [0]


@pytest.mark.parametrize("step", [0.0, -0.5, 1.5])
def test_a_step_that_leaves_gaps_is_refused(step: float) -> None:
    with pytest.raises(UsageError, match=r"at most 1"):
        window_starts(110, 64, step)


def test_importance_is_one_at_the_middle_and_falls_with_an_eighth_of_the_window() -> None:
    importance = importance_map((16, 8))
    assert importance[8, 4] == 1
    assert importance[10, 4] == pytest.approx(np.exp(-0.5))  # one deviation
    assert importance[8, 3] == pytest.approx(np.exp(-0.5))


def test_weights_of_a_voxel_add_up_to_one() -> None:
    starts = window_starts(37, 16, 0.5)
    total = np.zeros(37)
    for start, weight in zip(starts, axis_weights(37, 16, starts), strict=True):
        total[start : start + 16] += weight
    assert total == pytest.approx(np.ones(37), abs=1e-6)


def test_weights_without_gaussian_count_windows() -> None:
    assert [w.tolist() for w in axis_weights(3, 2, [0, 1], gaussian=False)] == [[1, 0.5], [0.5, 1]]


def test_an_odd_voxel_of_padding_goes_behind() -> None:
    assert padding((5, 9), (8, 9)) == [(1, 2), (0, 0)]


def test_padding_reaches_the_window_and_then_the_divisor() -> None:
    assert padded_shape((5, 20), (8, 8), (16, 16)) == (16, 32)
