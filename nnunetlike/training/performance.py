"""How fast training is: steps timed or profiled, and the figures of all processes together."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple, dataclass

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from nnunetlike.core.resources import process_memory
from nnunetlike.training.objectives import Batch
from nnunetlike.training.runtime import Runtime


class TrainingStep:
    """One whole training step as a function of its batch, for one process of a training.

    Args:
        objective: network and loss in one module; not yet wrapped.
        optimizer: of the objective's parameters.
        runtime: device, precision and processes.
        clip_norm: largest norm of the gradient.

    Attributes:
        skipped: steps whose loss or gradient was not finite, so that the weights were left alone.
    """

    def __init__(
        self,
        objective: nn.Module,
        optimizer: torch.optim.Optimizer,
        runtime: Runtime,
        clip_norm: float,
    ) -> None:
        self.skipped = 0
        self._optimizer = optimizer
        self._runtime = runtime
        self._clip_norm = clip_norm
        self._wrapped = runtime.wrap(objective).train()

    def __call__(self, batch: Batch) -> float:
        """Go forward and backward, change the weights and return the loss."""
        with self._runtime.autocast():
            output = self._wrapped(batch)
        taken = self._runtime.step(output.loss, self._optimizer, self._clip_norm)
        self.skipped += not taken
        return float(output.loss.detach())


@dataclass(frozen=True, kw_only=True)
class StepTimes:
    """Seconds that the timed steps of one process took, in two parts each."""

    samples: int
    """Patches per step of this process."""

    wait_s: tuple[float, ...]
    """Until the batch was on the device."""

    compute_s: tuple[float, ...]
    """From then until the weights were changed and the loss was on the host."""

    @property
    def total_s(self) -> tuple[float, ...]:
        """Both parts together."""
        return tuple(a + b for a, b in zip(self.wait_s, self.compute_s, strict=True))


def time_steps(
    step: Callable[[Batch], float],
    batches: Iterator[Batch],
    device: torch.device,
    *,
    steps: int,
    warmup: int,
    clock: Callable[[], float] = time.perf_counter,
) -> StepTimes:
    """Take `warmup` steps, then time `steps` whole ones, from asking for a batch to the loss.

    Args:
        step: takes one step.
        batches: on the device, or on their way to it.
        device: waited for before each look at the clock.
        steps: 1 or more.
        warmup: steps that are not timed: the first ones choose algorithms and fill caches.
        clock: returns seconds.
    """
    wait_s: list[float] = []
    compute_s: list[float] = []
    samples = 0
    for _ in range(warmup + steps):
        begin = clock()
        batch = next(batches)
        _finish(device)
        ready = clock()
        step(batch)
        _finish(device)
        wait_s.append(ready - begin)
        compute_s.append(clock() - ready)
        samples = batch["image"].shape[0]
    return StepTimes(
        samples=samples, wait_s=tuple(wait_s[warmup:]), compute_s=tuple(compute_s[warmup:])
    )


def profile_steps(
    step: Callable[[Batch], float],
    batches: Iterator[Batch],
    device: torch.device,
    *,
    steps: int,
    warmup: int,
    watch: bool,
) -> profile | None:
    """Take `warmup` steps, then `steps` under torch's profiler; their batches are fetched before.

    Args:
        step: takes one step.
        batches: on the device, or on their way to it.
        device: adds its own activities to the profile.
        steps: steps in the profile.
        warmup: steps before.
        watch: False takes the same steps without a profile: other processes wait for this one.
    """
    for _ in range(warmup):
        step(next(batches))
    ready = [next(batches) for _ in range(steps)]
    _finish(device)
    if not watch:
        _all(step, ready, device)
        return None
    activities = [ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
    found = profile(activities=activities)
    with found:
        _all(step, ready, device)
    return found


def _all(step: Callable[[Batch], float], batches: Sequence[Batch], device: torch.device) -> None:
    for batch in batches:
        step(batch)
    _finish(device)


def _finish(device: torch.device) -> None:
    """Wait until a device has done what it was given; what it prepares beside that may go on."""
    if device.type == "cuda":
        torch.cuda.current_stream(device).synchronize()


def profile_table(found: profile, device: torch.device, rows: int = 40) -> str:
    """Return the operations that took longest by themselves, on the device."""
    kind = "cuda" if device.type == "cuda" else "cpu"
    table = found.key_averages().table(sort_by=f"self_{kind}_time_total", row_limit=rows)
    return str(table)


@dataclass(frozen=True)
class ProcessSpeed:
    """Figures of one process over its timed steps."""

    samples: float
    """Patches per step."""

    mean_s: float
    min_s: float
    max_s: float
    wait_s: float
    """Mean wait for a batch."""

    compute_s: float
    """Mean of the rest of a step."""

    peak_bytes: float
    """Most memory held at once; NaN where the system does not tell."""

    @property
    def fps(self) -> float:
        """Patches per second."""
        return self.samples / self.mean_s


@dataclass(frozen=True)
class Speed:
    """Figures of all processes, by rank."""

    processes: tuple[ProcessSpeed, ...]

    @property
    def samples(self) -> int:
        """Patches per step of all processes."""
        return round(sum(process.samples for process in self.processes))

    @property
    def mean_s(self) -> float:
        """Mean duration of a step of the slowest process, for which all others wait."""
        return max(process.mean_s for process in self.processes)

    @property
    def fps(self) -> float:
        """Patches per second of all processes: those of one step by the slowest mean step."""
        return self.samples / self.mean_s


def speed_of_all(times: StepTimes, runtime: Runtime) -> Speed:
    """Return the figures of all processes; each process calls this and gets the same."""
    total = times.total_s
    own = ProcessSpeed(
        samples=times.samples,
        mean_s=_mean(total),
        min_s=min(total),
        max_s=max(total),
        wait_s=_mean(times.wait_s),
        compute_s=_mean(times.compute_s),
        peak_bytes=_peak_memory(runtime.device),
    )
    table = torch.zeros(runtime.world_size, len(astuple(own)), dtype=torch.float64)
    table[runtime.rank] = torch.tensor(astuple(own), dtype=torch.float64)
    rows = runtime.sum(table.to(runtime.device)).tolist()
    return Speed(tuple(ProcessSpeed(*row) for row in rows))


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _peak_memory(device: torch.device) -> float:
    """Return the bytes allocated on a GPU at most, or held by this process on a CPU."""
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device))
    held = process_memory(os.getpid())
    return math.nan if held is None else float(held.peak)
