"""Metrics by name: each is a pure function of one structure in one case."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from nnunetlike.core.registry import Registry
from nnunetlike.core.typing import BoolArray, LabelMap, Spacing
from nnunetlike.evaluation.confusion import Counts


@dataclass(frozen=True)
class Comparison:
    """One structure of one case, predicted against its reference.

    Args:
        counts: voxels by agreement.
        members: label values whose union is the structure.
        prediction_map: predicted label map, (D, H, W).
        reference_map: reference label map, (D, H, W).
        spacing: distance between voxel centres along D, H, W, in mm.
    """

    counts: Counts
    members: tuple[int, ...]
    prediction_map: LabelMap
    reference_map: LabelMap
    spacing: Spacing

    @cached_property
    def prediction(self) -> BoolArray:
        """Predicted mask, (D, H, W); made when first asked for."""
        return np.isin(self.prediction_map, self.members)

    @cached_property
    def reference(self) -> BoolArray:
        """Reference mask, (D, H, W); made when first asked for."""
        return np.isin(self.reference_map, self.members)


@dataclass(frozen=True)
class Metric:
    """A metric as it appears in summary.json under the name it is registered with.

    Contract: `measure` gives one number, NaN where the metric is not defined (empty masks), and
    changes nothing.
    """

    measure: Callable[[Comparison], float]
    advanced: bool = False
    """Costly: computed only when asked for."""


METRICS: Registry[Metric] = Registry("metric", "nnunetlike.evaluation.metrics")


def chosen_metrics(*, advanced: bool) -> dict[str, Metric]:
    """Return the metrics to compute, by name; the costly ones only if `advanced`."""
    every = {name: METRICS.get(name) for name in METRICS.names()}
    return {name: metric for name, metric in every.items() if advanced or not metric.advanced}
