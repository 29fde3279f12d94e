"""NIfTI, MetaImage and NRRD through SimpleITK, and NIfTI that it refuses through nibabel."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import SimpleITK as sitk

from nnunetlike.core.errors import DataError
from nnunetlike.core.serialization import atomic_path
from nnunetlike.core.typing import FloatArray, LabelMap
from nnunetlike.data.geometry import IDENTITY, SLICE_THICKNESS, Geometry
from nnunetlike.data.imageio import IMAGE_FORMATS, to_integers
from nnunetlike.data.imageio.nifti_bytes import plain_voxels, with_shape, write_voxels
from nnunetlike.data.imageio.nifti_nibabel import (
    is_nifti,
    is_shadowed,
    nifti_orientation,
    read_nifti,
    require_complete,
    restored,
    write_like,
)
from nnunetlike.data.orientation import orientation_of


@dataclass(frozen=True)
class SimpleITKFormat:
    """Volumes of up to three dimensions; a 2D file becomes one slice of thickness 999."""

    suffixes: tuple[str, ...] = (".nii.gz", ".nii", ".mha", ".mhd", ".nrrd")
    multichannel: bool = False
    oriented: bool = True

    def orientation(self, path: Path) -> str | None:
        """Return where the axes of a volume point, by its header; None if there is no telling."""
        if is_shadowed(path):
            return nifti_orientation(path)
        reader = sitk.ImageFileReader()
        reader.SetFileName(str(path))
        try:
            reader.ReadImageInformation()
        except RuntimeError:
            return nifti_orientation(path)
        if reader.GetDimension() < 3 or 1 in reader.GetSize()[:3]:
            return None
        return orientation_of(_in_space(reader.GetDirection()))

    def read(self, paths: Sequence[Path]) -> tuple[FloatArray, Geometry]:
        """Return the channels as one float32 array (C, D, H, W) and the first one's grid.

        Raises:
            DataError: a file cannot be read, or the channels differ in size.
        """
        channels, geometries = zip(*(_read(path) for path in paths), strict=True)
        first = geometries[0]
        for path, geometry in zip(paths, geometries, strict=True):
            if geometry.shape != first.shape:
                raise DataError(
                    f"{path} has {geometry.shape} voxels (D, H, W) but {paths[0]} {first.shape}; "
                    "all channels of a case must lie on one grid"
                )
        image = np.empty((len(channels), *first.shape), np.float32)
        for target, channel in zip(image, channels, strict=True):
            target[:] = channel
        return image, first

    def read_label(self, path: Path) -> tuple[LabelMap, Geometry]:
        """Return a label map (D, H, W) of integers and its grid.

        Raises:
            DataError: the file cannot be read, or holds values that are not integers.
        """
        voxels, geometry = _read(path)
        return np.require(to_integers(voxels, path), requirements="W"), geometry

    def write_label(
        self, label: LabelMap, geometry: Geometry, path: Path, like: Path | None = None
    ) -> None:
        """Write a label map (D, H, W) with its geometry, whole or not at all.

        Args:
            label: integers.
            geometry: their grid.
            path: file to write.
            like: if both are NIfTI, the header of this file says where the voxels lie.
        """
        if like is not None and write_like(label, like, path):
            return
        if is_nifti(path):
            one = _itk_image(np.zeros((1, 1, 1), label.dtype), geometry)
            head = with_shape(_itk_head(one), nibabel.Nifti1Header, label.shape[::-1])
            write_voxels(head, label, path)
            return
        image = _itk_image(label, geometry)
        if path.name.lower().endswith(".mhd"):
            _write_in_two_files(image, path)
            return
        with atomic_path(path) as temporary:
            sitk.WriteImage(image, str(temporary), useCompression=True)


def _read(path: Path) -> tuple[Any, Geometry]:
    if not path.is_file():
        raise DataError(f"{path} does not exist")
    if is_nifti(path):
        plain = None if is_shadowed(path) else _read_plain(path)
        if plain is not None:
            return plain
        require_complete(path)
    if is_shadowed(path):
        return read_nifti(path)
    try:
        voxels, geometry = _from_itk(sitk.ReadImage(str(path)), path)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
    else:
        return (restored(voxels, path) if is_nifti(path) else voxels), geometry
    if is_nifti(path):
        return read_nifti(path)
    raise DataError(f"{path} cannot be read as an image: {reason}")


def _read_plain(path: Path) -> tuple[Any, Geometry] | None:
    """Return voxels and grid of a NIfTI file where ITK need only read the header, else None."""
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError:
        return None
    if reader.GetDimension() != 3 or reader.GetNumberOfComponents() != 1:
        return None
    voxels = plain_voxels(path)
    if voxels is None or voxels.shape[::-1] != reader.GetSize():
        return None
    return voxels, _geometry(
        voxels.shape, reader.GetSpacing(), reader.GetOrigin(), reader.GetDirection()
    )


def _itk_image(label: LabelMap, geometry: Geometry) -> sitk.Image:
    image = sitk.GetImageFromArray(label)
    image.SetSpacing(geometry.itk_spacing)
    image.SetOrigin(geometry.origin)
    image.SetDirection(geometry.direction)
    return image


def _itk_head(one: sitk.Image) -> bytes:
    """Return what ITK writes before the voxel of an image of a single one."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "one.nii"
        sitk.WriteImage(one, str(path))
        return path.read_bytes()[: -one.GetSizeOfPixelComponent()]


def _write_in_two_files(image: sitk.Image, path: Path) -> None:
    """Write `ID.mhd` and its voxels `ID.zraw`, which it names; the former comes last."""
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".tmp-") as folder:
        written = Path(folder) / path.name
        sitk.WriteImage(image, str(written), useCompression=True)
        for part in sorted(Path(folder).iterdir(), key=lambda part: part == written):
            part.replace(path.with_name(part.name))


def _from_itk(image: sitk.Image, path: Path) -> tuple[Any, Geometry]:
    dimension = image.GetDimension()
    voxels = sitk.GetArrayFromImage(image)
    if image.GetNumberOfComponentsPerPixel() != 1:
        raise DataError(
            f"{path} has {image.GetNumberOfComponentsPerPixel()} values per voxel; an image file "
            "holds one channel. Write one file per channel: ID_0000, ID_0001, …"
        )
    if dimension == 2:
        spacing, origin = (*image.GetSpacing(), SLICE_THICKNESS), (*image.GetOrigin(), 0.0)
        return voxels[None], _geometry(voxels[None].shape, spacing, origin, IDENTITY)
    if dimension == 4 and len(voxels) == 1:
        voxels, dimension = voxels[0], 3
    if dimension != 3:
        raise DataError(
            f"{path} has {dimension} dimensions; an image file holds one channel of two or three. "
            "Convert 4-D files with nnUNet_convert_decathlon_task"
        )
    direction = _in_space(image.GetDirection())
    return voxels, _geometry(voxels.shape, image.GetSpacing()[:3], image.GetOrigin()[:3], direction)


def _in_space(direction: Sequence[float]) -> list[float]:
    """Return the cosines of the first three axes, row by row."""
    side = math.isqrt(len(direction))
    found: list[float] = np.reshape(direction, (side, side))[:3, :3].ravel().tolist()
    return found


def _geometry(
    shape: tuple[int, ...],
    spacing: tuple[float, ...],
    origin: tuple[float, ...],
    direction: Sequence[float],
) -> Geometry:
    d, h, w = shape
    x, y, z = spacing
    ox, oy, oz = origin
    return Geometry(
        shape=(d, h, w),
        spacing=(z, y, x),
        origin=(ox, oy, oz),
        direction=tuple(direction),
        leading="single" if d == 1 else "space",
    )


IMAGE_FORMATS.add("simpleitk", SimpleITKFormat())
