"""What a program may hand over as an image, and what it gets back.

Axes: C channels, D, H, W. A SimpleITK image's voxels (x, y, z) are the array's [z, y, x].
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike, fspath
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from nnunetlike.core.errors import DataError, ShapeError, UsageError
from nnunetlike.core.typing import FloatArray, LabelMap, Spacing3
from nnunetlike.data.geometry import IDENTITY, SLICE_THICKNESS, Geometry
from nnunetlike.data.imageio import format_of, split_ending
from nnunetlike.data.orientation import direction_of, is_orientation

AnyPath: TypeAlias = str | PathLike[str]
AnyImage: TypeAlias = (
    AnyPath | sitk.Image | npt.NDArray[Any] | Sequence[AnyPath] | Sequence[sitk.Image]
)
AXIS_ORDER = "spacing=(D, H, W) in mm, in the order of the array's axes (SimpleITK's reversed)"


@dataclass(frozen=True, kw_only=True)
class SourceImage:
    """An image in memory, on its own grid."""

    case_id: str
    voxels: FloatArray
    """(C, D, H, W) float32."""

    geometry: Geometry
    files: tuple[Path, ...] = ()
    template: sitk.Image | None = None
    """Image whose geometry the labels take; None gives them as an array."""

    def dressed(self, label: LabelMap) -> npt.NDArray[Any] | sitk.Image:
        """Return a label map (D, H, W) in the kind that the image was."""
        if self.template is None:
            return label
        flat = self.template.GetDimension() == 2
        image = sitk.GetImageFromArray(label[0] if flat else label)
        image.CopyInformation(self.template)
        return image


def open_image(
    image: AnyImage,
    spacing: Sequence[float] | None,
    modalities: Mapping[int, str],
    orientation: str | None = None,
) -> SourceImage:
    """Return an image as float32 with its grid.

    Args:
        image: a file, a list of files or of SimpleITK images (one per channel, in order), a
            SimpleITK image (its components are channels), or an array (C, D, H, W), or (D, H, W)
            of one channel.
        spacing: of an array, (D, H, W) in mm; None for all else, which knows its own.
        modalities: names of the channels the model wants, by number.
        orientation: of an array, where its axes W, H, D point; `LPS` if None.

    Raises:
        UsageError: an array comes without spacing, or something else with one; or what is said of
            its orientation is none.
        ShapeError: an array has other axes, or channels lie on different grids.
        DataError: a file cannot be read, or there are more or fewer channels than the model wants.
    """
    if isinstance(image, np.ndarray):
        source = _from_array(image, spacing, orientation)
    elif spacing is not None:
        raise UsageError(
            f"spacing={tuple(spacing)}: files and SimpleITK images know their own. Leave it out, "
            "or hand over an array"
        )
    else:
        parts = list(image) if isinstance(image, (list, tuple)) else [image]
        in_memory = [part for part in parts if isinstance(part, sitk.Image)]
        source = (
            _from_itk(in_memory)
            if in_memory and len(in_memory) == len(parts)
            else _from_files(parts)
        )
    if len(source.voxels) != len(modalities):
        wanted = ", ".join(f"{number} {name}" for number, name in sorted(modalities.items()))
        raise DataError(
            f"{source.case_id} has {len(source.voxels)} channel(s), but the model was trained on "
            f"{len(modalities)}: {wanted}. Give them all, in this order"
        )
    return source


def _from_array(
    array: npt.NDArray[Any], spacing: Sequence[float] | None, orientation: str | None
) -> SourceImage:
    if array.ndim not in (3, 4):
        raise ShapeError(
            f"an array has the axes (C, D, H, W), or (D, H, W) of one channel; this one has the "
            f"shape {array.shape}. Of a picture (H, W) hand over picture[None]"
        )
    if spacing is None:
        raise UsageError(
            f"an array of shape {array.shape} does not say how far apart its voxels are: give "
            f"{AXIS_ORDER}"
        )
    if len(spacing) != 3 or not all(math.isfinite(s) and s > 0 for s in spacing):
        raise UsageError(f"spacing={tuple(spacing)}: give three numbers above 0, {AXIS_ORDER}")
    if orientation is not None and not is_orientation(orientation):
        raise UsageError(
            f"orientation={orientation!r}: give three letters, where the axes x, y, z (W, H, D of "
            "the array) point, such as 'LPS' or 'RAS'"
        )
    voxels = np.asarray(array[None] if array.ndim == 3 else array, np.float32)
    direction = IDENTITY if orientation is None else direction_of(orientation)
    geometry = _grid(voxels, _three(spacing), direction=direction)
    return SourceImage(case_id="array", voxels=voxels, geometry=geometry)


def _from_files(parts: Sequence[Any]) -> SourceImage:
    if not parts or not all(isinstance(part, (str, PathLike)) for part in parts):
        kinds = ", ".join(sorted({type(part).__name__ for part in parts})) or "an empty list"
        raise UsageError(
            f"an image is a path, a SimpleITK image, a list of either, or an array; not {kinds}"
        )
    files = tuple(Path(fspath(part)) for part in parts)
    voxels, geometry = format_of(files[0]).read(files)
    template = sitk.Image(*geometry.shape[::-1], sitk.sitkUInt8)
    template.SetSpacing(geometry.itk_spacing)
    template.SetOrigin(geometry.origin)
    template.SetDirection(geometry.direction)
    return SourceImage(
        case_id=split_ending(files[0].name)[0], voxels=voxels, geometry=geometry, files=files,
        template=template,
    )  # fmt: skip


def _from_itk(images: Sequence[sitk.Image]) -> SourceImage:
    first = images[0]
    for image in images[1:]:
        if image.GetSize() != first.GetSize():
            raise ShapeError(
                f"the channels have {image.GetSize()} and {first.GetSize()} voxels (x, y, z); all "
                "channels of a case must lie on one grid"
            )
    voxels = np.concatenate([_channels(image) for image in images]).astype(np.float32, copy=False)
    if first.GetDimension() == 2:
        x, y = first.GetSpacing()
        origin = (*first.GetOrigin(), 0.0)
        geometry = _grid(voxels, (SLICE_THICKNESS, y, x), origin)
    else:
        x, y, z = first.GetSpacing()
        geometry = _grid(voxels, (z, y, x), first.GetOrigin(), first.GetDirection())
    return SourceImage(case_id="image", voxels=voxels, geometry=geometry, template=first)


def _channels(image: sitk.Image) -> npt.NDArray[Any]:
    """Return the voxels (C, D, H, W) of an image of two or three dimensions."""
    if image.GetDimension() not in (2, 3):
        raise ShapeError(
            f"the image has {image.GetDimension()} dimensions; hand over one of two or three per "
            "channel"
        )
    voxels = sitk.GetArrayFromImage(image)
    voxels = voxels if image.GetDimension() == 3 else voxels[None]
    several = image.GetNumberOfComponentsPerPixel() > 1
    return np.moveaxis(voxels, -1, 0) if several else voxels[None]


def _grid(
    voxels: npt.NDArray[Any],
    spacing: Spacing3,
    origin: Sequence[float] = (0.0, 0.0, 0.0),
    direction: tuple[float, ...] = IDENTITY,
) -> Geometry:
    depth, height, width = voxels.shape[1:]
    return Geometry(
        shape=(depth, height, width), spacing=spacing, origin=_three(origin), direction=direction,
        leading="single" if depth == 1 else "space",
    )  # fmt: skip


def _three(values: Sequence[float]) -> Spacing3:
    a, b, c = (float(value) for value in values)
    return a, b, c
