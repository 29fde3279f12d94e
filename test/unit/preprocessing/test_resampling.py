from __future__ import annotations

import numpy as np
import pytest

from nnunetlike.core.errors import ShapeError, UsageError
from nnunetlike.preprocessing.resampling import resample_image, separate_axis


@pytest.mark.parametrize(
    ("original", "target", "force", "axis"),
    [
        ((3.0, 1.0, 1.0), (1.0, 1.0, 1.0), None, None),  # three times is not more than three
        ((3.1, 1.0, 1.0), (1.0, 1.0, 1.0), None, 0),
        ((1.0, 1.0, 1.0), (1.0, 1.0, 4.0), None, 2),  # the target decides where the original not
        ((1.0, 5.0, 1.0), (1.0, 1.0, 4.0), None, 1),  # the original comes first
        ((0.2, 1.0, 1.0), (1.0, 1.0, 1.0), None, None),  # two coarse axes
        ((5.0, 1.0, 1.0), (5.0, 1.0, 1.0), False, None),
        ((1.1, 1.0, 1.0), (1.0, 1.0, 9.0), True, 0),
        ((1.0, 1.0, 1.0), (1.0, 1.0, 9.0), True, None),
    ],
)
def test_the_separate_axis_is_the_only_one_more_than_three_times_as_coarse(
    original: tuple[float, ...], target: tuple[float, ...], force: bool | None, axis: int | None
) -> None:
    assert separate_axis(original, target, force) == axis


def test_linear_doubling_gives_quarters() -> None:
    line = np.array([0, 4, 8], np.float32).reshape(1, 1, 1, 3)
    assert resample_image(line, (1, 1, 6), order=1).ravel().tolist() == [0, 1, 3, 5, 7, 8]


def test_nearest_halving_takes_the_odd_voxels() -> None:
    line = np.arange(8, dtype=np.float32).reshape(1, 8, 1, 1)
    assert resample_image(line, (4, 1, 1), order=0).ravel().tolist() == [1, 3, 5, 7]


def test_cubics_do_not_leave_the_range_of_the_image() -> None:
    step = np.zeros((1, 1, 1, 12), np.float32)
    step[..., 6:] = 1
    found = resample_image(step, (1, 1, 31))
    assert found.min() == 0 and found.max() == 1


def test_slices_of_a_separate_axis_are_clipped_each_to_its_own_range() -> None:
    image = np.zeros((1, 2, 1, 12), np.float32)
    image[0, 0, 0, 6:] = 1
    image[0, 1, 0, 6:] = 100
    found = resample_image(image, (4, 1, 31), axis=0)
    assert [plane.max() for plane in found[0]] == [1, 1, 100, 100]


def test_an_offset_far_above_the_range_costs_no_precision() -> None:
    random = np.random.default_rng(0)
    image = random.integers(0, 64, (1, 9, 10, 11)).astype(np.float32)
    near = resample_image(image, (13, 9, 17))
    far = resample_image(image + 2.0**16, (13, 9, 17)) - 2.0**16
    np.testing.assert_allclose(far, near, rtol=0, atol=2.0**-7)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int16])
@pytest.mark.parametrize("axis", [None, 0, 1, 2])
def test_the_dtype_stays_and_the_input_is_untouched(dtype: type, axis: int | None) -> None:
    image = np.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5).astype(dtype)
    before = image.copy()
    found = resample_image(image, (5, 5, 3), axis=axis)
    assert found.dtype == dtype and found.shape == (2, 5, 5, 3)
    np.testing.assert_array_equal(image, before)


def test_an_unchanged_shape_returns_the_image_itself() -> None:
    image = np.ones((1, 2, 3, 4), np.float32)
    assert resample_image(image, (2, 3, 4)) is image


def test_missing_values_stay_missing_and_spoil_no_range() -> None:
    image = np.ones((1, 4, 1, 1), np.float32)
    image[0, 3] = np.nan
    found = resample_image(image, (8, 1, 1), order=1).ravel()
    assert found[:4].tolist() == [1, 1, 1, 1] and np.isnan(found[-1])


def test_what_is_not_known_is_refused_by_name() -> None:
    image = np.ones((1, 2, 3, 4), np.float32)
    with pytest.raises(UsageError, match="order 2 is not known"):
        resample_image(image, (3, 3, 3), order=2)
    with pytest.raises(UsageError, match="axis 3"):
        resample_image(image, (3, 3, 3), axis=3)
    with pytest.raises(ShapeError, match="at least one voxel"):
        resample_image(image, (3, 0, 3))
    with pytest.raises(ShapeError, match="C, D, H, W"):
        resample_image(image[0], (3, 3, 3))


@pytest.mark.parametrize("order_z", [1, 3])
def test_more_slices_are_those_of_the_resized_slices(order_z: int) -> None:
    # new slices are written over those they are made of
    image = np.random.default_rng(2).normal(size=(1, 5, 6, 7)).astype(np.float32)
    slices = resample_image(image, (5, 11, 4), axis=0)
    found = resample_image(image, (13, 11, 4), axis=0, order_z=order_z)
    columns = np.asfortranarray(slices)
    expected = resample_image(columns, (13, 11, 4), axis=0, order=0, order_z=order_z)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("axis", [None, 0, 1, 2])
@pytest.mark.parametrize(("order", "order_z"), [(0, 0), (1, 1), (3, 0), (3, 3)])
@pytest.mark.parametrize("shape", [(13, 9, 17), (9, 10, 17), (13, 10, 11), (9, 12, 11)])
def test_in_double_precision_only_the_result_is_rounded(
    axis: int | None, order: int, order_z: int, shape: tuple[int, int, int]
) -> None:
    image = np.random.default_rng(0).normal(1000, 50, (2, 9, 10, 11)).astype(np.float32)
    settings = {"order": order, "axis": axis, "order_z": order_z}
    exact = resample_image(image.astype(np.float64), shape, **settings).astype(np.float32)
    out = np.empty((3, *shape), np.float32)[:-1]
    found = resample_image(image, shape, double=True, out=out, **settings)
    assert found is out and np.array_equal(found, exact)
