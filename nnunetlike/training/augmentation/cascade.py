"""Augmentation of the segmentations that a cascade's full resolution gets as channels.

They are spoilt a little, lest the network trust them blindly: on new cases they may be worse.

Axes: K - 1 channels of 0 and 1, then D, H, W.
"""

from __future__ import annotations

from dataclasses import dataclass

import cc3d
import numpy as np
import numpy.typing as npt
from scipy import ndimage

from nnunetlike.core.typing import BoolArray

Channels = npt.NDArray[np.float32]
MORPHOLOGY = ("dilate", "erode", "close", "open")


@dataclass(frozen=True, kw_only=True)
class CascadePolicy:
    """Probabilities and ranges.

    Source: nnU-Net v1, but for the removal of components: there two arguments are swapped, so that
    nothing is ever removed. These are the values it means.
    """

    morphology_probability: float = 0.4
    """Per sample; then every channel is changed, in random order."""

    radius: tuple[float, float] = (1.0, 8.0)
    """Of the ball, in voxels."""

    removal_probability: float = 0.2
    """Per channel."""

    largest_removed: float = 0.15
    """Share of the patch above which a component stays."""


def spoil(channels: Channels, policy: CascadePolicy, rng: np.random.Generator) -> Channels:
    """Return channels (K - 1, D, H, W) grown, shrunk, closed or opened, and without a component.

    Args:
        channels: 0 and 1; unchanged by this.
        policy: probabilities and ranges.
        rng: advanced.
    """
    channels = channels.copy()
    if rng.uniform() < policy.morphology_probability:
        for channel in rng.permutation(len(channels)):
            operation = MORPHOLOGY[int(rng.integers(len(MORPHOLOGY)))]
            change_shape(channels, int(channel), operation, rng.uniform(*policy.radius))
    for channel in channels:
        if rng.uniform() < policy.removal_probability:
            remove_component(channel, policy.largest_removed, rng)
    return channels


def change_shape(channels: Channels, channel: int, operation: str, radius: float) -> None:
    """Apply a morphological operation to a channel, in place; what it gains the others lose.

    Args:
        channels: (K - 1, D, H, W).
        channel: number of the channel.
        operation: one of `MORPHOLOGY`.
        radius: of the ball, in voxels.
    """
    before = channels[channel] > 0
    if not before.any():
        return
    first, second = {
        "dilate": (grown, None), "erode": (shrunk, None),
        "close": (grown, shrunk), "open": (shrunk, grown),
    }[operation]  # fmt: skip
    after = first(before, radius)
    after = after if second is None else second(after, radius)
    channels[:, after & ~before] = 0
    channels[channel] = after


def grown(mask: BoolArray, radius: float) -> BoolArray:
    """Return the voxels within `radius` of a mask (D, H, W)."""
    if not mask.any():
        return mask
    near: BoolArray = ndimage.distance_transform_edt(~mask) <= radius
    return near


def shrunk(mask: BoolArray, radius: float) -> BoolArray:
    """Return the voxels of a mask (D, H, W) farther than `radius` from all others of the patch."""
    if mask.all():
        return mask
    deep: BoolArray = ndimage.distance_transform_edt(mask) > radius
    return deep


def remove_component(channel: Channels, largest: float, rng: np.random.Generator) -> None:
    """Set one random connected component of a channel (D, H, W) to 0, in place.

    Args:
        channel: 0 and 1.
        largest: share of the voxels that a component must stay below.
        rng: advanced.
    """
    components = cc3d.connected_components((channel > 0).astype(np.uint8))
    sizes = np.bincount(components.reshape(-1))
    small = np.flatnonzero(sizes < largest * channel.size)
    small = small[small > 0]
    if len(small):
        channel[components == small[rng.integers(len(small))]] = 0
