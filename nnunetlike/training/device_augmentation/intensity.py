"""Changes to the intensities of a patch on a device: `training.augmentation.intensity` in torch.

Axes: an image is (C, *patch) float32, a channel (*patch). Numbers that depend on the values stay on
the device, so nothing waits for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from nnunetlike.preprocessing.banded import Banded, blur_matrix, resize_matrix
from nnunetlike.preprocessing.taps import nearest
from nnunetlike.training.augmentation.intensity import low_resolution_shape
from nnunetlike.training.augmentation.policies import Changes
from nnunetlike.training.augmentation.smoothing import gaussian_kernel


def change_intensities(
    image: Tensor, changes: Changes, noise_seed: int, *, in_plane: bool = False
) -> Tensor:
    """Return a patch after noise, blur, brightness, contrast, low resolution and gamma.

    Args:
        image: (C, *patch), unchanged by this.
        changes: what to do.
        noise_seed: of the field of noise, by the device's own generator.
        in_plane: keep axis 0 at full resolution.
    """
    if changes.noise_sd is not None:
        image = noise(image, changes.noise_sd, noise_seed)
    image = _per_channel(image, changes.blur_sigmas, blur)
    image = _per_channel(image, changes.brightness_factors, torch.mul)
    image = _per_channel(image, changes.contrast_factors, contrast)
    image = _per_channel(
        image, changes.zooms, lambda c, zoom: low_resolution(c, zoom, in_plane=in_plane)
    )
    image = _per_channel(image, changes.inverted_gammas, lambda c, g: -gamma(-c, g))
    return _per_channel(image, changes.gammas, gamma)


def noise(image: Tensor, sd: float, seed: int) -> Tensor:
    """Return `image` with independent Gaussian noise of standard deviation `sd` added."""
    generator = torch.Generator(image.device).manual_seed(seed)
    return torch.empty_like(image).normal_(0, sd, generator=generator).add_(image)


def blur(channel: Tensor, sigma: float) -> Tensor:
    """Return `channel` under a Gaussian of `sigma` voxels, borders reflected, cut at 4 sigma."""
    kernel = gaussian_kernel(sigma)
    for axis, length in enumerate(channel.shape):
        channel = Banded.of(blur_matrix(length, kernel), channel.device).along(channel, axis)
    return channel


def contrast(channel: Tensor, factor: float) -> Tensor:
    """Return `channel` stretched about its mean by `factor`, clipped to its old range."""
    low, high = channel.aminmax()
    shift = channel.mean(dtype=torch.float64) * (1 - factor)
    return (channel * factor).add_(shift.float()).clamp_(low, high)


def low_resolution(channel: Tensor, zoom: float, *, in_plane: bool = False) -> Tensor:
    """Return `channel` sampled at `zoom` of its resolution (nearest) and back (cubic splines)."""
    small = low_resolution_shape(tuple(channel.shape), zoom, in_plane=in_plane)
    pairs = [
        (axis, n, m) for axis, (n, m) in enumerate(zip(channel.shape, small, strict=True)) if n != m
    ]
    for axis, old, new in pairs:
        index = torch.from_numpy(nearest(old, new)).to(channel.device, non_blocking=True)
        channel = channel.index_select(axis, index)
    low, high = channel.aminmax()
    for axis, old, new in pairs:
        channel = Banded.of(resize_matrix(new, old), channel.device).along(channel, axis)
    return channel.clamp(low, high)


def gamma(channel: Tensor, exponent: float) -> Tensor:
    """Return `channel`, scaled to [0, 1], to the power `exponent`; mean and deviation are restored.

    Source: nnU-Net v1 (augment_gamma, per channel, retain_stats).
    """
    low, high = channel.aminmax()
    extent = high - low
    mean, deviation = _moments(channel)
    bent = ((channel - low) / (extent + 1e-7)).pow_(exponent)
    new_mean, new_deviation = _moments(bent)
    scaled = extent.double() + 1e-7
    factor = deviation / (new_deviation * scaled + 1e-8) * scaled
    return bent.mul_(factor.float()).add_((mean - new_mean * factor).float())


def _moments(values: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and population standard deviation, added up in double precision."""
    mean = values.mean(dtype=torch.float64)
    centred = values - mean.float()
    square = centred.square_().mean(dtype=torch.float64)
    return mean, (square - (mean - mean.float().double()) ** 2).clamp(min=0).sqrt()


def _per_channel(
    image: Tensor,
    parameters: Sequence[float | None],
    change: Callable[[Tensor, float], Tensor],
) -> Tensor:
    """Return `image` with `change` applied to each channel that has a parameter."""
    if all(parameter is None for parameter in parameters):
        return image
    return torch.stack(
        [
            channel if parameter is None else change(channel, parameter)
            for channel, parameter in zip(image, parameters, strict=True)
        ]
    )
