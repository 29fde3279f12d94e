"""Weighted sums of losses, and the pairs that trainers use."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from nnunetlike.training.losses.cross_entropy import (
    BinaryCrossEntropy,
    CrossEntropy,
    TopKCrossEntropy,
)
from nnunetlike.training.losses.dice import GeneralizedDice, SoftDice


class Loss(Protocol):
    """A function of logits (B, K, *patch) and labels (B, *patch) that gives a scalar."""

    name: ClassVar[str]

    def __call__(self, logits: Tensor, label: Tensor) -> Tensor:
        """Return the loss."""
        ...


@dataclass(frozen=True)
class Compound:
    """A sum of weighted losses with different names."""

    terms: tuple[tuple[float, Loss], ...]

    def parts(self, logits: Tensor, label: Tensor) -> dict[str, Tensor]:
        """Return each weighted loss by its name; their sum is what is differentiated."""
        return {loss.name: weight * loss(logits, label) for weight, loss in self.terms}

    def __call__(self, logits: Tensor, label: Tensor) -> Tensor:
        """Return the sum of the weighted losses."""
        return torch.stack(list(self.parts(logits, label).values())).sum()


def dice_and_cross_entropy(
    *,
    batch_dice: bool,
    smooth: float = 1e-5,
    background: bool = False,
    log_dice: bool = False,
    dice_weight: float = 1.0,
    cross_entropy_weight: float = 1.0,
    ignore_label: int | None = None,
    total: Callable[[Tensor], Tensor] | None = None,
) -> Compound:
    """Return the loss of nnU-Net: cross-entropy plus soft Dice.

    Args:
        batch_dice: one Dice per class over the whole batch, else one per sample and class.
        smooth: added to numerator and denominator of Dice.
        background: whether class 0 has a Dice.
        log_dice: minus the logarithm of the Dice.
        dice_weight: weight of Dice.
        cross_entropy_weight: weight of cross-entropy.
        ignore_label: label whose voxels do not count.
        total: sums over processes, with gradient, where a batch is spread over several.
    """
    dice = SoftDice(
        batch=batch_dice,
        smooth=smooth,
        background=background,
        log=log_dice,
        ignore_label=ignore_label,
        total=total,
    )
    entropy = CrossEntropy(ignore_label=ignore_label)
    return Compound(((cross_entropy_weight, entropy), (dice_weight, dice)))


def dice_and_top_k(*, batch_dice: bool, percent: float = 10) -> Compound:
    """Return soft Dice plus the cross-entropy of the worst `percent` % of voxels."""
    return Compound(((1.0, TopKCrossEntropy(percent=percent)), (1.0, SoftDice(batch=batch_dice))))


def generalized_dice_and_cross_entropy(*, batch_dice: bool) -> Compound:
    """Return generalised Dice plus cross-entropy."""
    return Compound(((1.0, CrossEntropy()), (1.0, GeneralizedDice(batch=batch_dice))))


def dice_and_binary_cross_entropy(*, batch_dice: bool) -> Compound:
    """Return soft Dice plus binary cross-entropy for regions, labels (B, R, *patch)."""
    dice = SoftDice(batch=batch_dice, background=True, regions=True)
    return Compound(((1.0, BinaryCrossEntropy()), (1.0, dice)))
