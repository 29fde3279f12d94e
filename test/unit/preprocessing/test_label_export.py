from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from nnunetlike.core.errors import ShapeError
from nnunetlike.preprocessing.label_export import resampled_argmax


def test_a_class_that_wins_no_voxel_can_win_between_two() -> None:
    values = np.array([[0.6, 0.0], [0.0, 0.6], [0.4, 0.4]], np.float32).reshape(3, 1, 1, 2)
    assert resampled_argmax(values, (1, 1, 3)).ravel().tolist() == [0, 2, 1]


def test_equal_classes_give_the_lowest() -> None:
    values = np.full((3, 2, 2, 2), 1 / 3, np.float32)
    assert not resampled_argmax(values, (3, 3, 3)).any()
    between = np.array([[1, 0], [0, 1]], np.float32).reshape(2, 1, 1, 2)
    assert resampled_argmax(between, (1, 1, 3)).ravel().tolist() == [0, 0, 1]


def test_a_region_needs_more_than_one_half_and_the_last_one_wins() -> None:
    values = np.array([[0.9, 0.9, 0.5], [0.1, 0.9, 0.5]], np.float32).reshape(2, 1, 1, 3)
    found = resampled_argmax(values, (1, 1, 3), regions=[4, 2])
    assert found.ravel().tolist() == [4, 2, 0]


@pytest.mark.parametrize("order", [1, 3])
def test_labels_above_255_need_sixteen_bits(order: int) -> None:
    values = np.ones((1, 2, 2, 2), np.float32)
    assert resampled_argmax(values, (3, 2, 2), order=order).dtype == np.uint8
    found = resampled_argmax(values, (3, 2, 2), order=order, regions=[300])
    assert found.dtype == np.uint16 and np.all(found == 300)
    many = np.zeros((257, 1, 1, 1), np.float32)
    many[256] = 1
    assert np.all(resampled_argmax(many, (2, 1, 1), order=order) == 256)


def test_transposed_views_are_read_as_they_are() -> None:
    values = np.random.default_rng(0).random((3, 4, 5, 6), np.float32)
    view = np.ascontiguousarray(values.transpose(0, 3, 1, 2)).transpose(0, 2, 3, 1)
    np.testing.assert_array_equal(
        resampled_argmax(view, (6, 7, 8), axis=1), resampled_argmax(values, (6, 7, 8), axis=1)
    )


def test_memory_holds_two_slices_and_the_result_whatever_the_classes() -> None:
    values = np.random.default_rng(0).random((40, 16, 20, 20), np.float32)
    resampled_argmax(values[:2], (2, 2, 2))
    tracemalloc.start()
    found = resampled_argmax(values, (24, 30, 30))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 3 * values[:, 0].nbytes + 2 * found.nbytes + 100_000


def test_each_channel_needs_its_region() -> None:
    with pytest.raises(ShapeError, match="1 region labels for 2 channels"):
        resampled_argmax(np.zeros((2, 1, 1, 1), np.float32), (2, 2, 2), regions=[1])
    with pytest.raises(ShapeError, match="K, D, H, W"):
        resampled_argmax(np.zeros((2, 1, 1), np.float32), (2, 2, 2))
