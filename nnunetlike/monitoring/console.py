"""The console: one line per epoch, and a bar within the epoch where someone can see it."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from nnunetlike.monitoring import SINKS, Event

BAR_VARIABLE = "nnunet_use_progress_bar"
logger = logging.getLogger(__name__)


class Console:
    """Logs one line per epoch; shows a bar on a terminal or with `nnunet_use_progress_bar=1`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._bar: Any = None
        setting = os.environ.get(BAR_VARIABLE)
        self._show_bar = sys.stderr.isatty() if setting is None else setting == "1"

    def write(self, event: Event) -> None:
        """Show one event."""
        kind = event["event"]
        if kind == "step":
            self._step(event)
        elif kind == "epoch":
            self._close()
            logger.info("%s", epoch_line(event))
        elif kind == "saved" and event["file"] != "model_best.model":
            logger.info("saved %s", event["file"])

    def _step(self, event: Event) -> None:
        if not self._show_bar:
            return
        if self._bar is None:
            title = f"epoch {event['epoch']}"
            self._bar = tqdm(total=event["total"], desc=title, unit="batch", leave=False)
        self._bar.update(event["step"] + 1 - self._bar.n)

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def epoch_line(event: Event) -> str:
    """Return what an epoch was like in one line: losses, Dice, rate, seconds, time to go.

    "wait" is the time the device waited for batches.
    """
    return (
        f"epoch {event['epoch']:4d}/{event['epochs'] - 1}  "
        f"loss train {event['train_loss']:.4f} val {event['val_loss']:.4f}  "
        f"Dice {dice_text(event['dice'])}  lr {event['lr']:.6f}  "
        f"wait {event['wait_s']:.1f} s compute {event['compute_s']:.1f} s ({bottleneck(event)})  "
        f"ETA {duration(event['eta_s'])}"
    )


def bottleneck(event: Event) -> str:
    """Return what an epoch's time went into: making batches, or computing with them."""
    return "data-bound" if event["wait_s"] > event["compute_s"] else "compute-bound"


def dice_text(dice: Sequence[float | None]) -> str:
    """Return the Dice of each class, `n/a` for one that did not occur."""
    return "[" + ", ".join("n/a" if d is None else f"{d:.4f}" for d in dice) + "]"


def duration(seconds: float) -> str:
    """Return a duration a person can read: `2d 03h`, `5h 07m`, `3m 20s`, `12s`."""
    minutes, s = divmod(round(seconds), 60)
    hours, m = divmod(minutes, 60)
    days, h = divmod(hours, 24)
    if days:
        return f"{days}d {h:02d}h"
    if hours:
        return f"{h}h {m:02d}m"
    return f"{m}m {s:02d}s" if minutes else f"{s}s"


SINKS.add("console", Console)
