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
