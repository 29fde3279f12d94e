"""Optimizers and their schedules, as specs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import nn


class OptimizerSpec(Protocol):
    """How weights are changed; a frozen dataclass."""

    @property
    def clip_norm(self) -> float:
        """Longest gradient, over all parameters together (Euclidean norm)."""
        ...

    def build(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """Return an optimizer of these parameters."""
        ...

    def rate(self, epoch: int, epochs: int) -> float:
        """Return the learning rate of an epoch."""
        ...


@dataclass(frozen=True, kw_only=True)
class PolySGD:
    """Stochastic gradient descent with Nesterov momentum and a polynomial decay.

    Source: nnU-Net v1; the decay is that of Chen et al., "DeepLab", arXiv:1606.00915.
    """

    lr: float = 1e-2
    momentum: float = 0.99
    nesterov: bool = True
    weight_decay: float = 3e-5
    power: float = 0.9
    clip_norm: float = 12.0

    def build(self, parameters: Iterable[nn.Parameter]) -> torch.optim.SGD:
        """Return the optimizer; the order of `parameters` is that of its saved state."""
        return torch.optim.SGD(
            list(parameters),
            lr=self.lr,
            momentum=self.momentum,
            nesterov=self.nesterov,
            weight_decay=self.weight_decay,
        )

    def rate(self, epoch: int, epochs: int) -> float:
        r"""Return $lr (1 - epoch / epochs)^{power}$; 0 from `epochs` on."""
        return float(self.lr * max(1 - epoch / epochs, 0.0) ** self.power)


@dataclass(frozen=True, kw_only=True)
class StepAdamW:
    """AdamW whose rate falls to a tenth at each of some points of the training.

    Parameters with one axis (norms, biases, gates), and those with the attribute `no_weight_decay`,
    do not decay. A parameter with the attribute `rate_factor` learns at that multiple of the rate.

    Source: Loshchilov and Hutter, arXiv:1711.05101; the schedule is that of Wang et al., "GDKVM",
    ICCV 2025, arXiv:2512.10252: steps after one and two thirds of the training.
    """

    lr: float = 1e-4
    weight_decay: float = 1e-3
    steps: tuple[float, ...] = (1 / 3, 2 / 3)
    """Shares of the training after which the rate falls."""

    factor: float = 0.1
    clip_norm: float = 3.0

    def build(self, parameters: Iterable[nn.Parameter]) -> torch.optim.AdamW:
        """Return the optimizer; the order of `parameters` is that of each group's saved state."""
        groups: dict[tuple[float, float], list[nn.Parameter]] = {}
        for parameter in parameters:
            decays = parameter.ndim > 1 and not getattr(parameter, "no_weight_decay", False)
            key = (getattr(parameter, "rate_factor", 1.0), self.weight_decay if decays else 0.0)
            groups.setdefault(key, []).append(parameter)
        return torch.optim.AdamW(
            [
                {"params": members, "weight_decay": decay, "rate_factor": factor}
                for (factor, decay), members in sorted(groups.items(), key=lambda item: item[0])[
                    ::-1
                ]
            ],
            lr=self.lr,
        )

    def rate(self, epoch: int, epochs: int) -> float:
        """Return the rate of an epoch."""
        falls = sum(epoch >= step * epochs for step in self.steps)
        return float(self.lr * self.factor**falls)
