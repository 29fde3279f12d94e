"""The loop on a network of one weight, where every number can be worked out by hand."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import count, repeat
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nnunetlike.training.hooks import EpochReport, Hook
from nnunetlike.training.loop import TrainLoop, class_dice, mean_dice
from nnunetlike.training.objectives import Batch, StepOutput
from nnunetlike.training.optimizers import PolySGD
from nnunetlike.training.recipes import TRAINERS
from nnunetlike.training.runtime import SingleProcess
from nnunetlike.training.sources import ArrayBatch
from nnunetlike.training.state import TrainState

RECIPE = replace(TRAINERS.get("nnUNetTrainerV2"), epochs=3, iterations=2, val_iterations=1)


class Line(nn.Module):
    """y = w x, scored by (y - label mean) squared; counts as told."""

    def __init__(self, counts: Tensor | None = None) -> None:
        super().__init__()
        self.network = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False))
        self.counts = counts
        nn.init.constant_(self.weight, 0.5)

    @property
    def weight(self) -> Tensor:
        return self.network[0].weight

    def forward(self, batch: Batch) -> StepOutput:
        difference = self.network(batch["image"]).mean() - batch["label"].float().mean()
        counts = None if self.training else self.counts
        return StepOutput(loss=difference**2, counts=counts)


def batches(label: int = 1) -> Iterator[ArrayBatch]:
    image = np.ones((1, 1, 2, 2), np.float32)
    return repeat({"image": image, "label": np.full((1, 2, 2), label, np.int16), "case_ids": []})


@dataclass
class Recorder(Hook):
    calls: list[Any]

    def on_fit_start(self, loop: TrainLoop, state: TrainState) -> None:
        self.calls.append(("start", state.epoch))

    def on_step_end(self, loop: TrainLoop, state: TrainState, step: int, total: int) -> None:
        self.calls.append(("step", state.epoch, step, total))

    def on_epoch_end(self, loop: TrainLoop, state: TrainState, report: EpochReport) -> None:
        self.calls.append(("epoch", report))

    def on_fit_end(self, loop: TrainLoop, state: TrainState) -> None:
        self.calls.append(("end", state.epoch))


def run(
    objective: Line, state: TrainState | None = None, **changes: Any
) -> tuple[TrainState, list[Any], TrainLoop]:
    recipe = replace(RECIPE, **changes)
    recorder = Recorder([])
    runtime = SingleProcess(torch.device("cpu"))
    optimizer = recipe.optimizer.build(objective.parameters())
    loop = TrainLoop(recipe, objective, optimizer, runtime, [recorder])
    return loop.fit(batches(), batches(), state), recorder.calls, loop


def test_first_losses_are_those_worked_out_by_hand() -> None:
    plain = PolySGD(lr=0.1, momentum=0.0, nesterov=False, weight_decay=0.0)
    state, _, _ = run(Line(), optimizer=plain, epochs=1)
    # w = 0.5: loss 0.25, gradient -1, w = 0.6: loss 0.16, gradient -0.8, w = 0.68: loss 0.1024
    assert state.train_losses[0] == pytest.approx((0.25 + 0.16) / 2)
    assert state.val_losses[0] == pytest.approx(0.1024)


def test_gradients_are_clipped_to_the_norm_of_the_recipe() -> None:
    plain = PolySGD(lr=0.1, momentum=0.0, nesterov=False, weight_decay=0.0, clip_norm=0.5)
    objective = Line()
    run(objective, optimizer=plain, epochs=1, iterations=1)
    assert float(objective.weight.detach()) == pytest.approx(0.55, abs=1e-6)


def test_hooks_hear_every_event_in_order() -> None:
    _, calls, _ = run(Line(), epochs=2)
    kinds = [call[0] for call in calls]
    one_epoch = ["step", "step", "step", "epoch"]
    assert kinds == ["start", *one_epoch, *one_epoch, "end"]
    assert calls[3] == ("step", 0, 2, 3)


def test_rates_follow_the_schedule_and_end_at_zero() -> None:
    _, calls, loop = run(Line())
    reports = [call[1] for call in calls if call[0] == "epoch"]
    rates = [0.01, 0.01 * (2 / 3) ** 0.9, 0.01 * (1 / 3) ** 0.9, 0.0]
    assert [r.lr for r in reports] == pytest.approx(rates[:3])
    assert [r.next_lr for r in reports] == pytest.approx(rates[1:])
    assert loop.optimizer.param_groups[0]["lr"] == 0.0


def test_training_goes_on_at_the_epoch_and_rate_of_the_state() -> None:
    state, calls, _ = run(Line(), TrainState(train_losses=(1.0, 1.0), val_losses=(1.0, 1.0)))
    assert calls[0] == ("start", 2)
    assert state.epoch == 3
    assert calls[-2][1].lr == pytest.approx(0.01 * (1 / 3) ** 0.9)


def test_online_dice_sums_counts_and_drops_absent_classes() -> None:
    counts = torch.tensor([[1, 1, 0], [0, 0, 0]])
    state, calls, _ = run(Line(counts), epochs=1, val_iterations=3)
    report = next(call[1] for call in calls if call[0] == "epoch")
    assert report.dice == (pytest.approx(2 / 3), None)
    assert state.metrics == (pytest.approx(2 / 3),)


def test_dice_of_no_class_at_all_is_nan() -> None:
    assert np.isnan(mean_dice(class_dice(torch.zeros(2, 3))))


def test_waiting_is_time_in_the_source() -> None:
    class Slow:
        def __init__(self) -> None:
            self.numbers = count()

        def __iter__(self) -> Slow:
            return self

        def __next__(self) -> ArrayBatch:
            import time

            time.sleep(0.02)
            return next(batches())

    recipe = replace(RECIPE, epochs=1)
    recorder = Recorder([])
    objective = Line()
    optimizer = recipe.optimizer.build(objective.parameters())
    runtime = SingleProcess(torch.device("cpu"))
    TrainLoop(recipe, objective, optimizer, runtime, [recorder]).fit(Slow(), batches())
    report = recorder.calls[-2][1]
    assert 0.04 <= report.wait_s <= report.total_s
    assert report.compute_s == pytest.approx(report.total_s - report.wait_s)


@pytest.mark.parametrize(("metric", "restarts"), [(0.0, True), (1e-6, False)])
def test_epoch_100_with_a_dice_of_zero_starts_again(metric: float, restarts: bool) -> None:
    zeros = TrainState(
        train_losses=(1.0,) * 100, val_losses=(1.0,) * 100, metrics=(0.0,) * 100, val_average=0.0
    )
    true_positives = metric * 1e6
    objective = Line(torch.tensor([[true_positives, 2e6 - 2 * true_positives, 0.0]]))
    rates_only = PolySGD(lr=0.0)
    _, _, loop = run(objective, zeros, epochs=101, optimizer=rates_only)
    changed = float(objective.weight.detach()) != 0.5
    assert changed == restarts
    assert loop.optimizer.param_groups[0]["momentum"] == (0.95 if restarts else 0.99)
    assert loop.optimizer.param_groups[0]["lr"] == 0.0
