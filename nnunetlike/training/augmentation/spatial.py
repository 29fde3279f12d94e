"""Where a training patch is cut, rotated, scaled and mirrored; one resampling for all of it.

Axes: C channels, then the spatial axes of the patch: (D, H, W), or (H, W) in 2D. In the plane of a
volume ("dummy 2D") every slice along D is treated as in 2D.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, cos, floor, pi, prod, sin
from typing import TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from nnunetlike.core.typing import FloatArray, LabelMap, Size
from nnunetlike.training.augmentation import coefficients as spline
from nnunetlike.training.augmentation import interpolation, label_gather

Span: TypeAlias = tuple[int, int]
Scalar = TypeVar("Scalar", bound=np.generic)
CONTEXT = 12
"""Samples beyond the taps that the spline filter needs for float32 accuracy (0.27^12 = 1e-7)."""


class Scratch(threading.local):
    """Memory for coefficients that outlives a patch; every thread has its own.

    The system clears memory before it hands it out, which takes as long as a third of filtering.
    """

    _held: npt.NDArray[np.float32] = np.empty(0, np.float32)

    def __reduce__(self) -> tuple[type[Scratch], tuple[()]]:
        """Leave the memory behind in a copy."""
        return Scratch, ()

    def array(self, shape: Sequence[int]) -> npt.NDArray[np.float32]:
        """Return an array of any content, overwritten by whoever asks next in the same thread."""
        size = prod(shape)
        if size > self._held.size:
            self._held = np.empty(size, np.float32)
        return self._held[:size].reshape(shape)


@dataclass(frozen=True)
class Affine:
    """A rotation and a scaling about the centre.

    Args:
        angles: in radians, one per axis of a volume, or a single one in the plane.
        scale: source voxels per patch voxel; above 1 shows more of the image.
    """

    angles: tuple[float, ...]
    scale: float = 1.0

    @property
    def matrix(self) -> npt.NDArray[np.float64]:
        """Source step (rows) per step along each patch axis (columns)."""
        return self.scale * rotation_matrix(self.angles).T


def rotation_matrix(angles: Sequence[float]) -> npt.NDArray[np.float64]:
    """Return v1's rotation R, which acts on row vectors from the right (v · R).

    Args:
        angles: about axes 0, 1 and 2, in radians (R = Rx · Ry · Rz); or one angle in the plane.

    Source: nnU-Net v1 (batchgenerators' rotate_coords_3d and rotate_coords_2d).
    """
    if len(angles) == 1:
        c, s = cos(angles[0]), sin(angles[0])
        return np.array([[c, -s], [s, c]])
    (cx, sx), (cy, sy), (cz, sz) = ((cos(a), sin(a)) for a in angles)
    about_0 = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_1 = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_2 = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return np.asarray(about_0 @ about_1 @ about_2)


def generator_patch_size(patch_size: Size, angles: Sequence[float], scale: float = 0.85) -> Size:
    """Return the size to read so that a rotated, scaled patch mostly stays inside.

    Args:
        patch_size: what the network sees, two or three axes, in voxels.
        angles: largest rotation about each axis, in radians; only the first counts in 2D.
        scale: the smallest scale; v1 uses 0.85 though it scales down to 0.7.

    Source: nnU-Net v1 (get_patch_size): the far corner is rotated about one axis at a time.
    """
    corner = np.array(patch_size, np.float64)
    largest = corner.copy()
    limited = [min(abs(angle), pi / 2) for angle in angles]
    for axis in range(1 if len(patch_size) == 2 else 3):
        turn = [0.0] * (1 if len(patch_size) == 2 else 3)
        turn[axis] = limited[axis]
        largest = np.maximum(largest, np.abs(corner @ rotation_matrix(turn)))
    return tuple(int(v) for v in largest / scale)


def centre_spans(shape: Sequence[int], patch_size: Sequence[int]) -> tuple[Span, ...]:
    """Return half-open ranges of the centred patch; they leave `shape` where it is smaller."""
    starts = [(n - p) // 2 for n, p in zip(shape, patch_size, strict=True)]
    return tuple((s, s + p) for s, p in zip(starts, patch_size, strict=True))


def cut(array: npt.NDArray[Scalar], spans: Sequence[Span], fill: int) -> npt.NDArray[Scalar]:
    """Return a copy of the last axes of `array` within `spans`; outside of it is `fill`."""
    lead = array.ndim - len(spans)
    sizes = array.shape[lead:]
    inner = [(max(lo, 0), min(hi, n)) for (lo, hi), n in zip(spans, sizes, strict=True)]
    part = array[_index(lead, [(lo, max(lo, hi)) for lo, hi in inner])]
    if part.shape[lead:] == tuple(hi - lo for lo, hi in spans):
        return np.array(part, order="C")
    result = np.full((*array.shape[:lead], *(hi - lo for lo, hi in spans)), fill, array.dtype)
    if part.size:
        pairs = zip(inner, spans, strict=True)
        result[_index(lead, [(lo - s, hi - s) for (lo, hi), (s, _) in pairs])] = part
    return result


def _index(lead: int, spans: Sequence[Span]) -> tuple[slice, ...]:
    return (slice(None),) * lead + tuple(slice(*span) for span in spans)


def source_spans(affine: Affine, shape: Size, patch_size: Size) -> tuple[Span, ...]:
    """Return the half-open box of the source that a resampled patch depends on.

    Args:
        affine: of two or three axes.
        shape: of the source, in as many axes.
        patch_size: of the result.
    """
    reach = np.abs(affine.matrix) @ ((np.array(patch_size) - 1) / 2)
    spans = []
    for n, r in zip(shape, reach, strict=True):
        middle = (n - 1) / 2
        low = max(0, floor(middle - r) - 1 - CONTEXT)
        high = min(n, ceil(middle + r) + 2 + CONTEXT)
        spans.append((min(low, n - 1), high))
    return tuple(spans)


def resample(
    image: FloatArray,
    label: LabelMap,
    affine: Affine,
    patch_size: Size,
    shape: Size | None = None,
    origin: Sequence[int] | None = None,
    scratch: Scratch | None = None,
) -> tuple[npt.NDArray[np.float32], LabelMap]:
    """Return the patch of an image and its label, rotated and scaled about the centre.

    The image is interpolated by cubic B-splines, its border mirrored for the spline, 0 outside.
    A label wins a voxel when it holds at least half of the linear weight (when two do, the larger
    one); 0 where none does and outside.

    Args:
        image: (C, *block).
        label: (*block).
        affine: one angle acts in the plane of the last two axes.
        patch_size: of the result, as many axes as the block.
        shape: of the whole source when the arrays are only its block `source_spans`.
        origin: first voxel of that block.
        scratch: memory for coefficients; without it they get memory of their own.

    Source: nnU-Net v1 (map_coordinates of order 3 and 1, mode constant).
    """
    axes = len(affine.matrix)
    shape = shape or label.shape
    origin = origin or (0,) * label.ndim
    whole, first = np.array(shape[-axes:]), np.array(origin[-axes:], np.int64)
    matrix = np.ascontiguousarray(affine.matrix)
    start = (whole - 1) / 2 - matrix @ ((np.array(patch_size[-axes:]) - 1) / 2)
    last = (whole - 1).astype(np.float64)
    new_label = np.empty(patch_size, label.dtype)
    new_image = np.empty((len(image), *patch_size), np.float32)
    block = np.ascontiguousarray(image, np.float32)
    label = np.ascontiguousarray(label)
    scratch = scratch or Scratch()
    if axes == 3:
        coefficients = scratch.array((len(block), *(n + 3 for n in label.shape)))
        for channel, filled in zip(block, coefficients, strict=True):
            spline.volume_coefficients(channel, filled)
        gather = interpolation.gather_volume if any(affine.angles) else interpolation.stretch_volume
        gather(coefficients, matrix, start, last, first, new_image)
        label_gather.gather_volume_labels(label, matrix, start, last, first, new_label)
        return new_image, new_label
    plane, new_plane = label.shape[-2:], patch_size[-2:]
    slices = block.reshape(-1, *plane)
    coefficients = scratch.array((len(slices), *(n + 3 for n in plane)))
    spline.slice_coefficients(slices, coefficients)
    interpolation.gather_slices(
        coefficients, matrix, start, last, first, new_image.reshape(-1, *new_plane)
    )
    label_gather.gather_slice_labels(
        label.reshape(-1, *plane), matrix, start, last, first, new_label.reshape(-1, *new_plane)
    )
    return new_image, new_label


def mirror(image: npt.NDArray[Scalar], axes: Sequence[int], lead: int = 0) -> npt.NDArray[Scalar]:
    """Return a view of `image` reversed along the spatial `axes`, of which `lead` axes precede."""
    return np.flip(image, tuple(axis + lead for axis in axes))
