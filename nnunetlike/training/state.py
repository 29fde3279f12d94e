"""How far training is: losses, metrics and moving averages, epoch by epoch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

PATIENCE = 50
MINIMAL_GAIN = 5e-4
RATE_THRESHOLD = 1e-6


@dataclass(frozen=True, kw_only=True)
class TrainState:
    """Everything that training knows of its past; `after_epoch` gives the next one.

    Source: nnU-Net v1's bookkeeping (moving averages 0.93/0.07 of the training loss and 0.9/0.1 of
    the validation metric; best model by the latter).
    """

    train_losses: tuple[float, ...] = ()
    val_losses: tuple[float, ...] = ()
    metrics: tuple[float, ...] = ()
    """Mean Dice over the classes that occurred, by epoch; NaN where none did."""

    train_average: float | None = None
    val_average: float | None = None
    best_val_average: float | None = None
    best_train_average: float | None = None
    best_epoch: int | None = None
    """Epoch of the best training average (v1's patience counts from it)."""

    best_val_epoch: int | None = None
    """Epoch of the best validation average."""

    improved: bool = False
    """The last epoch's validation average is strictly above all before it."""

    stalled: bool = False
    """v1's stop signal; training ends by its number of epochs all the same."""

    @property
    def epoch(self) -> int:
        """Number of finished epochs, which is the index of the next one."""
        return len(self.train_losses)

    def after_epoch(
        self, train_loss: float, val_loss: float, metric: float | None, lr: float
    ) -> TrainState:
        """Return the state after one more epoch.

        Args:
            train_loss: mean over the training batches.
            val_loss: mean over the validation batches.
            metric: mean online Dice; None: there is no metric and minus the validation loss takes
                its place; NaN: no class occurred, so the average stays as it is.
            lr: learning rate of the next epoch.
        """
        criterion = -val_loss if metric is None else metric
        train_average = _average(self.train_average, train_loss, keep=0.93)
        val_average = _average(self.val_average, criterion, keep=0.9)
        best = self.best_val_average
        improved = best is not None and val_average is not None and val_average > best
        best_train, best_epoch, stalled = self._patience(train_average, lr)
        return replace(
            self,
            train_losses=(*self.train_losses, train_loss),
            val_losses=(*self.val_losses, val_loss),
            metrics=self.metrics if metric is None else (*self.metrics, metric),
            train_average=train_average,
            val_average=val_average,
            best_val_average=val_average if best is None or improved else best,
            best_val_epoch=self.epoch if best is None or improved else self.best_val_epoch,
            best_train_average=best_train,
            best_epoch=best_epoch,
            improved=improved,
            stalled=stalled,
        )

    def _patience(self, average: float | None, lr: float) -> tuple[float | None, int | None, bool]:
        best, best_epoch = self.best_train_average, self.best_epoch
        if average is None:
            return best, best_epoch, False
        if best is None or best_epoch is None:
            best, best_epoch = average, self.epoch
        if average + MINIMAL_GAIN < best:
            best, best_epoch = average, self.epoch
        stalled = False
        if self.epoch - best_epoch > PATIENCE:
            stalled = lr <= RATE_THRESHOLD
            if not stalled:
                best_epoch = self.epoch - PATIENCE // 2
        return best, best_epoch, stalled

    def to_checkpoint(self) -> dict[str, Any]:
        """Return the entries of a checkpoint: v1's two, and ours with the moving averages."""
        return {
            "epoch": self.epoch,
            "plot_stuff": (
                list(self.train_losses),
                list(self.val_losses),
                [],
                list(self.metrics),
            ),
            "best_stuff": (self.best_epoch, self.best_train_average, self.best_val_average),
            "moving_averages": {
                "train": self.train_average,
                "val": self.val_average,
                "best_val_epoch": self.best_val_epoch,
            },
        }

    @classmethod
    def from_checkpoint(cls, content: Mapping[str, Any]) -> TrainState:
        """Return the state that a checkpoint of ours or of v1 holds.

        v1 does not store the moving averages; they are computed anew from the stored losses and
        metrics, which gives the same numbers. Nor does it store the epoch of the best validation
        average; patience with that starts at the last epoch then.
        """
        train, val, _, metrics = content["plot_stuff"]
        best_epoch, best_train, best_val = content["best_stuff"]
        averages = content.get("moving_averages") or {
            "train": _averaged(train, keep=0.93),
            "val": _averaged(metrics or [-float(loss) for loss in val], keep=0.9),
        }
        return cls(
            train_losses=_floats(train),
            val_losses=_floats(val),
            metrics=_floats(metrics),
            train_average=_maybe(averages["train"]),
            val_average=_maybe(averages["val"]),
            best_val_average=_maybe(best_val),
            best_train_average=_maybe(best_train),
            best_epoch=None if best_epoch is None else int(best_epoch),
            best_val_epoch=averages.get("best_val_epoch", len(train) - 1 if train else None),
        )


def _average(old: float | None, new: float, *, keep: float) -> float | None:
    if math.isnan(new):
        return old
    return new if old is None else keep * old + (1 - keep) * new


def _averaged(values: Sequence[Any], *, keep: float) -> float | None:
    average: float | None = None
    for value in values:
        average = _average(average, float(value), keep=keep)
    return average


def _floats(values: Sequence[Any]) -> tuple[float, ...]:
    return tuple(float(value) for value in values)


def _maybe(value: Any) -> float | None:
    return None if value is None else float(value)
