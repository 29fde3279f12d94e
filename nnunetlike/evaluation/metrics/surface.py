"""Distances between surfaces, in mm."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy import ndimage

from nnunetlike.core.typing import BoolArray, FloatArray, Spacing
from nnunetlike.evaluation.metrics import METRICS, Comparison, Metric


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
    box = _bounding_box(case.prediction | case.reference)
    prediction, reference = _surface(case.prediction[box]), _surface(case.reference[box])
    distances = np.concatenate(
        [
            _distance_to(reference, case.spacing)[prediction],
            _distance_to(prediction, case.spacing)[reference],
        ]
    )
    return float(np.percentile(distances, 95))


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


def _distance_to(surface: BoolArray, spacing: Spacing) -> FloatArray:
    distance: Any = ndimage.distance_transform_edt(~surface, sampling=spacing)
    return np.asarray(distance)


METRICS.add("Hausdorff Distance 95", Metric(hausdorff_95, advanced=True))
