from __future__ import annotations

import math

import numpy as np
import pytest

from nnunetlike.core.errors import UsageError
from nnunetlike.evaluation.confusion import confusion
from nnunetlike.evaluation.metrics import FAMILIES, METRICS, Comparison, chosen_metrics

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


def asked(name: str) -> str:
    """Return a family as users ask for it."""
    return name if FAMILIES.get(name).number is None else f"{name}:1.5"


@pytest.mark.parametrize("name", FAMILIES.names())
@pytest.mark.parametrize(
    "masks", [(None, None), (0, 0), (0, None), (None, 0), (1, 1), (1, None), (None, 1)]
)
def test_a_metric_asked_for_survives_empty_and_full_masks(
    name: str, masks: tuple[int | None, int | None]
) -> None:
    chosen = chosen_metrics(advanced=False, asked=[asked(name).upper()])
    for metric in set(chosen) - V1:
        value = chosen[metric].measure(comparison(*masks))
        assert isinstance(value, (int, float)) and not math.isinf(value)
        assert math.isfinite(value) or masks != (None, None)


@pytest.mark.parametrize("name", FAMILIES.names())
def test_a_metric_asked_for_stands_beside_those_of_v1(name: str) -> None:
    found = chosen_metrics(advanced=False, asked=[asked(name)])
    assert list(found)[: len(V1)] == list(chosen_metrics(advanced=False)) and len(found) > len(V1)


@pytest.mark.parametrize("text", ["nsd", "nsd:", "nsd:x", "nsd:-1", "nsd:inf", "assd:2", "hd59"])
def test_a_metric_that_is_asked_for_wrongly_is_refused_by_name(text: str) -> None:
    with pytest.raises(UsageError, match=text.partition(":")[0]):
        chosen_metrics(advanced=False, asked=[text])


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
