"""When which checkpoint is written and removed."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
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


def _hook(folder: Path, **settings: Any) -> tuple[Checkpoints, Recorder]:
    recorder = Recorder(folder)
    return Checkpoints(folder, {"name": "x"}, Events([recorder]), **settings), recorder


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


def test_latest_is_saved_after_a_while_in_the_middle_of_an_epoch(tmp_path: Path) -> None:
    hook, recorder = _hook(tmp_path, every_s=0.0)
    loop = _loop()
    loop.progress.train_steps = 3
    hook.on_step_end(loop, TrainState(), 2, 9)
    assert recorder.events == [("model_latest.model", False)]
    assert load_content(tmp_path / "model_latest.model")["progress"]["train_steps"] == 3
    rare, nothing = _hook(tmp_path)
    rare.on_step_end(loop, TrainState(), 2, 9)
    assert nothing.events == []


def test_an_interruption_saves_the_latest_with_what_a_run_needs_to_go_on(tmp_path: Path) -> None:
    hook, _ = _hook(tmp_path, run={"seed": 7})
    hook.on_interrupt(_loop(), TrainState())
    content = load_content(tmp_path / "model_latest.model")
    assert content["run"] == {"seed": 7}
    assert content["random_states"].keys() == {"python", "numpy", "torch", "cuda"}


def test_what_a_killed_process_left_half_written_is_removed(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait(60)
    gone = tmp_path / f".tmp-{ended.pid}-model_latest.model"
    others = tmp_path / f".tmp-{os.getppid()}-model_latest.model"
    foreign = tmp_path / f".tmp-{ended.pid}-notes.txt"
    for path in (gone, others, foreign):
        path.touch()
    hook, _ = _hook(tmp_path)
    hook.on_fit_start(_loop(), TrainState())
    assert (gone.exists(), others.exists(), foreign.exists()) == (False, True, True)


def test_a_sink_that_cannot_write_is_told_once_and_training_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Full:
        def __init__(self, folder: Path) -> None: ...

        def write(self, event: Any) -> None:
            raise OSError(28, "No space left on device", "metrics.jsonl")

    recorder = Recorder(Path())
    events = Events([Full(Path()), recorder])
    for _ in range(3):
        events.tell("saved", file="x", scheduled=False)
    assert len(recorder.events) == 3
    (line,) = caplog.messages
    assert "Full cannot be written" in line and "No space left" in line
