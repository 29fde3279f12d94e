"""Hooks watch training; whatever changes a gradient is in the objective or the optimizer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nnunetlike.training.progress import SkippedStep
from nnunetlike.training.state import TrainState

if TYPE_CHECKING:
    from nnunetlike.training.loop import TrainLoop


@dataclass(frozen=True, kw_only=True)
class EpochReport:
    """What happened in one epoch."""

    epoch: int
    train_loss: float
    val_loss: float
    dice: tuple[float | None, ...]
    """Online Dice of each foreground class; None where it occurred neither in label nor prediction.
    """

    lr: float
    """Learning rate of this epoch."""

    next_lr: float
    wait_s: float
    """Time the device waited for batches."""

    compute_s: float
    total_s: float
    """Duration of the epoch without saving."""

    skipped: tuple[SkippedStep, ...] = ()
    """Steps that were not taken."""


class Hook:
    """Five events and two questions; a hook overrides those it wants."""

    def on_fit_start(self, loop: TrainLoop, state: TrainState) -> None:
        """Before the first epoch of this run; `state` is not empty when training goes on."""

    def on_step_end(self, loop: TrainLoop, state: TrainState, step: int, total: int) -> None:
        """After batch `step` of `total` (training, then validation batches)."""

    def on_epoch_end(self, loop: TrainLoop, state: TrainState, report: EpochReport) -> None:
        """After an epoch; `state` has it already, and the learning rate is the next epoch's."""

    def on_fit_end(self, loop: TrainLoop, state: TrainState) -> None:
        """After the last epoch."""

    def on_interrupt(self, loop: TrainLoop, state: TrainState) -> None:
        """Before training leaves in the middle of an epoch (`loop.progress`), to go on later."""

    def reason_to_leave(self) -> str | None:
        """Asked before every step: why training should be left at once, to go on later."""
        return None

    def reason_to_end(self, state: TrainState) -> str | None:
        """Asked after every epoch: why it should be the last one."""
        return None
