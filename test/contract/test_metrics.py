from __future__ import annotations

import math

import numpy as np
import pytest

from nnunetlike.evaluation.confusion import confusion
from nnunetlike.evaluation.metrics import METRICS, Comparison, chosen_metrics

V1 = {
    "Accuracy", "Dice", "False Discovery Rate", "False Negative Rate", "False Omission Rate",
    "False Positive Rate", "Jaccard", "Negative Predictive Value", "Precision", "Recall",
    "Total Positives Reference", "Total Positives Test", "True Negative Rate",
}  # fmt: skip


def comparison(prediction: int | None, reference: int | None) -> Comparison:
    """Compare a 3 x 4 x 5 map of one label, or a half-filled one where None, on label 1."""
    maps = []
    for fill in (prediction, reference):
        label = np.full((3, 4, 5), fill or 0, np.uint8)
        if fill is None:
            label[:2, 1:3] = 1
        maps.append(label)
    counts = confusion(maps[1], maps[0], [1]).counts([1])
    return Comparison(counts, (1,), maps[0], maps[1], (1.0, 1.0, 1.0))


def test_the_plain_metrics_are_those_of_v1() -> None:
    assert set(chosen_metrics(advanced=False)) == V1


@pytest.mark.parametrize("name", METRICS.names())
def test_a_metric_gives_a_finite_number_for_two_filled_masks(name: str) -> None:
    assert math.isfinite(METRICS.get(name).measure(comparison(None, None)))


@pytest.mark.parametrize("name", METRICS.names())
@pytest.mark.parametrize("masks", [(0, 0), (0, None), (None, 0), (1, 1), (1, None), (None, 1)])
def test_a_metric_survives_empty_and_full_masks(
    name: str, masks: tuple[int | None, int | None]
) -> None:
    value = METRICS.get(name).measure(comparison(*masks))
    assert isinstance(value, (int, float)) and not math.isinf(value)


@pytest.mark.parametrize(
    ("prediction", "reference", "undefined"),
    [
        (0, 0, {"Dice", "Jaccard", "Precision", "False Discovery Rate", "Recall",
                "False Negative Rate"}),
        (0, None, {"Precision", "False Discovery Rate"}),
        (None, 0, {"Recall", "False Negative Rate"}),
        (1, None, {"Negative Predictive Value", "False Omission Rate"}),
        (None, 1, {"True Negative Rate", "False Positive Rate"}),
    ],
)  # fmt: skip
def test_nan_appears_exactly_where_v1_has_it(
    prediction: int | None, reference: int | None, undefined: set[str]
) -> None:
    case = comparison(prediction, reference)
    plain = chosen_metrics(advanced=False)
    assert {name for name, m in plain.items() if math.isnan(m.measure(case))} == undefined
    assert math.isnan(METRICS.get("Hausdorff Distance 95").measure(case))
