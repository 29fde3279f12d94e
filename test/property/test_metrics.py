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


def scores(
    prediction: Any, reference: Any, label: int = 1, asked: tuple[str, ...] = ()
) -> dict[str, float]:
    members = {"x": (label,)}
    return score_case(prediction, reference, SPACING, members, advanced=True, metrics=asked)["x"]


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


def brute_force_distances(one: Any, other: Any) -> Any:
    """Return the distances of every surface voxel to the nearest of the other surface, pooled."""

    def surface(mask: Any) -> Any:
        padded = np.pad(mask, 1)
        core = padded.copy()
        for axis in range(3):
            core &= np.roll(padded, 1, axis) & np.roll(padded, -1, axis)
        return np.argwhere(mask & ~core[1:-1, 1:-1, 1:-1]) * SPACING

    a, b = surface(one), surface(other)
    distances = np.linalg.norm(a[:, None] - b[None], axis=-1)
    return np.r_[distances.min(1), distances.min(0)]


def brute_force_hd95(one: Any, other: Any) -> float:
    return float(np.percentile(brute_force_distances(one, other), 95))


@settings(max_examples=60, deadline=None)
@given(label_pairs())
def test_hausdorff_distance_is_that_of_every_pair_of_surface_voxels(pair: tuple[Any, Any]) -> None:
    prediction, reference = pair[0] == 1, pair[1] == 1
    found = scores(*pair)["Hausdorff Distance 95"]
    if all(mask.any() and not mask.all() for mask in (prediction, reference)):
        assert found == pytest.approx(brute_force_hd95(prediction, reference), abs=1e-9)
    else:
        assert math.isnan(found)


@settings(max_examples=80, deadline=None)
@given(label_pairs(), st.sampled_from([0.0, 0.5, 1.0, 2.0, 2.3]))
def test_surface_distances_are_those_of_every_pair_of_surface_voxels(
    pair: tuple[Any, Any], tolerance: float
) -> None:
    prediction, reference = pair[0] == 1, pair[1] == 1
    found = scores(*pair, asked=("assd", f"nsd:{tolerance}"))
    assd = found["Average Symmetric Surface Distance"]
    nsd = found[f"Normalised Surface Dice {tolerance:g} mm"]
    filled = (prediction.any(), reference.any())
    if not all(filled):
        assert math.isnan(assd)
        assert nsd == 0.0 if any(filled) else math.isnan(nsd)
    elif min(prediction.shape) > 1:  # an axis of length 1 has no surface of its own
        distances = brute_force_distances(prediction, reference)
        assert assd == pytest.approx(distances.mean(), abs=1e-9)
        assert nsd == pytest.approx((distances <= tolerance).mean(), abs=1e-12)


def test_a_single_slice_has_an_outline() -> None:
    """Squares of 5 and of 3 within: 16 and 8 outline pixels."""
    prediction, reference = np.zeros((2, 1, 9, 9), np.uint8)
    prediction[0, 2:7, 2:7] = reference[0, 3:6, 3:6] = 1
    members = {"x": (1,)}
    found = score_case(prediction, reference, (9.0, 2.0, 2.0), members, metrics=("assd", "nsd:2"))[
        "x"
    ]
    corners, sides = 4 * math.hypot(2, 2), 12 * 2
    assert found["Average Symmetric Surface Distance"] == pytest.approx((corners + sides + 16) / 24)
    assert found["Normalised Surface Dice 2 mm"] == pytest.approx(20 / 24)


def brute_force_lesions(mask: Any) -> list[set[tuple[int, ...]]]:
    """Return the components of a mask, grown voxel by voxel over all 26 neighbours."""
    left, found = set(map(tuple, np.argwhere(mask).tolist())), []
    while left:
        edge = [left.pop()]
        lesion = set(edge)
        while edge:
            here = edge.pop()
            near = {v for v in left if max(abs(a - b) for a, b in zip(v, here, strict=True)) == 1}
            left -= near
            lesion |= near
            edge += near
        found.append(lesion)
    return found


@settings(max_examples=60, deadline=None)
@given(label_pairs())
def test_lesions_are_those_grown_voxel_by_voxel(pair: tuple[Any, Any]) -> None:
    predicted, wanted = (brute_force_lesions(label == 1) for label in pair)
    found = scores(*pair, asked=("lesions",))
    assert (found["Lesions Test"], found["Lesions Reference"]) == (len(predicted), len(wanted))
    precision = sum(any(one & other for other in wanted) for one in predicted)
    recall = sum(any(one & other for other in predicted) for one in wanted)
    p = precision / len(predicted) if predicted else math.nan
    r = recall / len(wanted) if wanted else math.nan
    assert found["Lesion Precision"] == pytest.approx(p, nan_ok=True)
    assert found["Lesion Recall"] == pytest.approx(r, nan_ok=True)
    if predicted and wanted:
        f1 = 2 * p * r / (p + r) if p + r else 0.0
    else:
        f1 = 0.0 if predicted or wanted else math.nan
    assert found["Lesion F1"] == pytest.approx(f1, nan_ok=True)


@settings(max_examples=40, deadline=None)
@given(label_pairs())
def test_volumes_are_voxels_times_their_volume(pair: tuple[Any, Any]) -> None:
    found = scores(*pair, asked=("volume",))
    predicted, wanted = ((label == 1).sum() / 1000 for label in pair)  # voxels of 1 mm³
    assert found["Volume Test (mL)"] == pytest.approx(predicted)
    assert found["Volume Reference (mL)"] == pytest.approx(wanted)
    assert found["Volume Difference (mL)"] == pytest.approx(predicted - wanted)
