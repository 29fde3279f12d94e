"""Volumes of structures, in mL."""

from __future__ import annotations

import math

from nnunetlike.evaluation.metrics import FAMILIES, Comparison, Family, Metric

MM3_PER_ML = 1000


def volume_reference(case: Comparison) -> float:
    """Return the volume of the reference; 0 if it is empty."""
    return (case.counts.tp + case.counts.fn) * _voxel(case)


def volume_test(case: Comparison) -> float:
    """Return the predicted volume; 0 if nothing was predicted."""
    return (case.counts.tp + case.counts.fp) * _voxel(case)


def volume_difference(case: Comparison) -> float:
    """Return by how much the prediction exceeds the reference; negative if it falls short."""
    return (case.counts.fp - case.counts.fn) * _voxel(case)


def _voxel(case: Comparison) -> float:
    return math.prod(case.spacing) / MM3_PER_ML


VOLUMES = {
    "Volume Reference (mL)": Metric(volume_reference),
    "Volume Test (mL)": Metric(volume_test),
    "Volume Difference (mL)": Metric(volume_difference),
}
FAMILIES.add("volume", Family(lambda _: VOLUMES))
