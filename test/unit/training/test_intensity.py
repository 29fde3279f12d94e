"""Intensity changes: what they keep and what they change."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from nnunetlike.training.augmentation import intensity


@pytest.fixture
def channel():
    return np.random.default_rng(1).normal(3, 2, (10, 12, 14)).astype(np.float32)


def test_noise_has_the_deviation_asked_for(channel):
    field = intensity.noise(channel, 0.3, np.random.default_rng(0)) - channel
    assert abs(field.mean()) < 0.03
    assert field.std() == pytest.approx(0.3, rel=0.05)


@pytest.mark.parametrize("sigma", [0.1, 0.3, 0.5, 0.77, 1.0, 2.5])
def test_blur_is_scipys_gaussian(channel, sigma):
    np.testing.assert_allclose(
        intensity.blur(channel, sigma), gaussian_filter(channel, sigma), atol=1e-5
    )


@pytest.mark.parametrize("shape", [(1, 2, 3), (3, 1, 2), (5, 4)])
def test_blur_reflects_patches_smaller_than_its_kernel_and_keeps_2d(shape):
    channel = np.random.default_rng(3).normal(size=shape).astype(np.float32)
    np.testing.assert_allclose(intensity.blur(channel, 1), gaussian_filter(channel, 1), atol=1e-5)


def test_contrast_keeps_the_range_and_moves_values_from_the_mean():
    values = np.array([[0, 4, 6, 10]], np.float32)  # mean 5
    np.testing.assert_allclose(intensity.contrast(values, 1.25), [[0, 3.75, 6.25, 10]])
    np.testing.assert_allclose(intensity.contrast(values, 0.5), [[2.5, 4.5, 5.5, 7.5]])


@pytest.mark.parametrize("inverted", [False, True])
def test_gamma_keeps_mean_and_deviation(channel, inverted):
    bent = intensity.gamma(channel, 1.4, inverted=inverted)
    assert bent.mean(dtype=float) == pytest.approx(channel.mean(dtype=float), abs=1e-5)
    assert bent.std(dtype=float) == pytest.approx(channel.std(dtype=float), rel=1e-5)
    assert np.array_equal(np.argsort(bent.ravel())[-5:], np.argsort(channel.ravel())[-5:])


@pytest.mark.parametrize("value", [0, -2.5])
def test_a_constant_channel_stays_constant_under_every_change(value):
    channel = np.full((6, 6, 6), value, np.float32)
    for changed in (
        intensity.blur(channel, 0.8),
        intensity.contrast(channel, 1.2),
        intensity.low_resolution(channel, 0.6),
        intensity.gamma(channel, 0.8),
        intensity.gamma(channel, 1.3, inverted=True),
    ):
        np.testing.assert_allclose(changed, value, atol=1e-6)


def test_low_resolution_in_the_plane_treats_every_slice_alike():
    rng = np.random.default_rng(2)
    plane = rng.normal(size=(12, 12)).astype(np.float32)
    volume = np.stack([plane] * 3)
    low = intensity.low_resolution(volume, 0.5, in_plane=True)
    np.testing.assert_allclose(low[1], intensity.low_resolution(plane, 0.5), atol=1e-6)
    assert low.shape == volume.shape


def test_low_resolution_of_a_single_voxel_keeps_it():
    assert intensity.low_resolution(np.full((1, 1), 7, np.float32), 0.5).item() == 7


@pytest.mark.parametrize("shape", [(10, 12, 14), (40, 50)])
def test_a_change_may_be_written_over_its_argument(shape):
    channel = np.random.default_rng(4).normal(3, 2, shape).astype(np.float32)
    for change, parameter in (
        (intensity.blur, 0.7),
        (intensity.brightness, 1.2),
        (intensity.contrast, 1.2),
        (intensity.low_resolution, 0.7),
        (intensity.gamma, 1.2),
        (partial(intensity.gamma, inverted=True), 0.8),
    ):
        expected, written = change(channel, parameter), channel.copy()
        assert change(written, parameter, written) is written
        np.testing.assert_array_equal(written, expected)


def test_noise_is_a_function_of_the_generator_and_of_the_place(channel):
    fields = [intensity.noise(channel, 0.3, np.random.default_rng(s)) for s in (0, 0, 1)]
    np.testing.assert_array_equal(fields[0], fields[1])
    assert (fields[0] != fields[2]).mean() > 0.99


def test_no_change_writes_into_its_argument(channel):
    before = channel.copy()
    intensity.noise(channel, 0.1, np.random.default_rng(0))
    intensity.blur(channel, 0.7)
    intensity.brightness(channel, 1.2)
    intensity.contrast(channel, 1.2)
    intensity.low_resolution(channel, 0.7)
    intensity.gamma(channel, 1.2, inverted=True)
    np.testing.assert_array_equal(channel, before)
