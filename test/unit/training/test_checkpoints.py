"""When which checkpoint is written and removed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from nnunetlike.networks.model_files import load_content
from nnunetlike.networks.unet import UNetSpec
from nnunetlike.training.hooks import EpochReport
from nnunetlike.training.hooks.checkpoints import Checkpoints
from nnunetlike.training.hooks.monitor import Events
from nnunetlike.training.loop import TrainLoop
from nnunetlike.training.recipes import TRAINERS
from nnunetlike.training.runtime import SingleProcess
from nnunetlike.training.state import TrainState

RECIPE = TRAINERS.get("nnUNetTrainerV2")


class Recorder:
    def __init__(self, folder: Path) -> None:
        self.events: list[Any] = []

    def write(self, event: Any) -> None:
        self.events.append((event["file"], event["scheduled"]))


def _loop(*, main: bool = True) -> TrainLoop:
    spec, task = UNetSpec.tiny(2)
    network = spec.build(task)
    objective = RECIPE.objective.build(network, batch_dice=True)
    runtime = SingleProcess(torch.device("cpu"))
    runtime.is_main = main
    return TrainLoop(RECIPE, objective, RECIPE.optimizer.build(network.parameters()), runtime)


def _report(epoch: int) -> EpochReport:
    return EpochReport(
        epoch=epoch, train_loss=1, val_loss=1, dice=(), lr=1, next_lr=1, wait_s=0, compute_s=0,
        total_s=0,
    )  # fmt: skip


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def _hook(folder: Path, *, keep: bool = True) -> tuple[Checkpoints, Recorder]:
    recorder = Recorder(folder)
    return Checkpoints(folder, {"name": "x"}, Events([recorder]), keep=keep), recorder


def test_latest_is_saved_in_epochs_49_and_99_and_removed_in_the_end(tmp_path: Path) -> None:
    hook, recorder = _hook(tmp_path)
    loop, state = _loop(), TrainState()
    for epoch in range(100):
        hook.on_epoch_end(loop, state, _report(epoch))
    assert recorder.events == [("model_latest.model", True)] * 2
    assert _names(tmp_path) == {"model_latest.model", "model_latest.model.pkl"}
    hook.on_fit_end(loop, state)
    assert _names(tmp_path) == {"model_final_checkpoint.model", "model_final_checkpoint.model.pkl"}


def test_best_is_saved_after_an_improvement_only(tmp_path: Path) -> None:
    hook, recorder = _hook(tmp_path)
    loop, state = _loop(), TrainState()
    for epoch, metric in enumerate((0.5, 0.4, 0.9)):
        state = state.after_epoch(1.0, 1.0, metric, lr=0.01)
        hook.on_epoch_end(loop, state, _report(epoch))
    assert recorder.events == [("model_best.model", False)]
    assert load_content(tmp_path / "model_best.model")["epoch"] == 3


def test_without_saving_only_latest_is_there_while_training_lasts(tmp_path: Path) -> None:
    hook, _ = _hook(tmp_path, keep=False)
    loop = _loop()
    better = replace(TrainState(), improved=True)
    hook.on_epoch_end(loop, better, _report(49))
    assert _names(tmp_path) == {"model_latest.model", "model_latest.model.pkl"}
    hook.on_fit_end(loop, better)
    assert _names(tmp_path) == set()


def test_other_processes_than_the_main_one_write_nothing(tmp_path: Path) -> None:
    hook, _ = _hook(tmp_path)
    loop = _loop(main=False)
    hook.on_epoch_end(loop, replace(TrainState(), improved=True), _report(49))
    hook.on_fit_end(loop, TrainState())
    assert _names(tmp_path) == set()
