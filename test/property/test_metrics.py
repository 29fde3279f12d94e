from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from nnunetlike.evaluation.confusion import confusion
from nnunetlike.evaluation.evaluator import score_case

SPACING = (2.0, 1.0, 0.5)
SHAPES = arrays.array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=5)


@st.composite
def label_pairs(draw: Any) -> tuple[Any, Any]:
    shape = draw(SHAPES)
    maps = arrays.arrays(np.uint8, shape, elements=st.integers(0, 3))
    return draw(maps), draw(maps)


def scores(prediction: Any, reference: Any, label: int = 1) -> dict[str, float]:
    members = {"x": (label,)}
    return score_case(prediction, reference, SPACING, members, advanced=True)["x"]


@settings(max_examples=100, deadline=None)
@given(label_pairs())
def test_confusion_matrix_is_that_of_numpy(pair: tuple[Any, Any]) -> None:
    reference, prediction = pair
    matrix = confusion(reference, prediction, range(4)).matrix
    for a in range(4):
        for b in range(4):
            assert matrix[a, b] == ((reference == a) & (prediction == b)).sum()
    assert matrix.sum() == reference.size


@settings(max_examples=60, deadline=None)
@given(label_pairs())
def test_symmetric_metrics_do_not_ask_which_is_the_reference(pair: tuple[Any, Any]) -> None:
    one, other = scores(*pair), scores(*pair[::-1])
    for name in ("Dice", "Jaccard", "Accuracy", "Hausdorff Distance 95"):
        assert one[name] == pytest.approx(other[name], abs=1e-12, nan_ok=True)
    assert one["Precision"] == pytest.approx(other["Recall"], nan_ok=True)


@settings(max_examples=60, deadline=None)
@given(label_pairs())
def test_a_perfect_prediction_has_dice_one_and_distance_zero(pair: tuple[Any, Any]) -> None:
    label, _ = pair
    found = scores(label, label)
    if (label == 1).any():
        assert found["Dice"] == found["Jaccard"] == found["Precision"] == found["Recall"] == 1.0
        assert found["Hausdorff Distance 95"] == 0.0 or (label == 1).all()
    else:
        assert math.isnan(found["Dice"]) and math.isnan(found["Hausdorff Distance 95"])


@settings(max_examples=60, deadline=None)
@given(label_pairs())
def test_rates_and_their_complements_sum_to_one(pair: tuple[Any, Any]) -> None:
    found = scores(*pair)
    for one, other in (
        ("Precision", "False Discovery Rate"),
        ("Recall", "False Negative Rate"),
        ("True Negative Rate", "False Positive Rate"),
        ("Negative Predictive Value", "False Omission Rate"),
    ):
        assert found[one] + found[other] == pytest.approx(1.0, nan_ok=True) or math.isnan(
            found[one]
        )


def brute_force_hd95(one: Any, other: Any) -> float:
    """Pool the distances of every surface voxel to the nearest of the other surface."""

    def surface(mask: Any) -> Any:
        padded = np.pad(mask, 1)
        core = padded.copy()
        for axis in range(3):
            core &= np.roll(padded, 1, axis) & np.roll(padded, -1, axis)
        return np.argwhere(mask & ~core[1:-1, 1:-1, 1:-1]) * SPACING

    a, b = surface(one), surface(other)
    distances = np.linalg.norm(a[:, None] - b[None], axis=-1)
    return float(np.percentile(np.r_[distances.min(1), distances.min(0)], 95))


@settings(max_examples=60, deadline=None)
@given(label_pairs())
def test_hausdorff_distance_is_that_of_every_pair_of_surface_voxels(pair: tuple[Any, Any]) -> None:
    prediction, reference = pair[0] == 1, pair[1] == 1
    found = scores(*pair)["Hausdorff Distance 95"]
    if all(mask.any() and not mask.all() for mask in (prediction, reference)):
        assert found == pytest.approx(brute_force_hd95(prediction, reference), abs=1e-9)
    else:
        assert math.isnan(found)
