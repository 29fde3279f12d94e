"""How often and how far training patches are changed, and the changing in nnU-Net v1's order."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import pi
from typing import Any, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from nnunetlike.core.typing import FloatArray, LabelMap, Size
from nnunetlike.plans.plans import StagePlan
from nnunetlike.training.augmentation import intensity
from nnunetlike.training.augmentation.pointwise import reverse
from nnunetlike.training.augmentation.spatial import Affine, generator_patch_size

Image: TypeAlias = npt.NDArray[np.float32]
Scalar = TypeVar("Scalar", bound=np.generic)
Range = tuple[float, float]
RIGHT_ANGLE_RATIO = 1.5
"""Ratio of a 2D patch's edges above which it is turned by 15 degrees at most."""


@dataclass(frozen=True, kw_only=True)
class AugmentationPolicy:
    """Probabilities (per sample, unless told otherwise) and ranges of v1's default augmentation."""

    angles: tuple[Range, ...]
    """Rotation in radians about each axis; one range rotates in the plane."""

    mirror_axes: tuple[int, ...]
    """Spatial axes of the patch that may be reversed, each with `mirror_probability`."""

    in_plane: bool = False
    """Volumes only: rotate and scale every slice along axis 0 in its plane ("dummy 2D")."""

    generator_scale: float = 0.85
    """Scale that the size of the patches read from disk allows for; v1 never enlarged it to 0.7."""

    rotation_probability: float = 0.2
    scale_probability: float = 0.2
    scale: Range = (0.7, 1.4)
    noise_probability: float = 0.1
    noise_sd: Range = (0.0, 0.1)
    blur_probability: float = 0.2
    blur_channel_probability: float = 0.5
    blur_sigma: Range = (0.5, 1.0)
    brightness_probability: float = 0.15
    brightness: Range = (0.75, 1.25)
    contrast_probability: float = 0.15
    contrast: Range = (0.75, 1.25)
    low_resolution_probability: float = 0.25
    low_resolution_channel_probability: float = 0.5
    zoom: Range = (0.5, 1.0)
    inverted_gamma_probability: float = 0.1
    gamma_probability: float = 0.3
    gamma: Range = (0.7, 1.5)
    mirror_probability: float = 0.5

    def generator_patch_size(self, patch_size: Size) -> Size:
        """Return the size of the patches to read, so that rotation stays inside them."""
        angles = [max(abs(low), abs(high)) for low, high in self.angles]
        if self.in_plane:
            plane = generator_patch_size(patch_size[1:], angles, self.generator_scale)
            return (patch_size[0], *plane)
        return generator_patch_size(patch_size, angles, self.generator_scale)


@dataclass(frozen=True, kw_only=True)
class Changes:
    """What was drawn for one patch. None leaves a patch, or in a tuple a channel, as it is."""

    affine: Affine | None = None
    noise_sd: float | None = None
    blur_sigmas: tuple[float | None, ...] = ()
    brightness_factors: tuple[float, ...] = ()
    contrast_factors: tuple[float, ...] = ()
    zooms: tuple[float | None, ...] = ()
    inverted_gammas: tuple[float, ...] = ()
    gammas: tuple[float, ...] = ()
    mirrored: tuple[int, ...] = ()


def policy_for(stage: StagePlan) -> AugmentationPolicy:
    """Return v1's defaults for a stage.

    Volumes turn by 30 degrees about each axis and are mirrored along all; flat volumes and images
    turn by any angle in the plane, images of an edge ratio above 1.5 by 15 degrees.
    """
    axes = tuple(range(stage.dimension))
    if stage.dimension == 3 and not stage.dummy_2d_augmentation:
        return AugmentationPolicy(angles=((-pi / 6, pi / 6),) * 3, mirror_axes=axes)
    oblong = max(stage.patch_size) / min(stage.patch_size) > RIGHT_ANGLE_RATIO
    limit = pi / 12 if stage.dimension == 2 and oblong else pi
    return AugmentationPolicy(
        angles=((-limit, limit),), mirror_axes=axes, in_plane=stage.dimension == 3
    )


def draw(policy: AugmentationPolicy, channels: int, rng: np.random.Generator) -> Changes:
    """Return the changes of one patch, drawn from `rng`.

    Args:
        policy: probabilities and ranges.
        channels: image channels C.
        rng: advanced.
    """

    def each(probability: float, one: Callable[[], float]) -> tuple[float, ...]:
        """Return a number for every channel, or none at all."""
        fires = rng.uniform() < probability
        return tuple(one() for _ in range(channels)) if fires else ()

    def some(
        probability: float, of_channel: float, one: Callable[[], float]
    ) -> tuple[float | None, ...]:
        """Return a number for some channels and None for others, or nothing at all."""
        fires = rng.uniform() < probability
        return (
            tuple(one() if rng.uniform() < of_channel else None for _ in range(channels))
            if fires
            else ()
        )

    return Changes(
        affine=draw_affine(policy, rng),
        noise_sd=rng.uniform(*policy.noise_sd)
        if rng.uniform() < policy.noise_probability
        else None,
        blur_sigmas=some(
            policy.blur_probability,
            policy.blur_channel_probability,
            lambda: rng.uniform(*policy.blur_sigma),
        ),
        brightness_factors=each(
            policy.brightness_probability, lambda: rng.uniform(*policy.brightness)
        ),
        contrast_factors=each(
            policy.contrast_probability, lambda: either_side(policy.contrast, rng)
        ),
        zooms=some(
            policy.low_resolution_probability,
            policy.low_resolution_channel_probability,
            lambda: rng.uniform(*policy.zoom),
        ),
        inverted_gammas=each(
            policy.inverted_gamma_probability, lambda: either_side(policy.gamma, rng)
        ),
        gammas=each(policy.gamma_probability, lambda: either_side(policy.gamma, rng)),
        mirrored=tuple(
            axis for axis in policy.mirror_axes if rng.uniform() < policy.mirror_probability
        ),
    )


def draw_affine(policy: AugmentationPolicy, rng: np.random.Generator) -> Affine | None:
    """Return a rotation, a scaling, both, or None when neither fires."""
    rotates = rng.uniform() < policy.rotation_probability
    angles = tuple(rng.uniform(*limits) if rotates else 0.0 for limits in policy.angles)
    scales = rng.uniform() < policy.scale_probability
    scale = either_side(policy.scale, rng) if scales else 1.0
    return Affine(angles, scale) if rotates or scales else None


def either_side(limits: Range, rng: np.random.Generator) -> float:
    """Return a factor below 1 or above 1 with equal chance, uniform within its side of `limits`."""
    low, high = limits
    if rng.uniform() < 0.5 and low < 1:
        return rng.uniform(low, min(1.0, high))
    return rng.uniform(max(low, 1.0), high)


def change_intensities(
    image: Image,
    changes: Changes,
    rng: np.random.Generator,
    *,
    in_plane: bool = False,
    in_place: bool = False,
) -> Image:
    """Return a patch (C, *patch) after noise, blur, brightness, contrast, low resolution, gamma.

    Args:
        image: the patch.
        changes: what to do.
        rng: gives the noise field.
        in_plane: keep axis 0 at full resolution.
        in_place: write over the patch, which must be contiguous; else it stays.
    """
    steps: tuple[tuple[Sequence[float | None], Callable[..., Image]], ...] = (
        (changes.blur_sigmas, intensity.blur),
        (changes.brightness_factors, intensity.brightness),
        (changes.contrast_factors, intensity.contrast),
        (changes.zooms, partial(intensity.low_resolution, in_plane=in_plane)),
        (changes.inverted_gammas, partial(intensity.gamma, inverted=True)),
        (changes.gammas, intensity.gamma),
    )
    acts = any(parameter is not None for parameters, _ in steps for parameter in parameters)
    if changes.noise_sd is not None:
        result = intensity.noise(image, changes.noise_sd, rng, image if in_place else None)
    elif acts and not in_place:
        result = np.array(image, order="C")
    else:
        result = image
    for parameters, change in steps:
        for channel, parameter in zip(result, parameters, strict=False):  # none, or one for each
            if parameter is not None:
                change(channel, parameter, channel)
    return result


def finish(
    image: FloatArray,
    label: LabelMap,
    changes: Changes,
    use_mask_for_norm: Mapping[int, bool],
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int16]]:
    """Return the patch mirrored, masked channels 0 where the label is below 0, and no such label.

    Args:
        image: (C, *patch).
        label: (*patch), -1 outside the non-zero region.
        changes: tells the mirrored axes.
        use_mask_for_norm: channels that were normalised inside the non-zero region.
    """
    new_image = _reversed(image, changes.mirrored, np.float32)
    new_label = _reversed(label[None], changes.mirrored, np.int16)[0]
    masked = [c for c, used in use_mask_for_norm.items() if used]
    if masked:
        outside = new_label < 0
        for channel in masked:
            new_image[channel][outside] = 0
    return new_image, np.maximum(new_label, 0, out=new_label)


def _reversed(
    image: npt.NDArray[Any], axes: Sequence[int], dtype: type[Scalar]
) -> npt.NDArray[Scalar]:
    """Return a copy of `image` (C, *patch), reversed along spatial `axes`, as another type."""
    result = np.empty(image.shape, dtype)
    missing = 4 - image.ndim
    volumes = (len(image), *(1,) * missing, *image.shape[1:])
    depth, height, width = (axis - missing in axes for axis in range(3))
    source = np.ascontiguousarray(image).reshape(volumes)
    for volume, target in zip(source, result.reshape(volumes), strict=True):
        reverse(volume, (depth, height, width), target)
    return result
