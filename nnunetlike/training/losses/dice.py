"""Losses from the overlap of probabilities and labels, summed per class.

Axes: B batch, K classes (or regions), then the patch. Labels are (B, *patch) integers, or
(B, K, *patch) booleans where `regions` is set. No loss writes into its arguments.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

_TINY = 1e-8


@dataclass(frozen=True)
class Overlap:
    """Sums over voxels, each (B, K), or (K,) over a whole batch."""

    shared: Tensor
    """Probability inside the label: true positives."""

    predicted: Tensor
    """Probability everywhere."""

    present: Tensor
    """Voxels of the label."""

    voxels: Tensor
    """All voxels that count, broadcastable with the others."""

    @property
    def false_positives(self) -> Tensor:
        """Probability outside the label."""
        return self.predicted - self.shared

    @property
    def false_negatives(self) -> Tensor:
        """What the label has and the probability lacks."""
        return self.present - self.shared

    @property
    def true_negatives(self) -> Tensor:
        """Lack of probability outside the label."""
        return self.voxels - self.predicted - self.present + self.shared


def overlap(
    probabilities: Tensor, members: Tensor, valid: Tensor | None = None, exponent: int = 1
) -> Overlap:
    """Return the overlap of each sample.

    Args:
        probabilities: (B, K, *patch).
        members: whether a voxel belongs to a class, (B, K, *patch) boolean.
        valid: voxels that count, (B, 1, *patch) boolean; all when absent.
        exponent: power to which probabilities are summed in `predicted`.
    """
    axes = tuple(range(2, probabilities.ndim))
    samples, _, *patch = probabilities.shape
    voxels = probabilities.new_full((samples, 1), math.prod(patch))
    if valid is not None:
        probabilities, members = probabilities * valid, members & valid
        voxels = valid.sum(axes).to(probabilities.dtype)
    return Overlap(
        shared=(probabilities * members).sum(axes),
        predicted=(probabilities**exponent if exponent != 1 else probabilities).sum(axes),
        present=members.sum(axes).to(probabilities.dtype),
        voxels=voxels,
    )


@dataclass(frozen=True, kw_only=True)
class OverlapLoss:
    """Settings that the losses of this module share."""

    name: ClassVar[str] = "overlap"

    batch: bool = False
    """Sum over the batch before the ratio, instead of one ratio per sample."""

    background: bool = False
    """Count class 0 as well."""

    smooth: float = 1e-5
    """Added to numerator and denominator."""

    ignore_label: int | None = None
    """Voxels of this label do not count."""

    regions: bool = False
    """Classes may overlap: sigmoid instead of softmax, labels (B, K, *patch)."""

    total: Callable[[Tensor], Tensor] | None = field(default=None, compare=False)
    """Sums a tensor over processes, with gradient; used with `batch`."""

    def sums(self, logits: Tensor, label: Tensor, exponent: int = 1) -> Overlap:
        """Return the overlap, per sample or over the batch; without background if so set."""
        first = 0 if self.background else 1
        valid = None
        if self.regions:
            probabilities, members = torch.sigmoid(logits), label.bool()
        else:
            probabilities, members = torch.softmax(logits, 1), members_of(label, logits.shape[1])
            if self.ignore_label is not None:
                valid = (label != self.ignore_label)[:, None]
        found = overlap(probabilities[:, first:], members[:, first:], valid, exponent)
        if not self.batch:
            return found
        voxels = found.voxels.expand_as(found.shared)
        summed = torch.stack([found.shared, found.predicted, found.present, voxels]).sum(1)
        return Overlap(*(summed if self.total is None else self.total(summed)))


def members_of(label: Tensor, classes: int) -> Tensor:
    """Return (B, K, *patch) booleans: whether a voxel of a (B, *patch) label is of the class."""
    values = torch.arange(classes, device=label.device, dtype=label.dtype)
    return label[:, None] == values.view(1, -1, *(1,) * (label.ndim - 1))


@dataclass(frozen=True, kw_only=True)
class SoftDice(OverlapLoss):
    """Minus the mean Dice of probabilities, over samples and classes.

    Source: Drozdzal et al., "The Importance of Skip Connections in Biomedical Image Segmentation",
    DLMIA 2016, arXiv:1608.04117; nnU-Net v1 adds 1e-8 to the denominator.
    """

    name: ClassVar[str] = "dice"

    log: bool = False
    """Give minus the logarithm of the mean Dice instead."""

    def __call__(self, logits: Tensor, label: Tensor) -> Tensor:
        """Return the loss, a scalar; a class that is nowhere counts as almost 0 if predicted.

        Args:
            logits: (B, K, *patch).
            label: (B, *patch), or (B, K, *patch) for regions.
        """
        found = self.sums(logits, label)
        top = 2 * found.shared + self.smooth
        dice = (top / (found.predicted + found.present + self.smooth + _TINY)).mean()
        return -torch.log(dice) if self.log else -dice


@dataclass(frozen=True, kw_only=True)
class SquaredDice(OverlapLoss):
    """Minus the mean Dice with squared probabilities in the denominator.

    Source: Milletari et al., "V-Net", 3DV 2016, arXiv:1606.04797.
    """

    name: ClassVar[str] = "dice"

    def __call__(self, logits: Tensor, label: Tensor) -> Tensor:
        """Return the loss, a scalar; arguments as for `SoftDice`."""
        found = self.sums(logits, label, exponent=2)
        below = found.predicted + found.present + self.smooth
        return -(2 * (found.shared + self.smooth) / below).mean()


@dataclass(frozen=True, kw_only=True)
class GeneralizedDice(OverlapLoss):
    """Minus one Dice over all classes, each weighted by the inverse of its volume.

    Source: Sudre et al., "Generalised Dice overlap as a deep learning loss function for highly
    unbalanced segmentations", DLMIA 2017, arXiv:1707.03237, who square the volume; nnU-Net v1 does
    not unless told to.
    """

    name: ClassVar[str] = "dice"

    square_volumes: bool = False

    def __call__(self, logits: Tensor, label: Tensor) -> Tensor:
        """Return the loss, a scalar; arguments as for `SoftDice`."""
        found = self.sums(logits, label)
        volumes = found.present.clamp(min=1e-6)
        weights = 1 / (volumes**2 if self.square_volumes else volumes)
        top = 2 * (found.shared * weights).sum(-1) + self.smooth
        below = ((found.predicted + found.present) * weights).sum(-1) + self.smooth
        return -(top / below).mean()


@dataclass(frozen=True, kw_only=True)
class Matthews(OverlapLoss):
    """Minus the mean Matthews correlation coefficient of probabilities.

    With `smooth` 0, nnU-Net v1's choice, a class without voxels makes the loss NaN.

    Source: Abhishek and Hamarneh, "Matthews Correlation Coefficient Loss for Deep Convolutional
    Networks", ISBI 2021, arXiv:2010.13454.
    """

    name: ClassVar[str] = "matthews"

    background: bool = True
    smooth: float = 0.0

    def __call__(self, logits: Tensor, label: Tensor) -> Tensor:
        """Return the loss, a scalar; arguments as for `SoftDice`."""
        found = self.sums(logits, label)
        voxels = logits[0, 0].numel()
        tp, tn = found.shared / voxels, found.true_negatives / voxels
        fp, fn = found.false_positives / voxels, found.false_negatives / voxels
        below = torch.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)) + self.smooth
        return -((tp * tn - fp * fn + self.smooth) / below).mean()
