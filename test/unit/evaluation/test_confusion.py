from __future__ import annotations

import numpy as np
import pytest

from nnunetlike.core.errors import ShapeError
from nnunetlike.evaluation.confusion import Counts, confusion


def test_counts_of_four_voxels_are_those_counted_by_hand() -> None:
    reference = np.array([[[0, 1], [1, 2]]], np.uint8)
    prediction = np.array([[[1, 1], [0, 2]]], np.uint8)
    found = confusion(reference, prediction, [0, 1, 2])
    assert found.matrix[:3, :3].tolist() == [[0, 1, 0], [1, 1, 0], [0, 0, 1]]
    assert found.counts([1]) == Counts(tp=1, fp=1, fn=1, tn=1)
    assert found.counts([1, 2]) == Counts(tp=2, fp=1, fn=1, tn=0)


def test_values_nobody_asked_for_count_as_others() -> None:
    reference = np.array([[[7, 200, 3]]], np.uint8)
    prediction = np.array([[[7, 3, 200]]], np.uint8)
    assert confusion(reference, prediction, [7]).counts([7]) == Counts(tp=1, fp=0, fn=0, tn=2)


@pytest.mark.parametrize("kinds", [("uint8", "int16"), ("int64", "uint16"), ("int8", "int8")])
def test_integer_types_may_differ_and_labels_be_negative(kinds: tuple[str, str]) -> None:
    reference = np.array([[[-1, 2, 2]]]).astype(kinds[0])
    prediction = np.array([[[0, 2, 1]]]).astype(kinds[1])
    assert confusion(reference, prediction, [2, -1]).counts([2]) == Counts(1, 0, 1, 1)


def test_strided_views_count_as_their_copies_do() -> None:
    rng = np.random.default_rng(0)
    reference = rng.integers(0, 3, (4, 6, 5)).astype(np.uint8)
    prediction = rng.integers(0, 3, (4, 6, 5)).astype(np.uint8)
    turned = confusion(reference.T[::2], prediction.T[::2], [0, 1, 2]).matrix
    copied = confusion(reference.T[::2].copy(), prediction.T[::2].copy(), [0, 1, 2]).matrix
    assert np.array_equal(turned, copied)


def test_different_shapes_are_refused_with_both() -> None:
    with pytest.raises(ShapeError, match=r"\(1, 2, 2\).*\(1, 2, 3\)"):
        confusion(np.zeros((1, 2, 3), np.uint8), np.zeros((1, 2, 2), np.uint8), [1])
