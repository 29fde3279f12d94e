"""Segmentation with deep supervision: the heads of a network against one label map.

Axes: B batch, C channels, K classes, then the patch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from nnunetlike.training.losses.compound import Compound, dice_and_cross_entropy
from nnunetlike.training.objectives import Batch, StepOutput

HeadWeights = Literal["v1", "all"]


def head_weights(heads: int, rule: HeadWeights) -> tuple[float, ...]:
    """Return the weight of each head in the loss: halved from head to head, their sum 1.

    Args:
        heads: how many heads there are, the full resolution (or the deepest) first.
        rule: `v1` gives the last of several heads the weight 0; `all` gives every head some.
    """
    weights = [0.5**i for i in range(heads)]
    if rule == "v1" and heads > 1:
        weights[-1] = 0.0
    return tuple(weight / sum(weights) for weight in weights)


def resize_nearest(label: Tensor, shape: Sequence[int]) -> Tensor:
    """Return a label map on a coarser grid over the same patch, by its nearest voxels.

    Along each axis voxel i takes the value at floor((i + ½) n_in / n_out): the voxel in which its
    centre lies, the higher one of two.

    Args:
        label: (B, *patch).
        shape: lengths of the axes of the patch after resizing.

    Source: nnU-Net v1 (deep-supervision targets).
    """
    for axis, n_out in enumerate(shape, start=1):
        n_in = label.shape[axis]
        if n_in != n_out:
            steps = torch.arange(n_out, device=label.device)
            label = label.index_select(axis, (2 * steps + 1) * n_in // (2 * n_out))
    return label


def hard_counts(logits: Tensor, label: Tensor) -> Tensor:
    """Return voxel counts of the hard prediction, summed over the batch.

    Args:
        logits: (B, K, *patch).
        label: (B, *patch), 0 to K - 1.

    Returns:
        True positives, false positives and false negatives of each class but the background,
        (K - 1, 3) int64.
    """
    classes = logits.shape[1]
    pairs = label.long() * classes + logits.argmax(1)
    confusion = torch.bincount(pairs.flatten(), minlength=classes**2).view(classes, classes)
    hits = confusion.diagonal()
    counts = torch.stack([hits, confusion.sum(0) - hits, confusion.sum(1) - hits], dim=1)
    return counts[1:]


class SegmentationObjective(nn.Module):
    """Network and loss; what data parallelism wraps.

    Args:
        network: gives logits, or a list of logits of its heads (see `NetworkSpec`).
        loss: scores one head against a label map of its resolution.
        rule: how heads are weighted, see `head_weights`.
    """

    def __init__(self, network: nn.Module, loss: Compound, rule: HeadWeights = "v1") -> None:
        super().__init__()
        self.network = network
        self.loss = loss
        self.rule: HeadWeights = rule
        self.leaves_heads_out = rule == "v1"
        """The last head has the weight 0, so its parameters get no gradient."""

    def forward(self, batch: Batch) -> StepOutput:
        """Return the loss over the heads; in eval mode also the counts of the first head.

        The loss is computed in at least float32, whatever precision the network computes in. Heads
        of weight 0 have no loss, so nothing of theirs gets a gradient.
        """
        output = self.network(batch["image"])
        heads: list[Tensor] = output if isinstance(output, list) else [output]
        with torch.autocast(heads[0].device.type, enabled=False):
            terms = self._terms(heads, batch["label"].long())
            counts = None if self.training else hard_counts(heads[0].detach(), batch["label"])
        return StepOutput(
            loss=torch.stack(list(terms.values())).sum(),
            terms={name: value.detach() for name, value in terms.items()},
            counts=counts,
        )

    def _terms(self, heads: Sequence[Tensor], label: Tensor) -> dict[str, Tensor]:
        """Return each term of the loss, summed over the weighted heads."""
        terms: dict[str, Tensor] = {}
        for weight, logits in zip(head_weights(len(heads), self.rule), heads, strict=True):
            if weight == 0:
                continue
            target = resize_nearest(label, logits.shape[2:])
            for name, value in self.loss.parts(_at_least_float32(logits), target).items():
                terms[name] = terms.get(name, 0) + weight * value
        return terms


def _at_least_float32(values: Tensor) -> Tensor:
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


@dataclass(frozen=True, kw_only=True)
class DeepSupervision:
    """Settings of a segmentation objective: cross-entropy plus soft Dice on the heads.

    Which heads are scored is a decision. nnU-Net v1 gives the last of L heads the weight 0. In a
    U-Net that is the coarsest, and its own 1x1 convolution is all that goes untrained: `v1` keeps
    a U-Net equal to v1. In a UNet++ the same numbers, [8, 4, 2, 1, 0] / 15 for five heads, are
    those of the public port of its original; there the last head is X(0, 1), a full-resolution
    head that the paper averages with the others, and it would never be trained. A UNet++ therefore
    takes `all`, [16, 8, 4, 2, 1] / 31, by which gradient reaches every head and every parameter;
    `v1` remains for comparison with the port.
    """

    weights: HeadWeights = "v1"
    smooth: float = 1e-5
    """Added to numerator and denominator of Dice."""

    dice_weight: float = 1.0
    cross_entropy_weight: float = 1.0

    def build(
        self,
        network: nn.Module,
        *,
        batch_dice: bool,
        total: Callable[[Tensor], Tensor] | None = None,
        share: float = 1.0,
    ) -> SegmentationObjective:
        """Return the objective of a network.

        Args:
            network: see `NetworkSpec`.
            batch_dice: one Dice per class over the whole batch, else one per sample and class.
            total: sums a tensor over processes, with gradient, so that the Dice of a batch spread
                over them is that of the whole batch.
            share: samples of this process times processes over samples of the whole batch; 1 when
                all have as many. With it the mean of the processes' losses is the loss of the
                whole batch, also when it does not divide evenly.
        """
        local = 1.0 if batch_dice and total is not None else share
        loss = dice_and_cross_entropy(
            batch_dice=batch_dice,
            smooth=self.smooth,
            dice_weight=self.dice_weight * local,
            cross_entropy_weight=self.cross_entropy_weight * share,
            total=total,
        )
        return SegmentationObjective(network, loss, self.weights)
