"""Augmentation of clips: one placement and one change of grey values for all frames of a clip.

On top of that single frames may be lost and each has speckle of its own, as ultrasound has, so that
a memory is trained to carry over what a frame does not show. Nothing is ever mirrored: a heart has
its ventricle on one side. Nothing mixes frames either.

Axes: C channels, T frames, H, W.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import pi

import numpy as np
import numpy.typing as npt

from nnunetlike.training.augmentation.policies import AugmentationPolicy

Image = npt.NDArray[np.float32]

PLACEMENT_AND_GREY_VALUES = AugmentationPolicy(
    angles=((-pi / 18, pi / 18),),
    mirror_axes=(),
    in_plane=True,
    rotation_probability=0.5,
    scale_probability=0.5,
    scale=(0.8, 1.25),
    blur_probability=0.0,
    contrast_probability=0.5,
    gamma_probability=0.5,
)
"""Rotation by 10 degrees at most, scale, contrast and gamma in every second clip.

Source: Wang et al., "GDKVM", ICCV 2025, arXiv:2512.10252 (the kinds and the angle); the other
ranges are nnU-Net v1's, but for the scale. Blur would mix frames."""


@dataclass(frozen=True, kw_only=True)
class FrameNoise:
    """Probabilities, per clip, and ranges of what happens to single frames."""

    speckle_probability: float = 0.2
    speckle: tuple[float, float] = (0.05, 0.3)
    """Standard deviation of the factor, 1 on average, that each pixel is multiplied by."""

    loss_probability: float = 0.1
    """Of losing frames: none of what they show is left. The first frame never is."""

    most_lost: float = 0.3
    """Share of the frames."""


def disturb_frames(image: Image, noise: FrameNoise, rng: np.random.Generator) -> Image:
    """Return a clip (C, T, H, W) with speckle in each frame, or with frames lost, or as it is.

    Args:
        image: the clip, normalised; unchanged by this.
        noise: how often and how much.
        rng: advanced.
    """
    if rng.uniform() < noise.speckle_probability:
        image = speckle(image, rng.uniform(*noise.speckle), rng)
    frames = image.shape[1]
    if frames > 1 and rng.uniform() < noise.loss_probability:
        count = int(rng.integers(1, max(1, int(noise.most_lost * frames)), endpoint=True))
        image = lose_frames(image, rng.choice(np.arange(1, frames), count, replace=False), rng)
    return image


def speckle(image: Image, deviation: float, rng: np.random.Generator) -> Image:
    """Return a clip whose pixels are multiplied by Rayleigh noise of mean 1.

    Values are normalised, so they are multiplied as they lie above the darkest of their channel.

    Args:
        image: (C, T, H, W).
        deviation: standard deviation of the factor.
        rng: gives the noise.

    Source: Burckhardt, "Speckle in ultrasound B-mode scans", IEEE Trans. Sonics Ultrason. 1978: the
    amplitude of speckle is Rayleigh distributed.
    """
    scale = deviation / np.sqrt(2 - pi / 2)
    factor = (
        1
        + rng.rayleigh(scale, image.shape).astype(np.float32)
        - np.float32(scale * np.sqrt(pi / 2))
    )
    darkest = image.min(axis=(1, 2, 3), keepdims=True)
    speckled: Image = darkest + (image - darkest) * factor
    return speckled


def lose_frames(image: Image, frames: npt.NDArray[np.int64], rng: np.random.Generator) -> Image:
    """Return a clip (C, T, H, W) whose `frames` hold noise of their own mean and deviation only."""
    image = image.copy()
    for t in frames:
        shown = image[:, t]
        mean = shown.mean(axis=(1, 2), keepdims=True)
        deviation = shown.std(axis=(1, 2), keepdims=True)
        image[:, t] = mean + deviation * rng.standard_normal(shown.shape, np.float32)
    return image
