"""training_log_*.txt: the lines of nnU-Net v1, for people and scripts that grep them."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from nnunetlike.monitoring import SINKS, Event

NOTE = "(interpret this as an estimate for the Dice of the different classes. This is not exact.)"


class TrainingLog:
    """Writes a new `training_log_Y_M_D_hh_mm_ss.txt` in a folder, every line with its time."""

    def __init__(self, folder: Path) -> None:
        now = datetime.now()
        stamp = f"{now.year}_{now.month}_{now.day}_{now:%H_%M_%S}"
        self.path = folder / f"training_log_{stamp}.txt"
        folder.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write("Starting... \n")

    def write(self, event: Event) -> None:
        """Append the lines v1 writes for an event."""
        lines = _LINES.get(event["event"])
        if lines is not None:
            self._append(lines(event))

    def _append(self, lines: list[str]) -> None:
        with self.path.open("a", encoding="utf-8") as stream:
            stream.writelines(
                f"{datetime.now().isoformat(' ', 'microseconds')}: {line}\n" for line in lines
            )


def _start(event: Event) -> list[str]:
    return [f"lr: {round(event['lr'], 6)} "]


def _epoch(event: Event) -> list[str]:
    present = [round(dice, 4) for dice in event["dice"] if dice is not None]
    return [
        f"\nepoch:  {event['epoch']} ",
        f"train loss : {event['train_loss']:.4f} ",
        f"validation loss: {event['val_loss']:.4f} ",
        f"Average global foreground Dice: {present} ",
        f"{NOTE} ",
        f"lr: {round(event['next_lr'], 6)} ",
    ]


def _saved(event: Event) -> list[str]:
    scheduled = ["saving scheduled checkpoint file... "] if event["scheduled"] else []
    return [
        *scheduled,
        "saving checkpoint... ",
        f"done, saving took {event['seconds']:.2f} seconds ",
    ]


def _epoch_took(event: Event) -> list[str]:
    return [f"This epoch took {event['seconds']:f} s\n"]


_LINES = {"start": _start, "epoch": _epoch, "saved": _saved, "epoch_took": _epoch_took}

SINKS.add("training_log", TrainingLog)
