"""Linear maps as blocks against the same matrices whole, and against other ways to compute them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from nnunetlike.preprocessing.banded import (
    Banded,
    blur_matrix,
    resize_matrix,
    spline_matrix,
    stretch_matrix,
)
from nnunetlike.preprocessing.resampling import resample_image

CPU = torch.device("cpu")


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("size", [(5, 7), (130, 90), (64, 200), (3, 1)])
def test_blocks_give_what_the_whole_matrix_gives(axis, size):
    rng = np.random.default_rng(0)
    m, n = size
    matrix = np.where(
        np.abs(np.arange(m)[:, None] * n / m - np.arange(n)) < 6, rng.normal(size=size), 0
    )
    shape = [4, 5, 6]
    shape[axis] = n
    values = rng.normal(size=shape).astype(np.float32)
    found = Banded.of(matrix, CPU).along(torch.from_numpy(values), axis)
    expected = np.moveaxis(np.tensordot(matrix, values, (1, axis)), 0, axis)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)


def test_blocks_hold_only_what_lies_near_the_diagonal():
    blocks = Banded.of(resize_matrix(500, 1000), CPU).blocks
    assert len(blocks) == 16
    assert max(entries.shape[1] for _, _, entries in blocks) <= 64 // 2 + 32


@pytest.mark.parametrize("sizes", [(9, 20), (20, 9), (1, 5), (5, 1), (33, 34)])
def test_resizing_is_that_of_the_cpu(sizes):
    old, new = sizes
    values = np.random.default_rng(1).normal(size=(1, old, 1, 1))
    expected = resample_image(values, (new, 1, 1))[0, :, 0, 0]
    found = resize_matrix(old, new) @ values[0, :, 0, 0]
    clipped = np.clip(found, values.min(), values.max())
    np.testing.assert_allclose(clipped, expected, atol=1e-12)


@pytest.mark.parametrize("length", [1, 2, 3, 30])
def test_coefficients_are_those_of_a_mirrored_spline(length):
    values = np.random.default_rng(2).normal(size=length)
    expected = ndimage.spline_filter1d(values, 3, mode="mirror") / 6 if length > 1 else values / 6
    found = spline_matrix(length) @ values
    np.testing.assert_allclose(found[1:-2], expected, atol=1e-12)


def test_a_spline_goes_through_its_samples():
    values = np.random.default_rng(3).normal(size=12)
    weights = np.tile([1.0, 4.0, 1.0, 0.0], (12, 1))
    found = stretch_matrix(12, np.arange(12), weights) @ values
    np.testing.assert_allclose(found, values, atol=1e-12)


def test_blur_reflects_the_ends():
    values = np.random.default_rng(4).normal(size=6)
    kernel = np.array([0.2, 0.5, 0.3], np.float32)
    expected = ndimage.correlate1d(values, kernel, mode="reflect")
    np.testing.assert_allclose(blur_matrix(6, kernel) @ values, expected, atol=1e-7)
