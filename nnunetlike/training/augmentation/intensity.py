"""Changes to the intensities of a patch: pure functions of explicit parameters.

Axes: a channel is (D, H, W) or (H, W); an image has C channels in front. Everything is float32.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from nnunetlike.core.typing import Size
from nnunetlike.preprocessing.resampling import resample_image
from nnunetlike.preprocessing.taps import nearest
from nnunetlike.training.augmentation.normal import add_noise
from nnunetlike.training.augmentation.pointwise import bend, pick, scale, statistics, stretch
from nnunetlike.training.augmentation.smoothing import gaussian_kernel, smooth_volume

Image: TypeAlias = npt.NDArray[np.float32]


def noise(image: Image, sd: float, rng: np.random.Generator, out: Image | None = None) -> Image:
    """Return `image` with independent Gaussian noise of standard deviation `sd` added.

    Args:
        image: (C, *patch) or a channel.
        sd: in units of the image.
        rng: one number is drawn, the key of the field.
        out: contiguous array for the result, here and below; it may be the image itself.
    """
    result = _target(image, out)
    key = rng.integers(2**64, dtype=np.uint64)
    add_noise(_flat(image), np.float32(sd), key, result.reshape(-1))
    return result


def blur(channel: Image, sigma: float, out: Image | None = None) -> Image:
    """Return `channel` under a Gaussian of `sigma` voxels, borders reflected, cut at 4 sigma.

    Args:
        channel: (D, H, W) or (H, W).
        sigma: in voxels.
        out: for the result.

    Source: nnU-Net v1 (scipy.ndimage.gaussian_filter).
    """
    volume, result = _volume(channel), _target(channel, out)
    smooth_volume(volume, gaussian_kernel(sigma), result.reshape(volume.shape))
    return result


def brightness(channel: Image, factor: float, out: Image | None = None) -> Image:
    """Return `channel` times `factor`."""
    result: Image = np.multiply(channel, np.float32(factor), out=out)
    return result


def contrast(channel: Image, factor: float, out: Image | None = None) -> Image:
    """Return `channel` stretched about its mean by `factor`, clipped to its old range."""
    values, result = _flat(channel), _target(channel, out)
    low, high, mean, _ = statistics(values)
    shift = np.float32(mean * (1 - factor))
    ends = np.float32(low), np.float32(high)
    stretch(values, np.float32(factor), shift, *ends, result.reshape(-1))
    return result


def low_resolution(
    channel: Image, zoom: float, out: Image | None = None, *, in_plane: bool = False
) -> Image:
    """Return `channel` sampled at `zoom` of its resolution (nearest) and back (cubic splines).

    Args:
        channel: (D, H, W) or (H, W).
        zoom: share of the voxels along each axis that is kept, above 0, at most 1.
        out: for the result.
        in_plane: leave D as it is.
    """
    volume, result = _volume(channel), _target(channel, out)
    shape = volume.shape
    small = (
        *(1,) * (3 - channel.ndim), *low_resolution_shape(channel.shape, zoom, in_plane=in_plane)
    )  # fmt: skip
    planes, rows, columns = map(nearest, shape, small)
    down = np.empty((1, *small), np.float32)
    pick(volume, planes, rows, columns, down[0])
    result.reshape(shape)[:] = resample_image(down, shape, order=3)[0]
    return result


def low_resolution_shape(shape: Size, zoom: float, *, in_plane: bool = False) -> Size:
    """Return the shape of a channel at `zoom` of its resolution, see `low_resolution`."""
    small = [max(1, int(n)) for n in np.round(np.array(shape) * zoom)]
    return tuple([shape[0], *small[1:]] if in_plane else small)


def gamma(
    channel: Image, exponent: float, out: Image | None = None, *, inverted: bool = False
) -> Image:
    """Return `channel`, scaled to [0, 1], to the power `exponent`; mean and deviation are restored.

    Args:
        channel: values of any range.
        exponent: above 1 darkens.
        out: for the result.
        inverted: bend the negated channel and negate again, so 1 - x is raised instead of x.

    Source: nnU-Net v1 (augment_gamma, per channel, retain_stats).
    """
    values, result = _flat(channel), _target(channel, out)
    low, high, mean, deviation = statistics(values)
    sign, darkest = (-1, -high) if inverted else (1, low)
    extent = float(np.float32(high - low)) + 1e-7
    bent = result.reshape(-1)
    bend(
        values,
        np.float32(sign),
        np.float32(darkest),
        np.float32(extent),
        np.float32(exponent),
        bent,
    )
    _, _, new_mean, new_deviation = statistics(bent)
    factor = sign * deviation / (new_deviation * extent + 1e-8) * extent
    scale(bent, np.float32(factor), np.float32(mean - new_mean * factor))
    return result


def _target(channel: Image, out: Image | None) -> Image:
    assert out is None or out.flags.c_contiguous, "a view of it would be written and lost"
    return np.empty(channel.shape, np.float32) if out is None else out


def _volume(channel: Image) -> Image:
    """Return a channel with three axes."""
    return np.ascontiguousarray(channel.reshape((1,) * (3 - channel.ndim) + channel.shape))


def _flat(values: Image) -> Image:
    """Return all values as one axis."""
    return np.ascontiguousarray(values, np.float32).reshape(-1)
