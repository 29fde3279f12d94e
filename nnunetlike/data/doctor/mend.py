"""Single files written anew: voxels filled, labels rounded, renumbered, moved onto another grid."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import SimpleITK as sitk
from scipy.ndimage import affine_transform

from nnunetlike.core.errors import DataError
from nnunetlike.core.serialization import atomic_path
from nnunetlike.core.typing import FloatArray, LabelMap
from nnunetlike.data.doctor.case import read_label_voxels
from nnunetlike.data.doctor.complaint import (
    BETWEEN_VOXELS,
    NEAR_INTEGER,
    OTHER_GRID,
    OTHER_SIZE,
    ROUNDED_GRID,
)
from nnunetlike.data.doctor.grids import affine
from nnunetlike.data.doctor.layout import short
from nnunetlike.data.doctor.treatment import Orders, Treatment
from nnunetlike.data.geometry import Geometry
from nnunetlike.data.imageio import format_of

ELSEWHERE = {OTHER_GRID, OTHER_SIZE}
GRIDS = {*ELSEWHERE, BETWEEN_VOXELS, ROUNDED_GRID}


def fill_image(path: Path, target: Path, orders: Orders) -> str:
    """Write an image with its voxels that are not finite replaced, and say so.

    Raises:
        DataError: the format cannot be written with floating-point voxels.
    """
    if path.name.lower().endswith((".nii", ".nii.gz")):
        stored: Any = nibabel.load(path)
        voxels, number, value = _filled(np.asanyarray(stored.dataobj), orders)
        header = stored.header.copy()
        header.set_data_dtype(voxels.dtype)
        with atomic_path(target) as temporary:
            nibabel.save(type(stored)(voxels, stored.affine, header), temporary)
    elif format_of(path).multichannel:
        raise DataError(f"{path} is a picture, whose voxels cannot be filled; leave --fill out")
    else:
        image = sitk.ReadImage(str(path))
        voxels, number, value = _filled(sitk.GetArrayFromImage(image), orders)
        mended = sitk.GetImageFromArray(voxels)
        mended.CopyInformation(image)
        with atomic_path(target) as temporary:
            sitk.WriteImage(mended, str(temporary), useCompression=True)
    return f"{short(path)}: {number} voxels that were not finite are now {value:.6g}"


def mend_label(treatment: Treatment, target: Path, orders: Orders) -> list[str]:
    """Write the label of a case, mended, in the smallest integer type; return what was done."""
    path, image = treatment.case.label, treatment.case.images[0]
    assert path is not None, "cases without label are left out"
    assert image is not None, "cases without image are left out"
    wrong, values = set(treatment.rewrite), treatment.values or {}
    voxels, grid = read_label_voxels(path)
    label = relabel(np.rint(voxels).astype(np.int32), values)
    done = ["rounded to integers"] if NEAR_INTEGER in wrong else []
    done += [f"label {old} is now {new}" for old, new in values.items()]
    like = path
    if GRIDS & wrong:
        _, wanted = format_of(image).read([image])
        if ELSEWHERE & wrong and orders.grid == "resample":
            label = resample(label, grid, wanted)
            left = np.count_nonzero(label)
            done.append(f"resampled onto the grid of {short(image)}; {left} foreground voxels left")
        else:
            done.append(f"has the geometry of {short(image)} now")
        grid, like = wanted, image
    smallest = np.uint8 if label.max(initial=0) < 256 else np.uint16
    format_of(target).write_label(label.astype(smallest), grid, target, like=like)
    return [f"{short(path)}: {text}" for text in done]


def relabel(label: LabelMap, values: Mapping[int, int]) -> LabelMap:
    """Return a label map with new values in place of old ones, all replaced at once."""
    changed = label.copy()
    for old, new in values.items():
        changed[label == old] = new
    return changed


def resample(label: LabelMap, grid: Geometry, wanted: Geometry) -> LabelMap:
    """Return a label map on another grid, by the nearest voxel; 0 outside the old one.

    Args:
        label: (D, H, W).
        grid: where the label lies.
        wanted: where it should lie.
    """
    backwards = np.linalg.inv(affine(grid)) @ affine(wanted)
    matrix, offset = backwards[:3, :3][::-1, ::-1], backwards[:3, 3][::-1]
    resampled: LabelMap = affine_transform(
        label, matrix, offset, output_shape=wanted.shape, order=0, mode="grid-constant", cval=0
    )
    return resampled


def _filled(voxels: FloatArray, orders: Orders) -> tuple[FloatArray, int, float]:
    """Return the voxels with finite ones only, how many were replaced, and by what."""
    finite = np.isfinite(voxels)
    if isinstance(orders.fill, float):
        value = orders.fill
    else:
        value = float(voxels[finite].min()) if finite.any() else 0.0
    return np.where(finite, voxels, value).astype(voxels.dtype), int((~finite).sum()), value
