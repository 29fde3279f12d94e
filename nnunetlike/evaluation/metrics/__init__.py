"""Metrics by name: each is a pure function of one structure in one case."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

import numpy as np

from nnunetlike.core.errors import UsageError
from nnunetlike.core.registry import Registry
from nnunetlike.core.typing import BoolArray, LabelMap, Spacing
from nnunetlike.evaluation.confusion import Counts

T = TypeVar("T")


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
    _known: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def once(self, name: str, make: Callable[[], T]) -> T:
        """Return `make()`, called when first asked for under this name, so metrics can share it."""
        if name not in self._known:
            self._known[name] = make()
        found: T = self._known[name]
        return found

    @cached_property
    def prediction(self) -> BoolArray:
        """Predicted mask, (D, H, W); made when first asked for."""
        return _mask(self.prediction_map, self.members)

    @cached_property
    def reference(self) -> BoolArray:
        """Reference mask, (D, H, W); made when first asked for."""
        return _mask(self.reference_map, self.members)


def _mask(label: LabelMap, members: Sequence[int]) -> BoolArray:
    """Return where `label` is one of `members`; several are looked up, which takes longer."""
    return label == members[0] if len(members) == 1 else np.isin(label, members)


@dataclass(frozen=True)
class Metric:
    """A metric as it appears in summary.json under the name it is registered with.

    Contract: `measure` gives one number, NaN where the metric is not defined (empty masks), and
    changes nothing.
    """

    measure: Callable[[Comparison], float]
    advanced: bool = False
    """Costly: computed only when asked for."""


@dataclass(frozen=True)
class Family:
    """Metrics that are computed when users ask for them, by one name."""

    make: Callable[[float], Mapping[str, Metric]]
    """Gives the metrics by the names they get in summary.json, for a number (NaN where none)."""

    number: str | None = None
    """What the number after the name (`nsd:2`) means; None where there is none."""


METRICS: Registry[Metric] = Registry("metric", "nnunetlike.evaluation.metrics")
FAMILIES: Registry[Family] = Registry("metric to ask for", "nnunetlike.evaluation.metrics")


def chosen_metrics(*, advanced: bool, asked: Sequence[str] = ()) -> dict[str, Metric]:
    """Return the metrics to compute, by name.

    Args:
        advanced: also the costly ones of nnU-Net v1.
        asked: also these families, `hd95`, `assd`, `nsd:2`, ..., in capitals or not.

    Raises:
        UsageError: a family does not exist, or its number is missing, none or too much.
    """
    every = {name: METRICS.get(name) for name in METRICS.names()}
    chosen = {n: metric for n, metric in every.items() if advanced or not metric.advanced}
    for text in asked:
        chosen.update(_family(text))
    return chosen


def _family(text: str) -> Mapping[str, Metric]:
    name, _, number = text.partition(":")
    family = FAMILIES.get(name.lower())
    if family.number is None:
        if number:
            raise UsageError(f"metric {text!r}: {name} takes no number; write {name}")
        return family.make(math.nan)
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise UsageError(f"metric {text!r}: say the {family.number}, as in {name}:2")
    return family.make(value)
