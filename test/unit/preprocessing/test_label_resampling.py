from __future__ import annotations

import numpy as np
import pytest

from nnunetlike.core.errors import ShapeError, UsageError
from nnunetlike.preprocessing.label_resampling import resample_label


def line(*values: int) -> np.ndarray:
    return np.array(values, np.int16).reshape(1, 1, -1)


def test_of_two_labels_with_one_half_each_the_larger_wins() -> None:
    # voxel 1 of 3 lies in the middle of voxels 0 and 1 of 2
    assert resample_label(line(5, 2), (1, 1, 3)).ravel().tolist() == [5, 5, 2]
    assert resample_label(line(-1, 0), (1, 1, 3)).ravel().tolist() == [-1, 0, 0]


def test_where_no_label_holds_one_half_the_voxel_is_background() -> None:
    square = np.array([[[1, 2], [3, 4]]], np.int16)
    assert resample_label(square, (1, 3, 3))[0, 1, 1] == 0


def test_halving_votes_among_pairs() -> None:
    # the new voxels lie between two old ones of weight 1/2 each
    assert resample_label(line(1, 1, 2, 3), (1, 1, 2)).ravel().tolist() == [1, 3]


def test_slices_between_two_labels_are_background_only_when_blended() -> None:
    stack = np.array([3, 1], np.int16).reshape(2, 1, 1)
    nearest = resample_label(stack, (3, 1, 1), axis=0, order_z=0)
    blended = resample_label(stack, (3, 1, 1), axis=0, order_z=1)
    assert nearest.ravel().tolist() == [3, 1, 1]
    assert blended.ravel().tolist() == [3, 0, 1]


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_any_axis_may_be_separate(axis: int) -> None:
    label = np.random.default_rng(3).integers(-1, 4, (4, 5, 6)).astype(np.int16)
    order = (axis, *(i for i in range(3) if i != axis))
    new = (7, 4, 9)
    along_first = resample_label(label.transpose(order), [new[i] for i in order], axis=0)
    found = resample_label(label, new, axis=axis)
    np.testing.assert_array_equal(found.transpose(order), along_first)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16, np.uint16, np.int64])
def test_the_dtype_stays(dtype: type) -> None:
    label = np.array([[[0, 100], [7, 7]]], dtype)
    found = resample_label(label, (1, 4, 4))
    assert found.dtype == dtype and found.max() == 100


def test_cubic_masks_along_a_separate_axis_need_more_than_one_half() -> None:
    stack = np.array([3, 3, 1, 1], np.int16).reshape(4, 1, 1)
    found = resample_label(stack, (8, 1, 1), axis=0, order_z=3)
    assert found.ravel().tolist() == [3, 3, 3, 3, 1, 1, 1, 1]


def test_an_unchanged_shape_returns_the_label_itself() -> None:
    label = np.ones((2, 3, 4), np.int16)
    assert resample_label(label, (2, 3, 4)) is label


def test_unknown_orders_and_shapes_are_refused() -> None:
    with pytest.raises(UsageError, match="order 4"):
        resample_label(line(1), (1, 1, 2), order=4)
    with pytest.raises(ShapeError, match="D, H, W"):
        resample_label(np.ones((2, 2), np.int16), (1, 1, 2))
