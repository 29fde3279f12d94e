"""When weights are saved: the best, the latest, the final."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nnunetlike.networks.model_files import BEST, FINAL, LATEST, information_file, save_model_file
from nnunetlike.networks.v1_weights import state_dict_to_v1
from nnunetlike.training.hooks import EpochReport, Hook
from nnunetlike.training.hooks.monitor import Events
from nnunetlike.training.loop import TrainLoop
from nnunetlike.training.random_states import random_states
from nnunetlike.training.state import TrainState

EVERY_S = 600.0
UNFINISHED = re.compile(r"\.tmp-(\d+)-model_\w+\.model(\.pkl)?")


class Checkpoints(Hook):
    """Saves into a fold's folder as v1 does, by the main process only.

    Beyond v1, the latest is also saved when ten minutes have gone by without a save, in the middle
    of an epoch too, and when training is interrupted.

    Args:
        folder: the fold's folder.
        info: content of the `.model.pkl` files.
        events: is told of every file.
        keep: False saves neither best nor final (`--disable_saving`); the latest still is, while
            training lasts.
        run: what a run that goes on must know of this one, kept under `run`.
        every_s: longest time without a save.
    """

    def __init__(
        self,
        folder: Path,
        info: Mapping[str, Any],
        events: Events,
        *,
        keep: bool = True,
        run: Mapping[str, Any] | None = None,
        every_s: float = EVERY_S,
    ) -> None:
        self.folder = folder
        self.info = info
        self.events = events
        self.keep = keep
        self.run = dict(run or {})
        self.every_s = every_s
        self._saved_at = time.monotonic()

    def on_fit_start(self, loop: TrainLoop, state: TrainState) -> None:
        """Remove what a killed process left half written."""
        self._saved_at = time.monotonic()
        if loop.runtime.is_main:
            _remove_unfinished(self.folder)

    def on_step_end(self, loop: TrainLoop, state: TrainState, step: int, total: int) -> None:
        """Save the latest if it was long ago."""
        if time.monotonic() - self._saved_at >= self.every_s:
            self._save(LATEST, loop, state)

    def on_interrupt(self, loop: TrainLoop, state: TrainState) -> None:
        """Save the latest, with how far the epoch is."""
        self._save(LATEST, loop, state)

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
        content = {**checkpoint_content(loop, state), "run": self.run}
        save_model_file(self.folder / name, content, self.info)
        self._saved_at = time.monotonic()
        seconds = self._saved_at - begin
        self.events.tell("saved", file=name, scheduled=scheduled, seconds=seconds)


def checkpoint_content(loop: TrainLoop, state: TrainState) -> dict[str, Any]:
    """Return what v1 keeps in `X.model`, under its names, and beside it what it forgets.

    That is the moving averages, how far the epoch in hand is, steps skipped of late, and the states
    of the random generators.
    """
    weights = state_dict_to_v1(loop.network)
    content = state.to_checkpoint()
    return {
        "epoch": content.pop("epoch"),
        "state_dict": type(weights)(
            (name, value.cpu().contiguous()) for name, value in weights.items()
        ),
        "optimizer_state_dict": loop.optimizer.state_dict(),
        "lr_scheduler_state_dict": None,
        **content,
        **loop.runtime.state_dict(),
        "progress": loop.progress.to_checkpoint(),
        "faults": loop.faults.to_checkpoint(),
        "random_states": random_states(),
    }


def _remove_unfinished(folder: Path) -> None:
    """Remove the temporary files of processes that are gone."""
    for path in folder.glob(".tmp-*"):
        found = UNFINISHED.fullmatch(path.name)
        if found is not None and not _is_alive(int(found[1])):
            path.unlink(missing_ok=True)


def _is_alive(process: int) -> bool:
    if process == os.getpid():
        return False  # ours are all finished when training begins
    if os.name == "nt":
        return True  # where signal 0 is no question but an interrupt
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # another user's process
    return True
