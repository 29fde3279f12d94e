"""Changes to the intensities of a patch: pure functions of explicit parameters.

Axes: a channel is (D, H, W) or (H, W); an image has C channels in front. Everything is float32.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from nnunetlike.core.typing import Size
from nnunetlike.preprocessing.resampling import resample_image
from nnunetlike.training.augmentation.smoothing import gaussian_kernel, smooth_volume

Image: TypeAlias = npt.NDArray[np.float32]


def noise(image: Image, sd: float, rng: np.random.Generator) -> Image:
    """Return `image` with independent Gaussian noise of standard deviation `sd` added."""
    field = rng.standard_normal(image.shape, np.float32)
    field *= np.float32(sd)
    field += image
    return field


def blur(channel: Image, sigma: float) -> Image:
    """Return `channel` under a Gaussian of `sigma` voxels, borders reflected, cut at 4 sigma.

    Source: nnU-Net v1 (scipy.ndimage.gaussian_filter).
    """
    volume = np.ascontiguousarray(channel.reshape((1,) * (3 - channel.ndim) + channel.shape))
    result = np.empty_like(volume)
    smooth_volume(volume, gaussian_kernel(sigma), result)
    return result.reshape(channel.shape)


def brightness(channel: Image, factor: float) -> Image:
    """Return `channel` times `factor`."""
    return channel * np.float32(factor)


def contrast(channel: Image, factor: float) -> Image:
    """Return `channel` stretched about its mean by `factor`, clipped to its old range."""
    mean = channel.mean(dtype=np.float64)
    result = channel * np.float32(factor)
    result += np.float32(mean * (1 - factor))
    return np.clip(result, channel.min(), channel.max(), out=result)


def low_resolution(channel: Image, zoom: float, *, in_plane: bool = False) -> Image:
    """Return `channel` sampled at `zoom` of its resolution (nearest) and back (cubic splines).

    Args:
        channel: (D, H, W) or (H, W).
        zoom: share of the voxels along each axis that is kept, above 0, at most 1.
        in_plane: leave D as it is.
    """
    lead = (1,) * (3 - channel.ndim)
    shape = (*lead, *channel.shape)
    small = (*lead, *low_resolution_shape(channel.shape, zoom, in_plane=in_plane))
    down = resample_image(channel.reshape(1, *shape), small, order=0)
    up: Image = resample_image(down, shape, order=3)
    return up.reshape(channel.shape)


def low_resolution_shape(shape: Size, zoom: float, *, in_plane: bool = False) -> Size:
    """Return the shape of a channel at `zoom` of its resolution, see `low_resolution`."""
    small = [max(1, int(n)) for n in np.round(np.array(shape) * zoom)]
    return tuple([shape[0], *small[1:]] if in_plane else small)


def gamma(channel: Image, exponent: float, *, inverted: bool = False) -> Image:
    """Return `channel`, scaled to [0, 1], to the power `exponent`; mean and deviation are restored.

    Args:
        channel: values of any range.
        exponent: above 1 darkens.
        inverted: bend the negated channel and negate again, so 1 - x is raised instead of x.

    Source: nnU-Net v1 (augment_gamma, per channel, retain_stats).
    """
    values = -channel if inverted else channel
    low, extent = values.min(), np.float32(values.max() - values.min())
    mean, deviation = _moments(values)
    bent: Image = (values - low) / (extent + np.float32(1e-7))
    np.power(bent, np.float32(exponent), out=bent)
    new_mean, new_deviation = _moments(bent)
    scaled = float(extent) + 1e-7
    factor = deviation / (new_deviation * scaled + 1e-8) * scaled
    sign = -1 if inverted else 1
    bent *= np.float32(sign * factor)
    bent += np.float32(sign * (mean - new_mean * factor))
    return bent


def _moments(values: Image) -> tuple[float, float]:
    """Return mean and population standard deviation, in double precision throughout."""
    mean = float(values.mean(dtype=np.float64))
    centred = values - np.float32(mean)
    square = float(np.mean(np.square(centred, out=centred), dtype=np.float64))
    return mean, float(np.sqrt(max(square - (mean - float(np.float32(mean))) ** 2, 0.0)))
