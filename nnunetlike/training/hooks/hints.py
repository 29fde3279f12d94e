"""Hints: when nothing is learnt, and when the network waits for batches."""

from __future__ import annotations

import logging
from collections.abc import Callable

from nnunetlike.training.hooks import EpochReport, Hook
from nnunetlike.training.loop import TrainLoop
from nnunetlike.training.state import TrainState

EPOCHS = 20
WAITING = 0.2
"""Share of an epoch spent waiting for batches from which on that is said."""

logger = logging.getLogger(__name__)


class ZeroDiceHint(Hook):
    """Says once what to do when the online Dice of every class has been 0 for some epochs.

    Args:
        advice: gives the text after "the online Dice ... has been 0 for N epochs"; called when it
            is due, as it may have to look at cases.
        epochs: how many epochs without any Dice are too many.
    """

    def __init__(self, advice: Callable[[], str], epochs: int = EPOCHS) -> None:
        self.advice = advice
        self.epochs = epochs

    def on_epoch_end(self, loop: TrainLoop, state: TrainState, report: EpochReport) -> None:
        """Look at the metrics so far, all of which are 0 or n/a only while nothing is learnt."""
        if len(state.metrics) != self.epochs or any(metric > 0 for metric in state.metrics):
            return
        if loop.runtime.is_main:
            logger.warning(
                "the online Dice of every class has been 0 or n/a for %d epochs: %s",
                self.epochs,
                self.advice(),
            )


class WaitingHint(Hook):
    """Says once, after an epoch that spent long waiting for batches, what to do about it.

    The first epoch does not count, as the processes that make batches start in it.

    Args:
        advice: gives the text after what was found; called when it is due.
        share: of the epoch that is long.
    """

    def __init__(self, advice: Callable[[], str], share: float = WAITING) -> None:
        self.advice = advice
        self.share = share
        self._is_first = True
        self._is_said = False

    def on_epoch_end(self, loop: TrainLoop, state: TrainState, report: EpochReport) -> None:
        """Look at where the time of the epoch went."""
        is_long = report.wait_s > self.share * report.total_s and not self._is_first
        self._is_first = False
        if not is_long or self._is_said or not loop.runtime.is_main:
            return
        self._is_said = True
        logger.warning(
            "epoch %d waited for batches during %.0f %% of its time: %s",
            report.epoch,
            100 * report.wait_s / report.total_s,
            self.advice(),
        )
