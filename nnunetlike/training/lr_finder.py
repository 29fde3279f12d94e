"""Learning-rate range test: the loss while the rate grows from step to step."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn

from nnunetlike.training.runtime import Runtime
from nnunetlike.training.sources import HostBatch

SMOOTHING = 0.98
DIVERGED = 4.0


@dataclass(frozen=True)
class RangeTest:
    """Learning rates and the smoothed losses they gave."""

    rates: tuple[float, ...]
    losses: tuple[float, ...]

    @property
    def steepest(self) -> float:
        """Rate at which the loss falls fastest per factor in the rate; NaN below two steps."""
        slopes = [b - a for a, b in zip(self.losses, self.losses[1:], strict=False)]
        return self.rates[slopes.index(min(slopes))] if slopes else math.nan


def range_test(
    objective: nn.Module,
    optimizer: torch.optim.Optimizer,
    runtime: Runtime,
    batches: Iterator[HostBatch],
    *,
    steps: int,
    first: float = 1e-6,
    last: float = 10.0,
    clip_norm: float = 12.0,
) -> RangeTest:
    """Train with a rate that grows from `first` to `last` by a constant factor per step.

    The weights are spoilt afterwards. The test ends early when the smoothed loss has gone up by
    four times the distance between the first loss and the best.

    Source: Smith, "Cyclical Learning Rates for Training Neural Networks", WACV 2017,
    arXiv:1506.01186; smoothing as in nnU-Net v1.
    """
    objective.train()
    factor = (last / first) ** (1 / max(steps - 1, 1))
    rates: list[float] = []
    losses: list[float] = []
    on_device = runtime.feed(batches)
    average = 0.0
    for step in range(steps):
        rate = first * factor**step
        for group in optimizer.param_groups:
            group["lr"] = rate
        with runtime.autocast():
            output = objective(next(on_device))
        runtime.step(output.loss, optimizer, clip_norm)
        loss = float(runtime.sum(output.loss.detach())) / runtime.world_size
        average = SMOOTHING * average + (1 - SMOOTHING) * loss
        rates.append(rate)
        losses.append(average / (1 - SMOOTHING ** (step + 1)))
        if _diverged(losses):
            break
    return RangeTest(tuple(rates), tuple(losses))


def _diverged(losses: list[float]) -> bool:
    if not math.isfinite(losses[-1]):
        return True
    best = min(losses)
    return len(losses) > 10 and losses[-1] - best > DIVERGED * max(losses[0] - best, 0.1)
