"""The thirteen metrics of nnU-Net v1 that follow from counts alone.

A ratio whose denominator is zero is NaN: Dice and Jaccard when both masks are empty, Precision when
nothing was predicted, Recall when there is nothing to find, and so on.

Source: names and NaN rules of nnU-Net v1 (1.7.1).
"""

from __future__ import annotations

import math

from nnunetlike.evaluation.metrics import METRICS, Comparison, Metric


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else math.nan


def accuracy(case: Comparison) -> float:
    """Return the share of voxels on which prediction and reference agree."""
    c = case.counts
    return _ratio(c.tp + c.tn, c.tp + c.fp + c.fn + c.tn)


def dice(case: Comparison) -> float:
    """Return twice the overlap over the sum of both volumes."""
    c = case.counts
    return _ratio(2 * c.tp, 2 * c.tp + c.fp + c.fn)


def jaccard(case: Comparison) -> float:
    """Return the overlap over the union."""
    c = case.counts
    return _ratio(c.tp, c.tp + c.fp + c.fn)


def precision(case: Comparison) -> float:
    """Return the share of the predicted voxels that are right."""
    return _ratio(case.counts.tp, case.counts.tp + case.counts.fp)


def false_discovery_rate(case: Comparison) -> float:
    """Return the share of the predicted voxels that are wrong."""
    return _ratio(case.counts.fp, case.counts.tp + case.counts.fp)


def recall(case: Comparison) -> float:
    """Return the share of the reference voxels that were found."""
    return _ratio(case.counts.tp, case.counts.tp + case.counts.fn)


def false_negative_rate(case: Comparison) -> float:
    """Return the share of the reference voxels that were missed."""
    return _ratio(case.counts.fn, case.counts.tp + case.counts.fn)


def true_negative_rate(case: Comparison) -> float:
    """Return the share of the voxels outside the reference that were left out."""
    return _ratio(case.counts.tn, case.counts.tn + case.counts.fp)


def false_positive_rate(case: Comparison) -> float:
    """Return the share of the voxels outside the reference that were predicted."""
    return _ratio(case.counts.fp, case.counts.tn + case.counts.fp)


def negative_predictive_value(case: Comparison) -> float:
    """Return the share of the voxels left out that are outside the reference."""
    return _ratio(case.counts.tn, case.counts.tn + case.counts.fn)


def false_omission_rate(case: Comparison) -> float:
    """Return the share of the voxels left out that belong to the reference."""
    return _ratio(case.counts.fn, case.counts.tn + case.counts.fn)


def total_positives_reference(case: Comparison) -> int:
    """Return the number of reference voxels."""
    return case.counts.tp + case.counts.fn


def total_positives_test(case: Comparison) -> int:
    """Return the number of predicted voxels."""
    return case.counts.tp + case.counts.fp


METRICS.add("Accuracy", Metric(accuracy))
METRICS.add("Dice", Metric(dice))
METRICS.add("False Discovery Rate", Metric(false_discovery_rate))
METRICS.add("False Negative Rate", Metric(false_negative_rate))
METRICS.add("False Omission Rate", Metric(false_omission_rate))
METRICS.add("False Positive Rate", Metric(false_positive_rate))
METRICS.add("Jaccard", Metric(jaccard))
METRICS.add("Negative Predictive Value", Metric(negative_predictive_value))
METRICS.add("Precision", Metric(precision))
METRICS.add("Recall", Metric(recall))
METRICS.add("Total Positives Reference", Metric(total_positives_reference))
METRICS.add("Total Positives Test", Metric(total_positives_test))
METRICS.add("True Negative Rate", Metric(true_negative_rate))
