"""When weights are saved: the best, the latest, the final."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nnunetlike.networks.model_files import BEST, FINAL, LATEST, information_file, save_model_file
from nnunetlike.networks.v1_weights import state_dict_to_v1
from nnunetlike.training.hooks import EpochReport, Hook
from nnunetlike.training.hooks.monitor import Events
from nnunetlike.training.loop import TrainLoop
from nnunetlike.training.state import TrainState


class Checkpoints(Hook):
    """Saves into a fold's folder as v1 does, by the main process only.

    Args:
        folder: the fold's folder.
        info: content of the `.model.pkl` files.
        events: is told of every file.
        keep: False saves neither best nor final (`--disable_saving`); the latest still is, while
            training lasts.
    """

    def __init__(
        self, folder: Path, info: Mapping[str, Any], events: Events, *, keep: bool = True
    ) -> None:
        self.folder = folder
        self.info = info
        self.events = events
        self.keep = keep

    def on_epoch_end(self, loop: TrainLoop, state: TrainState, report: EpochReport) -> None:
        """Save the latest every `save_every` epochs, and the best when it is strictly better."""
        every = loop.recipe.save_every
        if report.epoch % every == every - 1:
            self._save(LATEST, loop, state, scheduled=True)
        if state.improved and self.keep:
            self._save(BEST, loop, state)

    def on_fit_end(self, loop: TrainLoop, state: TrainState) -> None:
        """Save the final weights and remove the latest, which would be the same."""
        if not loop.runtime.is_main:
            return
        if self.keep:
            self._save(FINAL, loop, state)
        latest = self.folder / LATEST
        for path in (latest, information_file(latest)):
            path.unlink(missing_ok=True)

    def _save(
        self, name: str, loop: TrainLoop, state: TrainState, *, scheduled: bool = False
    ) -> None:
        if not loop.runtime.is_main:
            return
        begin = time.monotonic()
        save_model_file(self.folder / name, checkpoint_content(loop, state), self.info)
        seconds = time.monotonic() - begin
        self.events.tell("saved", file=name, scheduled=scheduled, seconds=seconds)


def checkpoint_content(loop: TrainLoop, state: TrainState) -> dict[str, Any]:
    """Return what v1 keeps in `X.model`, under its names, and our moving averages beside it."""
    weights = state_dict_to_v1(loop.network)
    content = state.to_checkpoint()
    return {
        "epoch": content.pop("epoch"),
        "state_dict": type(weights)((name, value.cpu()) for name, value in weights.items()),
        "optimizer_state_dict": loop.optimizer.state_dict(),
        "lr_scheduler_state_dict": None,
        **content,
        **loop.runtime.state_dict(),
    }
