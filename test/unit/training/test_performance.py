"""Timed and profiled steps, with a clock that the test moves."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nnunetlike.training.objectives import Batch, StepOutput
from nnunetlike.training.performance import (
    ProcessSpeed,
    Speed,
    StepTimes,
    TrainingStep,
    profile_steps,
    profile_table,
    speed_of_all,
    time_steps,
)
from nnunetlike.training.runtime import SingleProcess

CPU = torch.device("cpu")


class Clock:
    """Stands still until it is moved."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


class Linear(nn.Module):
    """An objective with one weight: the loss is the weight times the mean of the image."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(2.0))

    def forward(self, batch: Batch) -> StepOutput:
        return StepOutput(loss=self.weight * batch["image"].mean())


def batch_of(samples: int, value: float = 1.0) -> Batch:
    image = torch.full((samples, 1, 2, 2), value)
    return {"image": image, "label": torch.zeros(samples, 2, 2), "case_ids": ["c"] * samples}


def endless(clock: Clock, waits: list[float]) -> Iterator[Batch]:
    for wait in waits:
        clock.now += wait
        yield batch_of(3)


def test_each_step_is_timed_from_asking_for_its_batch_and_warm_up_is_left_out() -> None:
    clock = Clock()
    durations = iter([90.0, 80.0, 4.0, 6.0])

    def step(batch: Batch) -> float:
        clock.now += next(durations)
        return 0.0

    batches = endless(clock, [70.0, 60.0, 1.0, 2.0])
    times = time_steps(step, batches, CPU, steps=2, warmup=2, clock=clock)
    assert times == StepTimes(samples=3, wait_s=(1.0, 2.0), compute_s=(4.0, 6.0))
    assert times.total_s == (5.0, 8.0)


def test_a_step_is_that_of_training() -> None:
    objective = Linear().eval()
    optimizer = torch.optim.SGD(objective.parameters(), lr=0.5)
    step = TrainingStep(objective, optimizer, SingleProcess(CPU), clip_norm=0.25)
    assert step(batch_of(2)) == 2.0
    assert objective.training
    assert objective.weight.item() == pytest.approx(2 - 0.5 * 0.25, abs=1e-5)  # clipped
    assert step.skipped == 0


def test_steps_that_are_not_finite_are_counted() -> None:
    objective = Linear()
    optimizer = torch.optim.SGD(objective.parameters(), lr=0.5)
    step = TrainingStep(objective, optimizer, SingleProcess(CPU), clip_norm=1.0)
    assert math.isnan(step(batch_of(2, math.nan)))
    assert step.skipped == 1
    assert objective.weight.item() == 2.0


class OfTwo(SingleProcess):
    """Process 1 of 2; what process 0 has is given."""

    rank = 1
    world_size = 2
    is_main = False

    def __init__(self, other: tuple[float, ...]) -> None:
        super().__init__(CPU)
        self.other = other

    def sum(self, value: Tensor) -> Tensor:
        assert not value[0].any()
        return value + torch.tensor([self.other, (0.0,) * len(self.other)], dtype=value.dtype)


def test_figures_of_all_processes_count_every_patch_and_the_slowest_step() -> None:
    other = (4.0, 2.0, 1.0, 3.0, 0.5, 1.5, math.nan)
    times = StepTimes(samples=2, wait_s=(0.25, 0.75), compute_s=(0.25, 0.75))
    speed = speed_of_all(times, OfTwo(other))
    first, second = speed.processes
    assert (first.samples, first.mean_s, first.fps) == (4.0, 2.0, 2.0)
    assert math.isnan(first.peak_bytes)
    assert (second.mean_s, second.min_s, second.max_s) == (1.0, 0.5, 1.5)
    assert (second.wait_s, second.compute_s, second.fps) == (0.5, 0.5, 2.0)
    assert (speed.samples, speed.mean_s, speed.fps) == (6, 2.0, 3.0)
    assert second.peak_bytes > 2**20


def test_one_process_is_all_there_is() -> None:
    times = StepTimes(samples=2, wait_s=(0.0,), compute_s=(0.5,))
    speed = speed_of_all(times, SingleProcess(CPU))
    assert speed.fps == speed.processes[0].fps == 4.0
    assert isinstance(speed, Speed)
    assert isinstance(speed.processes[0], ProcessSpeed)


def training_step() -> TrainingStep:
    objective = Linear()
    optimizer = torch.optim.SGD(objective.parameters(), lr=0.5)
    return TrainingStep(objective, optimizer, SingleProcess(CPU), clip_norm=1.0)


def test_profile_has_the_asked_steps_and_no_more(tmp_path: Path) -> None:
    clock, step = Clock(), training_step()
    batches = endless(clock, [0.0] * 9)
    found = profile_steps(step, batches, CPU, steps=2, warmup=3, watch=True)
    assert found is not None
    means = {event.key: event.count for event in found.key_averages()}
    assert means["aten::mean"] == 2
    assert len(list(batches)) == 9 - 5
    assert "Self CPU" in profile_table(found, CPU)
    path = tmp_path / "output.prof"
    found.export_chrome_trace(str(path))
    events: list[dict[str, Any]] = json.loads(path.read_text())["traceEvents"]
    assert any(event.get("name") == "aten::mean" for event in events)


def test_other_processes_take_the_same_steps_without_a_profile() -> None:
    taken: list[Batch] = []

    def step(batch: Batch) -> float:
        taken.append(batch)
        return 0.0

    batches = endless(Clock(), [0.0] * 9)
    assert profile_steps(step, batches, CPU, steps=2, warmup=3, watch=False) is None
    assert len(taken) == 5
