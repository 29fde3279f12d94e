"""Reasons to stop before the last epoch: signals, a file called STOP, no gain any more."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from nnunetlike.core.errors import InterruptedRunError
from nnunetlike.training.hooks import Hook
from nnunetlike.training.state import TrainState

SIGNALS = (signal.SIGINT, signal.SIGTERM)
STOP_FILE = "STOP"
AGAIN_S = 2.0
logger = logging.getLogger(__name__)


class Signals(Hook):
    """While entered, SIGINT and SIGTERM are remembered, and training leaves after its step.

    A second SIGINT ends at once, as everywhere; one that follows within two seconds is the same,
    as a terminal sends it to a launcher and to the processes it has launched, which it tells again.
    """

    def __init__(self) -> None:
        self.received: str | None = None
        self._received_at = 0.0
        self._obeyed = False

    def reason_to_leave(self) -> str | None:
        """Return the name of the signal, if one came."""
        self._obeyed = self._obeyed or self.received is not None
        return self.received

    @contextmanager
    def caught(self) -> Iterator[None]:
        """Remember signals in this block; one that came too late for the loop interrupts here.

        Raises:
            InterruptedRunError: a signal came after the last step, while the loop was ending.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._remember) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        if self.received is not None and not self._obeyed:
            raise InterruptedRunError(f"{self.received} after the last epoch")

    def _remember(self, number: int, frame: FrameType | None) -> None:
        again = self.received is not None
        if again and number == signal.SIGINT and time.monotonic() > self._received_at + AGAIN_S:
            raise KeyboardInterrupt
        if again:
            return
        self.received, self._received_at = signal.Signals(number).name, time.monotonic()
        os.write(2, f"{self.received}: saving after this step\n".encode())  # safe in a handler


class StopFile(Hook):
    """Ends training after the epoch in which a file `STOP` appears in a folder; removes it."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / STOP_FILE

    def reason_to_end(self, state: TrainState) -> str | None:
        """Return that the file is there, if it is."""
        if not self.path.exists():
            return None
        self.path.unlink(missing_ok=True)
        return f"{self.path} was there (removed now)"


class EarlyStopping(Hook):
    """Ends training when the moving average of the metric has not risen for some epochs.

    The average is the one `model_best` goes by: of the mean online Dice, 0.9 old and 0.1 new.

    Args:
        patience: epochs without a new best average.
    """

    def __init__(self, patience: int) -> None:
        self.patience = patience

    def reason_to_end(self, state: TrainState) -> str | None:
        """Return since when there was no gain, if that is too long ago."""
        best, average = state.best_val_average, state.val_average
        if best is None or average is None or state.best_val_epoch is None:
            return None
        waited = state.epoch - 1 - state.best_val_epoch
        if waited < self.patience:
            return None
        return (
            f"early stopping: the moving average of the validation metric is {average:.4f} and has "
            f"not risen above {best:.4f}, of epoch {state.best_val_epoch}, for {waited} epochs"
        )
