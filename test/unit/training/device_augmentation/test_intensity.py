"""Intensities changed by torch against those changed for the CPU, given the same parameters."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nnunetlike.training.augmentation import intensity as host
from nnunetlike.training.augmentation.policies import Changes
from nnunetlike.training.augmentation.policies import change_intensities as change_on_host
from nnunetlike.training.device_augmentation import intensity
from nnunetlike.training.device_augmentation.intensity import change_intensities

SHAPES = [(12, 15, 9), (17, 11), (3, 16, 70), (1, 8, 8)]


def a_channel(shape, seed=0):
    values = np.random.default_rng(seed).normal(size=shape)
    return (3 * values + 2).astype(np.float32)


def assert_equal(found, expected):
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5 * np.ptp(expected))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("sigma", [0.5, 0.73, 1.0])
def test_blur_is_that_of_the_cpu(shape, sigma):
    channel = a_channel(shape)
    assert_equal(intensity.blur(torch.from_numpy(channel), sigma), host.blur(channel, sigma))


@pytest.mark.parametrize("factor", [0.75, 1.25])
def test_contrast_is_that_of_the_cpu(factor):
    channel = a_channel((9, 8, 7))
    found = intensity.contrast(torch.from_numpy(channel), factor)
    assert_equal(found, host.contrast(channel, factor))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("zoom", [0.5, 0.61, 0.99])
@pytest.mark.parametrize("in_plane", [False, True])
def test_low_resolution_is_that_of_the_cpu(shape, zoom, in_plane):
    channel = a_channel(shape)
    in_plane = in_plane and len(shape) == 3
    found = intensity.low_resolution(torch.from_numpy(channel), zoom, in_plane=in_plane)
    assert_equal(found, host.low_resolution(channel, zoom, in_plane=in_plane))


@pytest.mark.parametrize("exponent", [0.7, 1.5])
def test_gamma_is_that_of_the_cpu(exponent):
    channel = a_channel((9, 8, 7))
    found = intensity.gamma(torch.from_numpy(channel), exponent)
    assert_equal(found, host.gamma(channel, exponent))


def test_gamma_of_a_constant_channel_is_that_of_the_cpu():
    channel = np.full((4, 4, 4), 2.5, np.float32)
    found = intensity.gamma(torch.from_numpy(channel), 0.7).numpy()
    np.testing.assert_allclose(found, host.gamma(channel, 0.7), rtol=1e-6)


def test_changes_come_in_the_order_of_the_cpu():
    image = np.stack([a_channel((10, 9, 8), seed) for seed in range(2)])
    changes = Changes(
        blur_sigmas=(None, 0.8), brightness_factors=(0.8, 1.2), contrast_factors=(1.1, 0.8),
        zooms=(0.6, None), inverted_gammas=(0.8, 1.3), gammas=(1.4, 0.7),
    )  # fmt: skip
    expected = change_on_host(image, changes, np.random.default_rng(0))
    assert_equal(change_intensities(torch.from_numpy(image), changes, 0), expected)


def test_noise_has_the_asked_deviation_and_repeats_by_its_seed():
    image = torch.full((2, 40, 40, 40), 3.0)
    found = intensity.noise(image, 0.1, 5)
    assert abs(float((found - 3).std()) - 0.1) < 1e-3
    assert abs(float(found.mean()) - 3) < 1e-3
    torch.testing.assert_close(intensity.noise(image, 0.1, 5), found, rtol=0, atol=0)
    assert not torch.equal(intensity.noise(image, 0.1, 6), found)


def test_noise_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    intensity.noise(torch.zeros(1, 4, 4, 4), 0.1, 5)
    assert torch.equal(torch.get_rng_state(), before)
