"""From training to sinks: state and reports as events."""

from __future__ import annotations

import logging
import statistics
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

from nnunetlike.monitoring import Sink
from nnunetlike.training.hooks import EpochReport, Hook
from nnunetlike.training.loop import TrainLoop
from nnunetlike.training.state import TrainState

EPOCHS_FOR_ETA = 10
"""The time to go is told from the median of so many epochs."""

logger = logging.getLogger(__name__)


class Events:
    """Passes events to several sinks, in order.

    A sink that cannot write (a full disk, say) is no reason to end a training; that is said once
    for each sink.
    """

    def __init__(self, sinks: Sequence[Sink]) -> None:
        self.sinks = tuple(sinks)
        self._failed: set[int] = set()

    def tell(self, kind: str, **facts: Any) -> None:
        """Send one event to every sink."""
        event = {"event": kind, **facts}
        for number, sink in enumerate(self.sinks):
            try:
                sink.write(event)
            except OSError as error:
                if number not in self._failed:
                    logger.warning(
                        "%s cannot be written (%s); training goes on without what is missing there",
                        type(sink).__name__,
                        error,
                    )
                self._failed.add(number)


class Monitor(Hook):
    """Tells sinks of the start, of every step and of every epoch."""

    def __init__(self, events: Events) -> None:
        self.events = events
        self._durations: deque[float] = deque(maxlen=EPOCHS_FOR_ETA)

    def on_fit_start(self, loop: TrainLoop, state: TrainState) -> None:
        """Tell where training starts, with the history of earlier runs."""
        self.events.tell(
            "start",
            epoch=state.epoch,
            epochs=loop.recipe.epochs,
            lr=loop.recipe.optimizer.rate(state.epoch, loop.recipe.epochs),
            history={
                "train_loss": list(state.train_losses),
                "val_loss": list(state.val_losses),
                "metric": list(state.metrics),
            },
        )

    def on_step_end(self, loop: TrainLoop, state: TrainState, step: int, total: int) -> None:
        """Tell the number of the step; losses stay on the device until the epoch ends."""
        self.events.tell("step", epoch=state.epoch, step=step, total=total)

    def on_epoch_end(self, loop: TrainLoop, state: TrainState, report: EpochReport) -> None:
        """Tell what the epoch was like, in plain types."""
        self._durations.append(report.total_s)
        usual_s = statistics.median(self._durations)
        self.events.tell(
            "epoch",
            epoch=report.epoch,
            epochs=loop.recipe.epochs,
            train_loss=report.train_loss,
            val_loss=report.val_loss,
            dice=list(report.dice),
            metric=state.metrics[-1] if state.metrics else None,
            val_average=state.val_average,
            lr=report.lr,
            next_lr=report.next_lr,
            wait_s=round(report.wait_s, 3),
            compute_s=round(report.compute_s, 3),
            total_s=round(report.total_s, 3),
            eta_s=round(usual_s * (loop.recipe.epochs - state.epoch), 1),
            skipped=[{"step": s.step, "cases": list(s.case_ids)} for s in report.skipped],
        )


class Stopwatch(Hook):
    """Tells how long each epoch took with everything that other hooks did; comes last."""

    def __init__(self, events: Events) -> None:
        self.events = events
        self._begin = time.monotonic()

    def on_fit_start(self, loop: TrainLoop, state: TrainState) -> None:
        """Start the watch."""
        self._begin = time.monotonic()

    def on_epoch_end(self, loop: TrainLoop, state: TrainState, report: EpochReport) -> None:
        """Tell the time since the last epoch ended."""
        now = time.monotonic()
        self.events.tell("epoch_took", epoch=report.epoch, seconds=now - self._begin)
        self._begin = now
