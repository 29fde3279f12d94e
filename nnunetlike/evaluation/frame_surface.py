"""Distances between the outlines of two masks of one frame."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from nnunetlike.core.typing import BoolArray, FloatArray

PERCENTILE = 95


class SurfaceScore(NamedTuple):
    """Distances between two outlines, in the unit of the spacing."""

    hd95: float
    """The larger of the 95th percentiles of the distances from either outline to the other."""

    asd: float
    """Mean of the distances from both outlines to the other, pooled."""


NOT_AVAILABLE = SurfaceScore(math.nan, math.nan)


def surface_score(
    prediction: BoolArray, reference: BoolArray, spacing: tuple[float, float]
) -> SurfaceScore:
    """Return the distances between the outlines of a predicted and a reference mask.

    An outline is every pixel of the mask that a 4-neighbour erosion takes away; at the border of
    the frame that is the border's pixels. Percentiles are interpolated linearly.

    Args:
        prediction: mask, (H, W).
        reference: mask, (H, W).
        spacing: distance between pixel centres along H and W; (1, 1) measures in pixels.

    Returns:
        NaN if both masks are empty; the diagonal of the field of view, H x W pixels, if one is.

    Source: 95th percentile after Huttenlocher et al., "Comparing images using the Hausdorff
    distance", PAMI 1993; the larger of both directions as in Taha and Hanbury, "Metrics for
    evaluating 3D medical image segmentation", BMC Medical Imaging 2015.
    """
    either = prediction | reference
    if not either.any():
        return NOT_AVAILABLE
    if not prediction.any() or not reference.any():
        diagonal = math.hypot(*np.multiply(either.shape, spacing))
        return SurfaceScore(diagonal, diagonal)
    box = ndimage.find_objects(either.astype(np.uint8))[0]  # no outline lies outside it
    ours, theirs = outline(prediction[box]), outline(reference[box])
    there = _distance_to(theirs, spacing)[ours]
    back = _distance_to(ours, spacing)[theirs]
    hd95 = max(float(np.percentile(found, PERCENTILE)) for found in (there, back))
    return SurfaceScore(hd95, math.fsum((*there, *back)) / (len(there) + len(back)))


def outline(mask: BoolArray) -> BoolArray:
    """Return the pixels of a mask (H, W) with a side on the background or on the border."""
    return np.asarray(mask & ~ndimage.binary_erosion(mask), dtype=bool)


def _distance_to(pixels: BoolArray, spacing: tuple[float, float]) -> FloatArray:
    return np.asarray(ndimage.distance_transform_edt(~pixels, sampling=spacing))
