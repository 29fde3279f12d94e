"""NIfTI through nibabel: files that SimpleITK refuses or mistakes, and headers kept bit for bit.

SimpleITK refuses NIfTI-2 and axes that are not at right angles, reads NaN as 0, and reads `x.nii`
when asked for `x.nii.gz` if both lie in one folder. World coordinates of NIfTI are RAS, those of
`Geometry` LPS.
"""

from __future__ import annotations

import gzip
import logging
import math
import os
import zlib
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

from nnunetlike.core.errors import DataError
from nnunetlike.core.typing import LabelMap
from nnunetlike.data.geometry import SLICE_THICKNESS, Geometry
from nnunetlike.data.imageio.nifti_bytes import UNREADABLE, with_shape, write_voxels
from nnunetlike.data.orientation import orientation_of

ENDINGS = (".nii.gz", ".nii")
NOT_SKEWED = 1e-6
"""Largest difference of direction cosines from a rotation that is rounding."""

WHERE = (
    "pixdim", "xyzt_units", "qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d",
    "qoffset_x", "qoffset_y", "qoffset_z", "srow_x", "srow_y", "srow_z",
)  # fmt: skip
"""Fields of a NIfTI header that say where the voxels lie."""

TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])

logger = logging.getLogger(__name__)


def is_nifti(path: Path) -> bool:
    """Tell by its name whether a file is NIfTI."""
    return path.name.lower().endswith(ENDINGS)


def is_shadowed(path: Path) -> bool:
    """Tell whether ITK would read another file: `x.nii` beside `x.nii.gz`."""
    return path.name.lower().endswith(".nii.gz") and path.with_suffix("").exists()


def require_complete(path: Path) -> None:
    """Refuse a NIfTI file that ends early; SimpleITK would fill what is missing with zeros.

    What nibabel cannot read at all is left to the reader to complain of.

    Raises:
        DataError: the file is shorter than its header says.
    """
    try:
        image: Any = nibabel.load(path)
        header = image.header
    except UNREADABLE:
        return
    stored = math.prod(header.get_data_shape()) * header.get_data_dtype().itemsize
    expected = int(image.dataobj.offset) + stored  # nibabel sets the header's own to 0
    if _length(path, expected) < expected:
        raise DataError(
            f"{path} is cut short: it ends before the {expected} bytes that its header asks for. "
            "Copy or export it again"
        )


def _length(path: Path, expected: int) -> int:
    """Return the bytes of a file after decompression, counted no further than `expected`.

    The last four bytes of a gzip file say how many it held, if it is whole.
    """
    if not path.name.lower().endswith(".gz"):
        return path.stat().st_size
    with path.open("rb") as stream:
        stream.seek(-4, os.SEEK_END)
        if int.from_bytes(stream.read(4), "little") == expected % 2**32:
            return expected
    found = 0
    try:
        with gzip.open(path) as packed:
            while found < expected and (part := packed.read(1 << 20)):
                found += len(part)
    except (OSError, EOFError, zlib.error):
        return found
    return found


def restored(voxels: Any, path: Path) -> Any:
    """Return voxels as ITK read them, with NaN and infinity where the NIfTI file has them.

    ITK reads both as 0 and does not say so. Files without any zero need not be read again.

    Args:
        voxels: (D, H, W), or with more leading axes of length one.
        path: their file.
    """
    if voxels.dtype.kind != "f" or np.all(voxels):
        return voxels
    try:
        image: Any = nibabel.load(path)
        if image.get_data_dtype().kind != "f":
            return voxels
        stored = np.asanyarray(image.dataobj).T.reshape(voxels.shape)
    except UNREADABLE:  # ITK was more lenient
        return voxels
    return np.where(np.isfinite(stored), voxels, stored).astype(voxels.dtype, copy=False)


def read_nifti(path: Path) -> tuple[Any, Geometry]:
    """Return the voxels (D, H, W) as stored, scaled, and their grid.

    Axes that are not at right angles become the nearest rotation, and a warning says by how much;
    the spacing is the distance between voxel centres along each axis.

    Raises:
        DataError: the file is damaged, or has neither two nor three dimensions.
    """
    try:
        image: Any = nibabel.load(path)
        voxels = np.asanyarray(image.dataobj)
    except UNREADABLE as error:
        raise DataError(f"{path} cannot be read as NIfTI: {error}") from None
    while voxels.ndim > 3 and voxels.shape[-1] == 1:
        voxels = voxels[..., 0]
    if voxels.ndim not in (2, 3) or voxels.dtype.kind not in "iufb":
        raise DataError(
            f"{path} holds an array {voxels.shape} of {voxels.dtype}; an image file holds one "
            "channel of two or three dimensions. Convert 4-D files with "
            "nnUNet_convert_decathlon_task"
        )
    is_flat = voxels.ndim == 2
    volume = voxels.T[None] if is_flat else voxels.T
    return volume, _geometry(path, volume.shape, np.asarray(image.affine, float), is_flat)


def _geometry(path: Path, shape: tuple[int, ...], affine: Any, is_flat: bool) -> Geometry:
    lps = TO_LPS @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    if not np.isfinite(lps).all() or spacing.min() <= 0:
        raise DataError(
            f"{path}: the header gives no usable axes (affine {affine.tolist()}). Export it anew"
        )
    direction = _nearest_rotation(path, lps[:3, :3] / spacing)
    d, h, w = shape
    x, y, z = (float(value) for value in spacing)
    return Geometry(
        shape=(d, h, w),
        spacing=(SLICE_THICKNESS if is_flat else z, y, x),
        origin=(float(lps[0, 3]), float(lps[1, 3]), float(lps[2, 3])),
        direction=tuple(float(value) for value in direction.ravel()),
        leading="single" if d == 1 else "space",
    )


def _nearest_rotation(path: Path, cosines: Any) -> Any:
    """Return the orthogonal matrix nearest to `cosines`.

    Source: Higham, "Computing the polar decomposition, with applications", SIAM J. Sci. Stat.
    Comput. 1986.
    """
    left, _, right = np.linalg.svd(cosines)
    rotation = left @ right
    skew = float(np.abs(rotation - cosines).max())
    if skew > NOT_SKEWED:
        logger.warning(
            "%s: the axes are not at right angles; direction cosines were changed by up to %.1g "
            "to the nearest rotation. Predictions keep the axes of the file", path, skew,
        )  # fmt: skip
        return rotation
    return cosines


def read_header(path: Path) -> Any:
    """Return the header of a NIfTI file (nibabel), or None where `path` is none or is damaged."""
    if not is_nifti(path) or not path.is_file():
        return None
    try:
        image: Any = nibabel.load(path)
    except UNREADABLE:
        return None
    return image.header


def nifti_orientation(path: Path) -> str | None:
    """Return where the axes of a volume point; None of what is none, or cannot be read."""
    header = read_header(path)
    if header is None or len(header.get_data_shape()) < 3 or 1 in header.get_data_shape()[:3]:
        return None
    return orientation_of((TO_LPS @ header.get_best_affine())[:3, :3].ravel().tolist())


def write_like(label: LabelMap, like: Path, path: Path) -> bool:
    """Write a label map (D, H, W) with the position of another file, bit for bit.

    NIfTI-2 gives NIfTI-2, a file of two dimensions one of two.

    Args:
        label: integers.
        like: the other file.
        path: file to write, whole or not at all.

    Returns:
        Whether it was written: not if `like` is no NIfTI file, or of another shape.
    """
    source = read_header(like)
    if source is None or not is_nifti(path):
        return False
    shape = tuple(int(n) for n in source.get_data_shape())
    voxels = label[0].T if len(shape) == 2 and label.shape[0] == 1 else label.T
    if shape[: voxels.ndim] != voxels.shape:
        return False
    kind: Any = nibabel.Nifti2Image if source["sizeof_hdr"] == 540 else nibabel.Nifti1Image
    header = kind.header_class()
    header.set_data_dtype(voxels.dtype)
    one = kind(np.zeros((1,) * voxels.ndim, voxels.dtype), None, header)
    for field in WHERE:
        one.header[field] = source[field]
    head = one.to_bytes()[: -voxels.dtype.itemsize]
    write_voxels(with_shape(head, kind.header_class, voxels.shape), voxels.T, path)
    return True
