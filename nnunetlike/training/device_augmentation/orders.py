"""What a device is to make of a patch that was read; plain values, made without torch."""

from __future__ import annotations

from dataclasses import dataclass

from nnunetlike.core.typing import Size
from nnunetlike.training.augmentation.policies import Changes


@dataclass(frozen=True, kw_only=True)
class PatchOrder:
    """The changes of one patch, and where the block that was read lies in their source."""

    changes: Changes
    patch_size: Size
    """Of the result, two or three axes."""

    source: Size
    """Whole region that is rotated and scaled about its centre; as many axes."""

    origin: Size
    """First voxel of the block in it."""

    in_plane: bool = False
    """Low resolution leaves axis 0 as it is."""

    masked: tuple[int, ...] = ()
    """Channels that are 0 where the label is below 0."""

    noise_seed: int = 0
    """Of the field of noise."""
