"""Label maps on another grid, at a cost that does not depend on the number of labels.

Meant is: resize the 0/1 mask of every label, and give a voxel the largest label whose mask reaches
1/2 there, or 0. For linear interpolation only the eight voxels around matter (`corner_rule`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from nnunetlike.core.compiled import compiled
from nnunetlike.core.errors import ShapeError
from nnunetlike.core.typing import LabelMap
from nnunetlike.preprocessing.corner_rule import apply_corner_rule
from nnunetlike.preprocessing.resampling import check_request
from nnunetlike.preprocessing.taps import LinearTaps, linear_taps, nearest

Scalar = TypeVar("Scalar", bound=np.integer)


def resample_label(
    label: npt.NDArray[Scalar],
    shape: Sequence[int],
    *,
    order: int = 1,
    axis: int | None = None,
    order_z: int = 0,
) -> npt.NDArray[Scalar]:
    """Return `label` on a grid of another shape over the same extent.

    Args:
        label: (D, H, W); negative labels are labels like others.
        shape: new (D, H, W).
        order: 0 takes the nearest voxel, 1 interpolates the masks linearly, 3 by cubic splines
            (then the cost grows with the number of labels).
        axis: the axis whose slices are resampled each for itself, or None.
        order_z: along the separate axis; 1 and 3 give a label where its mask exceeds 1/2.

    Returns:
        Array of `shape` in the dtype of `label`; `label` itself if the shape is unchanged.

    Raises:
        UsageError: an order or axis is not known.
        ShapeError: the label or the shape does not have three axes.
    """
    if label.ndim != 3:
        raise ShapeError(f"a label has the axes D, H, W; this one has shape {label.shape}")
    new_shape = check_request(shape, order, axis, order_z)
    if label.shape == new_shape:
        return label
    small = label.dtype in (np.int8, np.uint8, np.int16)
    work: LabelMap = label.astype(np.int16 if small else np.int32, copy=False)
    if axis is None:
        resampled = _resample(work, new_shape, order)
    else:
        turned = np.moveaxis(work, axis, 0)
        depth, height, width = (new_shape[i] for i in (axis, *_others(axis)))
        resampled = _resample_apart(turned, (depth, height, width), order, order_z)
        resampled = np.ascontiguousarray(np.moveaxis(resampled, 0, axis))
    return resampled.astype(label.dtype, copy=False)


def _others(axis: int) -> list[int]:
    return [other for other in range(3) if other != axis]


def _resample_apart(
    label: LabelMap, shape: tuple[int, int, int], order: int, order_z: int
) -> LabelMap:
    """Resample each slice, then the first axis."""
    if order_z == 0:
        if len(label) == shape[0]:
            return _resample(label, shape, order)
        shown, where = np.unique(nearest(len(label), shape[0]), return_inverse=True)
        return _resample(label[shown], (len(shown), *shape[1:]), order)[where.reshape(-1)]
    slices = _resample(label, (len(label), *shape[1:]), order)
    if len(slices) == shape[0]:
        return slices
    if order_z == 1:
        out = np.empty(shape, slices.dtype)
        _blend_slices(slices, out, linear_taps(len(slices), shape[0]))
        return out
    return _by_masks(slices, shape, at_half=False)


def _resample(label: LabelMap, shape: tuple[int, int, int], order: int) -> LabelMap:
    if label.shape == shape:
        return label
    if order == 0:
        return label[np.ix_(*map(nearest, label.shape, shape))]
    if order == 3:
        return _by_masks(label, shape, at_half=True)
    out = np.empty(shape, label.dtype)
    depth, height, width = map(linear_taps, label.shape, shape)
    apply_corner_rule(np.ascontiguousarray(label), out, depth, height, width)
    return out


def _by_masks(label: LabelMap, shape: tuple[int, int, int], *, at_half: bool) -> LabelMap:
    """Resize the mask of each label present by cubic splines; `at_half`: 1/2 is enough.

    SciPy's own loop, for here rounding decides the many masks that lie at 1/2 exactly.
    """
    from scipy import ndimage  # which takes longer to import than a small case to resample

    out = np.zeros(shape, label.dtype)
    factors = [new / old for old, new in zip(label.shape, shape, strict=True)]
    for value in np.unique(label):
        mask = (label == value).astype(np.float64)
        share = ndimage.zoom(mask, factors, order=3, mode="nearest", grid_mode=True)
        out[share >= 0.5 if at_half else share > 0.5] = value
    return out


@compiled
def _blend_slices(slices: LabelMap, out: LabelMap, depth: LinearTaps) -> None:
    """Give each voxel the label that holds more than half of its two slices' weights, or 0."""
    for i in range(out.shape[0]):
        below, above = slices[depth.low[i]], slices[depth.high[i]]
        low, high = depth.low_weight[i], depth.high_weight[i]
        for j in range(out.shape[1]):
            for k in range(out.shape[2]):
                if below[j, k] == above[j, k] or low > 0.5:
                    out[i, j, k] = below[j, k]
                elif high > 0.5:
                    out[i, j, k] = above[j, k]
                else:
                    out[i, j, k] = 0
