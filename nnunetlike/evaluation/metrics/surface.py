"""Distances between surfaces, in mm."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
from scipy import ndimage
from scipy.spatial import KDTree

from nnunetlike.core.typing import BoolArray, FloatArray, IntArray
from nnunetlike.evaluation.metrics import FAMILIES, METRICS, Comparison, Family, Metric


def hausdorff_95(case: Comparison) -> float:
    """Return the 95th percentile of the distances between both surfaces, in mm.

    The surface is every mask voxel with a face on the background or on the border of the volume;
    the distances from either surface to the nearest voxel of the other are pooled. NaN if a mask
    is empty or fills the volume.

    Source: Huttenlocher et al., "Comparing images using the Hausdorff distance", PAMI 1993, with
    the percentile and the conventions of medpy's hd95, which nnU-Net v1 uses.
    """
    c = case.counts
    predicted, wanted = c.tp + c.fp, c.tp + c.fn
    if 0 in (predicted, wanted) or c.tp + c.fp + c.fn + c.tn in (predicted, wanted):
        return math.nan
    there, back = _distances(case, tuple(range(case.prediction.ndim)))
    return float(np.percentile(np.concatenate([there, back]), 95))


def average_surface_distance(case: Comparison) -> float:
    """Return the mean distance of the voxels of both surfaces to the other surface, in mm.

    Distances of either surface are pooled, so each voxel counts alike (ASSD). A single slice has
    an outline: the axis of length 1 does not count. NaN if a mask is empty.

    Source: Heimann et al., "Comparison and evaluation of methods for liver segmentation from CT
    datasets", IEEE TMI 2009.
    """
    if not (case.prediction.any() and case.reference.any()):
        return math.nan
    there, back = _distances(case, _long_axes(case))
    return math.fsum((*there, *back)) / (len(there) + len(back))


def normalised_surface_dice(case: Comparison, *, tolerance_mm: float) -> float:
    """Return the share of the voxels of both surfaces that lie near enough to the other surface.

    Surface voxels are counted, each alike, not weighed by the area they stand for. A single slice
    has an outline. NaN if both masks are empty, 0 if one is.

    Args:
        case: what is compared.
        tolerance_mm: the largest distance that is near enough.

    Source: Nikolov et al., "Clinically applicable segmentation of head and neck anatomy for
    radiotherapy", JMIR 2021, arXiv:1809.04430 (there with the areas of a mesh).
    """
    predicted, wanted = bool(case.prediction.any()), bool(case.reference.any())
    if not (predicted and wanted):
        return 0.0 if predicted or wanted else math.nan
    there, back = _distances(case, _long_axes(case))
    near = np.count_nonzero(there <= tolerance_mm) + np.count_nonzero(back <= tolerance_mm)
    return near / (len(there) + len(back))


def _distances(case: Comparison, axes: tuple[int, ...]) -> tuple[FloatArray, FloatArray]:
    """Return the distances from the predicted surface to the reference one, and back, in mm.

    Args:
        case: neither mask is empty.
        axes: that count; the others have length 1.
    """
    return case.once(f"surface distances {axes}", lambda: _measured(case, axes))


def _measured(case: Comparison, axes: tuple[int, ...]) -> tuple[FloatArray, FloatArray]:
    box = _bounding_box(case.prediction | case.reference)
    shape = [side.stop - side.start for axis, side in enumerate(box) if axis in axes]
    prediction, reference = (
        np.argwhere(_surface(mask[box].reshape(shape)))
        for mask in (case.prediction, case.reference)
    )
    spacing = np.array([case.spacing[axis] for axis in axes])
    return (
        _distances_to(prediction, reference, spacing),
        _distances_to(reference, prediction, spacing),
    )


def _long_axes(case: Comparison) -> tuple[int, ...]:
    shape = case.prediction.shape
    return tuple(axis for axis, length in enumerate(shape) if length > 1) or (0,)


def _bounding_box(mask: BoolArray) -> tuple[slice, ...]:
    """Return the smallest box around a mask that is not empty."""
    box = []
    for axis in range(mask.ndim):
        rest = tuple(other for other in range(mask.ndim) if other != axis)
        filled = np.flatnonzero(mask.any(axis=rest))
        box.append(slice(int(filled[0]), int(filled[-1]) + 1))
    return tuple(box)


def _surface(mask: BoolArray) -> BoolArray:
    return np.asarray(mask & ~ndimage.binary_erosion(mask), dtype=bool)


def _distances_to(points: IntArray, others: IntArray, spacing: FloatArray) -> FloatArray:
    """Return how far each of `points` (N, axes) is from the nearest of `others`.

    The tree only says which is nearest; its own distances are of rounded positions.
    """
    tree = KDTree(others * spacing, compact_nodes=False, balanced_tree=False)
    _, nearest = tree.query(points * spacing)
    apart = (others[nearest] - points) * spacing
    return np.asarray(np.sqrt(np.square(apart).sum(axis=1)))


def _surface_dice(tolerance_mm: float) -> dict[str, Metric]:
    measure = partial(normalised_surface_dice, tolerance_mm=tolerance_mm)
    return {f"Normalised Surface Dice {tolerance_mm:g} mm": Metric(measure)}


HD95 = METRICS.add("Hausdorff Distance 95", Metric(hausdorff_95, advanced=True))
ASSD = Metric(average_surface_distance)
FAMILIES.add("hd95", Family(lambda _: {"Hausdorff Distance 95": HD95}))
FAMILIES.add("assd", Family(lambda _: {"Average Symmetric Surface Distance": ASSD}))
FAMILIES.add("nsd", Family(_surface_dice, number="tolerance in mm"))
