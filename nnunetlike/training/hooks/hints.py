"""A hint when nothing is learnt."""

from __future__ import annotations

import logging
from collections.abc import Callable

from nnunetlike.training.hooks import EpochReport, Hook
from nnunetlike.training.loop import TrainLoop
from nnunetlike.training.state import TrainState

EPOCHS = 20
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
