"""The epoch in hand: what it has given so far, so that a checkpoint in its middle can keep it."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

IN_A_ROW = 5
OF_RECENT = 20
RECENT = 100


@dataclass(frozen=True)
class SkippedStep:
    """A step that was not taken, because the loss or its gradient was not finite."""

    epoch: int
    step: int
    case_ids: tuple[str, ...]
    """Cases of its batch."""


class FaultCounter:
    """Counts skipped steps among the recent ones.

    Args:
        recent: the latest steps, oldest first; None for a step that was taken.
    """

    def __init__(self, recent: Sequence[SkippedStep | None] = ()) -> None:
        self.recent = deque(recent, maxlen=RECENT)

    def note(self, fault: SkippedStep | None) -> None:
        """Take note of a step: None if it was taken."""
        self.recent.append(fault)

    @property
    def too_many(self) -> bool:
        """Five in a row, or twenty of the latest hundred steps, were skipped."""
        last = list(self.recent)[-IN_A_ROW:]
        in_a_row = len(last) == IN_A_ROW and None not in last
        return in_a_row or len(self.faults) >= OF_RECENT

    @property
    def faults(self) -> list[SkippedStep]:
        """The skipped ones among the recent steps."""
        return [fault for fault in self.recent if fault is not None]

    def describe(self) -> str:
        """Return how many steps were skipped, and which cases they had most often."""
        cases = Counter(case for fault in self.faults for case in fault.case_ids)
        named = ", ".join(f"{case} ({count})" for case, count in cases.most_common(5))
        return f"{len(self.faults)} of {len(self.recent)} recent steps, with cases {named}"

    def to_checkpoint(self) -> list[dict[str, Any] | None]:
        """Return the recent steps in plain types."""
        return [None if fault is None else asdict(fault) for fault in self.recent]

    @classmethod
    def from_checkpoint(cls, content: Sequence[Mapping[str, Any] | None]) -> FaultCounter:
        """Return the counter that `to_checkpoint` described."""
        return cls([None if fault is None else _skipped(fault) for fault in content])


@dataclass
class EpochProgress:
    """Batches done in the epoch in hand, and what they gave.

    Losses stay on the device until the epoch ends.
    """

    train_steps: int = 0
    val_steps: int = 0
    train_losses: list[Tensor] = field(default_factory=list)
    val_losses: list[Tensor] = field(default_factory=list)
    counts: Tensor | None = None
    """Summed over the validation batches, see `StepOutput`."""

    skipped: list[SkippedStep] = field(default_factory=list)

    def to_checkpoint(self) -> dict[str, Any]:
        """Return tensors and plain types; nothing between two epochs."""
        if self.train_steps == 0:
            return {}
        return {
            "train_steps": self.train_steps,
            "val_steps": self.val_steps,
            "train_losses": [loss.cpu() for loss in self.train_losses],
            "val_losses": [loss.cpu() for loss in self.val_losses],
            "counts": None if self.counts is None else self.counts.cpu(),
            "skipped": [asdict(fault) for fault in self.skipped],
        }

    @classmethod
    def from_checkpoint(cls, content: Mapping[str, Any], device: torch.device) -> EpochProgress:
        """Return the progress that `to_checkpoint` described."""
        if not content:
            return cls()
        counts = content["counts"]
        return cls(
            train_steps=content["train_steps"],
            val_steps=content["val_steps"],
            train_losses=[loss.to(device) for loss in content["train_losses"]],
            val_losses=[loss.to(device) for loss in content["val_losses"]],
            counts=None if counts is None else counts.to(device),
            skipped=[_skipped(fault) for fault in content["skipped"]],
        )


def _skipped(content: Mapping[str, Any]) -> SkippedStep:
    return SkippedStep(content["epoch"], content["step"], tuple(content["case_ids"]))
