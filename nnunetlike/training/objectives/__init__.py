"""Objectives: network and loss in one module, which is what data parallelism wraps."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypedDict

from torch import Tensor


class Batch(TypedDict):
    """Patches of one step."""

    image: Tensor
    """(B, C, *patch) float32."""

    label: Tensor
    """(B, *patch) int16, 0 is background."""

    case_ids: list[str]


@dataclass
class StepOutput:
    """What an objective gives back for one batch."""

    loss: Tensor
    """Scalar that is differentiated."""

    terms: dict[str, Tensor] = field(default_factory=dict)
    """Detached parts of the loss, by name."""

    counts: Tensor | None = None
    """(K - 1, 3) true positives, false positives, false negatives of the hard prediction, summed
    over the batch; None while training."""
