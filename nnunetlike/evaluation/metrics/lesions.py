"""Lesions found and missed: connected components, counted alike whatever their size.

Voxels are of one lesion when they share a face, an edge or a corner (26 neighbours, 8 in a slice).
A lesion of the reference is found if a voxel of it is predicted; a predicted one is right if a
voxel of it lies in the reference.

Source: the overlap of one voxel is that of Liew et al., "A large, curated, open-source stroke
neuroimaging dataset to improve lesion segmentation algorithms", Scientific Data 2022 (ATLAS v2.0),
and of ISLES 2022 (Hernandez Petzsche et al., Scientific Data 2022).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import cc3d
import numpy as np

from nnunetlike.core.typing import BoolArray
from nnunetlike.evaluation.metrics import FAMILIES, Comparison, Family, Metric


class Lesions(NamedTuple):
    """Numbers of lesions in one structure of one case."""

    reference: int
    found: int
    predicted: int
    right: int


def lesions(case: Comparison) -> Lesions:
    """Return how many lesions there are, are found, are predicted and are right."""

    def count() -> Lesions:
        """Return the numbers."""
        found, reference = _overlapping(case.reference, case.prediction)
        right, predicted = _overlapping(case.prediction, case.reference)
        return Lesions(reference, found, predicted, right)

    return case.once("lesions", count)


def _overlapping(mask: BoolArray, other: BoolArray) -> tuple[int, int]:
    """Return the components of a mask that overlap the other one, and all."""
    components = cc3d.connected_components(mask.astype(np.uint8), connectivity=26)
    return len(np.unique(components[mask & other])), int(components.max(initial=0))


def lesion_precision(case: Comparison) -> float:
    """Return the share of the predicted lesions that are right; NaN if none is predicted."""
    found = lesions(case)
    return found.right / found.predicted if found.predicted else math.nan


def lesion_recall(case: Comparison) -> float:
    """Return the share of the reference's lesions that are found; NaN if it has none."""
    found = lesions(case)
    return found.found / found.reference if found.reference else math.nan


def lesion_f1(case: Comparison) -> float:
    """Return the harmonic mean of precision and recall; 0 if one has none, NaN if neither has."""
    precision, recall = lesion_precision(case), lesion_recall(case)
    if math.isnan(precision) or math.isnan(recall):
        return math.nan if math.isnan(precision) and math.isnan(recall) else 0.0
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def lesions_reference(case: Comparison) -> int:
    """Return the number of lesions of the reference."""
    return lesions(case).reference


def lesions_test(case: Comparison) -> int:
    """Return the number of predicted lesions."""
    return lesions(case).predicted


LESIONS = {
    "Lesion Precision": Metric(lesion_precision),
    "Lesion Recall": Metric(lesion_recall),
    "Lesion F1": Metric(lesion_f1),
    "Lesions Reference": Metric(lesions_reference),
    "Lesions Test": Metric(lesions_test),
}
FAMILIES.add("lesions", Family(lambda _: LESIONS))
