"""The loop on a network of one weight, where every number can be worked out by hand."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import count, repeat
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nnunetlike.core.errors import DataError, InterruptedRunError, WorkerError
from nnunetlike.training.hooks import EpochReport, Hook
from nnunetlike.training.loop import TrainLoop, class_dice, mean_dice
from nnunetlike.training.objectives import Batch, StepOutput
from nnunetlike.training.optimizers import PolySGD
from nnunetlike.training.progress import EpochProgress, SkippedStep
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


class Poisoned(Line):
    """A loss that is NaN in the training steps it is told."""

    def __init__(self, *steps: int) -> None:
        super().__init__(torch.tensor([[1, 0, 0]]))
        self.steps, self.number = steps, 0

    def forward(self, batch: Batch) -> StepOutput:
        output = super().forward(batch)
        if self.training:
            if self.number in self.steps:
                output.loss = output.loss * math.nan
            self.number += 1
        return output


def poisoned(objective: Line, precision: str = "fp32", **changes: Any) -> tuple[Any, Any]:
    recipe = replace(RECIPE, epochs=1, **changes)
    recorder = Recorder([])
    optimizer = recipe.optimizer.build(objective.parameters())
    runtime = SingleProcess(torch.device("cpu"), precision)
    loop = TrainLoop(recipe, objective, optimizer, runtime, [recorder])
    batch = {**next(batches()), "case_ids": ["liver_7", "liver_9"]}
    loop.fit(repeat(batch), repeat(batch))
    return loop, recorder.calls[-2][1]


def test_a_nan_step_is_skipped_and_its_cases_are_named(caplog: pytest.LogCaptureFixture) -> None:
    plain = PolySGD(lr=0.1, momentum=0.0, nesterov=False, weight_decay=0.0)
    objective = Poisoned(1)
    _, report = poisoned(objective, iterations=3, optimizer=plain)
    # as two steps without the one between: 0.5, 0.6, 0.68
    assert float(objective.weight.detach()) == pytest.approx(0.68)
    assert report.train_loss == pytest.approx((0.25 + 0.16) / 2)
    assert report.skipped == (SkippedStep(0, 1, ("liver_7", "liver_9")),)
    assert "epoch 0, step 1: the loss or its gradient is not finite" in caplog.text
    assert "liver_7, liver_9" in caplog.text


def test_after_five_nan_steps_training_goes_on_in_a_wider_type(
    caplog: pytest.LogCaptureFixture,
) -> None:
    loop, report = poisoned(Poisoned(*range(5)), "bf16", iterations=7)
    assert loop.runtime.precision == "fp32"
    assert math.isfinite(report.train_loss)
    assert "training goes on in fp32" in caplog.text


def test_nan_in_single_precision_ends_training_with_the_finding() -> None:
    with pytest.raises(DataError, match=r"5 of 5 recent steps, with cases liver_7 \(5\)") as found:
        poisoned(Poisoned(*range(9)), iterations=9)
    assert found.value.exit_code == 3


@dataclass
class LeaveAt(Hook):
    """Wants to leave after so many steps, and keeps what a checkpoint would."""

    steps: int
    kept: tuple[TrainState, dict[str, Any]] | None = None

    def reason_to_leave(self) -> str | None:
        self.steps -= 1
        return "SIGTERM" if self.steps <= 0 else None

    def on_interrupt(self, loop: TrainLoop, state: TrainState) -> None:
        self.kept = (state, loop.progress.to_checkpoint())


@pytest.mark.parametrize("steps", range(1, 11))
def test_leaving_after_any_step_and_going_on_is_as_if_nothing_had_happened(steps: int) -> None:
    def numbered(first: int) -> Iterator[ArrayBatch]:
        for number in count(first):
            image = np.full((1, 1, 2, 2), 1 + 0.1 * number, np.float32)
            yield {"image": image, "label": np.ones((1, 2, 2), np.int16), "case_ids": []}

    def loop_of(objective: Line, hooks: list[Hook]) -> TrainLoop:
        optimizer = RECIPE.optimizer.build(objective.parameters())
        runtime = SingleProcess(torch.device("cpu"))
        return TrainLoop(replace(RECIPE, iterations=3), objective, optimizer, runtime, hooks)

    counts = torch.tensor([[3, 1, 2]])
    whole = Line(counts)
    straight = loop_of(whole, []).fit(numbered(0), numbered(0))
    objective = Line(counts)
    leave = LeaveAt(steps)
    first = loop_of(objective, [leave])
    with pytest.raises(InterruptedRunError, match="SIGTERM in epoch"):
        first.fit(numbered(0), numbered(0))
    assert leave.kept is not None
    state, content = leave.kept
    again = loop_of(objective, [])
    again.optimizer.load_state_dict(first.optimizer.state_dict())
    again.progress = EpochProgress.from_checkpoint(content, torch.device("cpu"))
    done = again.progress
    resumed = again.fit(
        numbered(3 * state.epoch + done.train_steps), numbered(state.epoch + done.val_steps), state
    )
    assert resumed == straight
    assert torch.equal(whole.weight, objective.weight)


def test_a_reason_to_end_makes_the_epoch_the_last_one(caplog: pytest.LogCaptureFixture) -> None:
    class Enough(Recorder):
        def reason_to_end(self, state: TrainState) -> str | None:
            return "enough" if state.epoch == 2 else None

    objective = Line()
    optimizer = RECIPE.optimizer.build(objective.parameters())
    hook = Enough([])
    loop = TrainLoop(RECIPE, objective, optimizer, SingleProcess(torch.device("cpu")), [hook])
    assert loop.fit(batches(), batches()).epoch == 2
    assert hook.calls[-1] == ("end", 2)
    assert caplog.messages == ["training ends after epoch 1: enough"]


def test_a_dead_worker_is_an_interruption_only_after_a_signal() -> None:
    def dying() -> Iterator[ArrayBatch]:
        yield next(batches())
        raise WorkerError("died")

    for hooks, error in (([], WorkerError), ([LeaveAt(2)], InterruptedRunError)):
        objective = Line()
        optimizer = RECIPE.optimizer.build(objective.parameters())
        loop = TrainLoop(RECIPE, objective, optimizer, SingleProcess(torch.device("cpu")), hooks)
        with pytest.raises(error):
            loop.fit(dying(), batches())
