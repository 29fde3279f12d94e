import numpy as np
import pytest
from scipy import ndimage

from nnunetlike.training.augmentation.coefficients import (
    COLUMNS,
    filter_columns,
    filter_rows,
    slice_coefficients,
    volume_coefficients,
)


def _noise(*shape: int) -> np.ndarray:
    return np.random.RandomState(1).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("length", [1, 2, 3, 11, 60])
def test_rows_are_filtered_as_columns_are(length: int) -> None:
    rows = np.zeros((2 * COLUMNS, -(-length // COLUMNS) * COLUMNS), np.float32)
    rows[:, :length] = _noise(2 * COLUMNS, length)
    columns = np.ascontiguousarray(rows[:, :length].T)
    filter_rows(rows, length, np.zeros((rows.shape[1], COLUMNS), np.float32))
    filter_columns(columns, columns)
    assert np.array_equal(rows[:, :length], columns.T)


def test_columns_are_filtered_in_place_as_into_another_array() -> None:
    columns, found = _noise(7, 2 * COLUMNS), np.empty((7, 2 * COLUMNS), np.float32)
    filter_columns(columns, found)
    filter_columns(columns, columns)
    assert np.array_equal(columns, found)


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 5, 7), (5, 1, 9), (3, 33, 1), (40, 70, 35)])
def test_volumes_of_any_shape_are_filtered(shape: tuple[int, int, int]) -> None:
    image, found = _noise(*shape), np.empty([n + 3 for n in shape], np.float32)
    volume_coefficients(image, found)
    wanted = ndimage.spline_filter(image.astype(np.float64), mode="mirror")
    inside = tuple(slice(1, n + 1) for n in shape)
    np.testing.assert_allclose(216 * found[inside], wanted, atol=1e-5)


@pytest.mark.parametrize("shape", [(9, 10, 11), (5, 2, 30), (2, 41, 3)])
def test_coefficients_of_a_volume_are_those_of_scipy(shape: tuple[int, int, int]) -> None:
    image, found = _noise(*shape), np.empty([n + 3 for n in shape], np.float32)
    volume_coefficients(image, found)
    wanted = ndimage.spline_filter(image.astype(np.float64), mode="mirror")
    inside = tuple(slice(1, n + 1) for n in shape)
    np.testing.assert_allclose(216 * found[inside], wanted, atol=1e-5)


def test_the_border_repeats_mirrored_coefficients() -> None:
    found = np.empty((1, 9, 8), np.float32)
    slice_coefficients(_noise(1, 6, 5), found)
    plane = found[0]
    assert np.array_equal(plane[0], plane[2])
    assert np.array_equal(plane[-2:], plane[[5, 4]])
    assert np.array_equal(plane[:, 0], plane[:, 2])
    assert np.array_equal(plane[:, -2:], plane[:, [4, 3]])
