from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnunetlike.evaluation.frame_surface import outline, surface_score


def square(top: int, left: int, size: int = 20, shape: tuple[int, int] = (64, 64)) -> Any:
    mask = np.zeros(shape, bool)
    mask[top : top + size, left : left + size] = True
    return mask


def brute_force(a: Any, b: Any, spacing: tuple[float, float]) -> tuple[float, float]:
    """Every distance between outlines found pixel by pixel, without a distance transform."""

    def points(mask: Any) -> Any:
        found = []
        for y, x in np.argwhere(mask):
            around = [(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]
            inside = [0 <= i < mask.shape[0] and 0 <= j < mask.shape[1] for i, j in around]
            if not all(
                ok and mask[place] for ok, place in zip(inside, map(tuple, around), strict=True)
            ):
                found.append((y * spacing[0], x * spacing[1]))
        return np.array(found)

    def directed(here: Any, there: Any) -> list[float]:
        return [min(math.dist(p, q) for q in there) for p in here]

    def percentile(values: list[float]) -> float:
        values = sorted(values)
        at = 0.95 * (len(values) - 1)
        low = math.floor(at)
        high = min(low + 1, len(values) - 1)
        return values[low] + (at - low) * (values[high] - values[low])

    p, q = points(a), points(b)
    there, back = directed(p, q), directed(q, p)
    mean = sum(there + back) / (len(there) + len(back))
    return max(percentile(there), percentile(back)), mean


@pytest.mark.parametrize(("shift", "hd95"), [((10, 0), 5.0), ((0, 10), 2.5)])
def test_20_shifted_squares_are_as_far_apart_as_the_spacing_of_their_axis_says(
    shift: tuple[int, int], hd95: float
) -> None:
    found = surface_score(square(20, 20), square(20 + shift[0], 20 + shift[1]), (0.5, 0.25))
    assert found.hd95 == pytest.approx(hd95, abs=1e-12)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    spacing=st.tuples(st.sampled_from([0.25, 1.0, 1.3]), st.sampled_from([0.5, 1.0])),
    density=st.sampled_from([0.02, 0.3, 0.9]),
)
def test_23_distances_equal_those_of_brute_force(
    seed: int, spacing: tuple[float, float], density: float
) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.random((2, 13, 17)) < density
    a[rng.integers(13), rng.integers(17)] = b[rng.integers(13), rng.integers(17)] = True
    assert surface_score(a, b, spacing) == pytest.approx(brute_force(a, b, spacing), abs=1e-9)


def test_distances_by_hand_two_pixels_against_one() -> None:
    a, b = np.zeros((2, 5, 9), bool)
    a[2, [1, 8]] = True
    b[2, 1] = True
    found = surface_score(a, b, (1.0, 1.0))
    # From a to b 0 and 7, from b to a 0: percentile 0.95 x 7, pooled mean 7 / 3.
    assert found == pytest.approx((6.65, 7 / 3), abs=1e-12)


def test_e14_an_empty_mask_is_the_diagonal_away_and_not_0() -> None:
    empty, full = np.zeros((30, 40), bool), square(5, 5, shape=(30, 40))
    for pair in ((empty, full), (full, empty)):
        assert surface_score(*pair, (1.0, 1.0)) == (50.0, 50.0)
    assert surface_score(full, empty, (2.0, 2.0)).asd == 100.0


def test_e14_the_percentile_is_95_and_not_the_largest_distance() -> None:
    a = square(20, 20)
    b = a.copy()
    b[0, 0] = True  # one pixel far away
    assert surface_score(a, b, (1.0, 1.0)).hd95 == 0
    assert brute_force(a, b, (1.0, 1.0))[0] == 0


def test_23_two_empty_masks_have_no_distance() -> None:
    empty = np.zeros((8, 8), bool)
    assert all(math.isnan(value) for value in surface_score(empty, empty, (1.0, 1.0)))


def test_equal_masks_have_distance_0_even_at_the_border() -> None:
    full = np.ones((6, 7), bool)
    assert surface_score(full, full, (1.0, 1.0)) == (0.0, 0.0)
    assert outline(full).sum() == 2 * (6 + 7) - 4


def test_swapping_the_masks_changes_nothing() -> None:
    a, b = square(3, 5, 8), square(9, 30, 15)
    assert surface_score(a, b, (0.7, 0.3)) == pytest.approx(surface_score(b, a, (0.7, 0.3)))
