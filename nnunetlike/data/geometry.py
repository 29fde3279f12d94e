"""Where an array lies in the world: shape and spacing (D, H, W), origin and direction (x, y, z)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from nnunetlike.core.typing import Shape3, Spacing3

IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)

SLICE_THICKNESS = 999.0
"""Spacing along D of an image of two dimensions, which has none.

Source: nnU-Net v1, `convert_2d_image_to_nifti`."""


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """Grid of a case.

    `shape` and `spacing` are in array order (D, H, W); `origin` and `direction` in world order
    (x, y, z) as image files and v1's `itk_*` properties store them.
    """

    shape: Shape3
    spacing: Spacing3
    """Distance between voxel centres along D, H, W, in mm (D in seconds when `leading` is time)."""

    origin: Spacing3 = (0.0, 0.0, 0.0)
    direction: tuple[float, ...] = IDENTITY
    leading: Literal["space", "time", "single"] = "space"
    """What D means: a third dimension of space, time, or nothing (one slice)."""

    crs: str | None = None
    """Coordinate reference system of a georeferenced raster."""

    @property
    def itk_spacing(self) -> Spacing3:
        """Spacing in world order (x, y, z)."""
        return self.spacing[2], self.spacing[1], self.spacing[0]
