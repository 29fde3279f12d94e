"""Segmentation of clips of which some frames have labels.

The network sees all frames; the loss sees labelled ones. Through the network's memory the loss of
one frame reaches what it remembered of others.

Axes: B batch, C channels, K classes with background, T frames, H, W; F labelled frames of a batch,
P points of a frame.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from nnunetlike.training.objectives import Batch, StepOutput

MAIN = ("cross_entropy", "dice")


class VideoObjective(nn.Module):
    """Network and loss; what data parallelism wraps.

    The loss of a frame is the mean cross-entropy over its points plus the mean soft Dice loss over
    its foreground classes; that of a batch, the mean over all its labelled frames, whichever clips
    and processes they are of. A batch without a labelled frame has the loss 0.

    Args:
        network: gives logits (B, K, T, H, W), or a list of them with those of auxiliary heads on
            coarser grids after the first.
        settings: of the loss.
        total: sums a tensor over processes; None: there is but one.
    """

    leaves_heads_out = True
    """A clip of a single frame writes no memory that anything reads, so some parameters may have no
    gradient."""

    def __init__(
        self,
        network: nn.Module,
        settings: VideoSegmentation,
        total: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.settings = settings
        self.total = total

    def forward(self, batch: Batch) -> StepOutput:
        """Return the loss; in eval mode also the counts of the labelled frames."""
        output = self.network(batch["image"])
        heads: list[Tensor] = output if isinstance(output, list) else [output]
        label = batch["label"].long()
        with torch.autocast(label.device.type, enabled=False):
            terms = self._terms([head.float() for head in heads], label)
            counts = None if self.training else counts_of_labelled(heads[0].detach(), label)
        return StepOutput(
            loss=torch.stack(list(terms.values())).sum(),
            terms={name: value.detach() for name, value in terms.items()},
            counts=counts,
        )

    def _terms(self, heads: Sequence[Tensor], label: Tensor) -> dict[str, Tensor]:
        classes = heads[0].shape[1]
        clip, frame = (label < classes).flatten(2).any(2).nonzero(as_tuple=True)
        scale = self._weight_of_frame(len(clip), label.device)
        if len(clip) == 0:  # keeps every parameter in the graph, which all processes must agree on
            nothing = torch.stack([head.sum() for head in heads]).sum() * 0
            return {MAIN[0]: nothing}
        shown = [head.transpose(1, 2)[clip, frame] for head in heads]
        grid = self._points(shown[0].detach())
        target, valid = targets_at(label[clip, frame], classes, grid)
        terms: dict[str, Tensor] = {}
        for number, logits in enumerate(shown):
            weight = scale if number == 0 else scale * self.settings.auxiliary_weight
            points = values_at(logits, label.shape[2:], grid)
            for name, value in zip(MAIN, frame_losses(points, target, valid), strict=True):
                key = name if number == 0 else "auxiliary"
                terms[key] = terms.get(key, 0) + weight * value.sum()
        return terms

    def _weight_of_frame(self, frames: int, device: torch.device) -> float | Tensor:
        """Return what a frame counts, so that the mean over processes is that over all frames."""
        if self.total is None:
            return 1 / max(frames, 1)
        found = self.total(torch.tensor([frames, 1.0], device=device)).detach()
        return found[1] / found[0].clamp(min=1)

    @torch.no_grad()
    def _points(self, logits: Tensor) -> Tensor | None:
        """Return points (F, P, 2) in [-1, 1], x before y; None takes every pixel."""
        count = self.settings.points
        if count is None or logits[0, 0].numel() <= count:
            return None
        return uncertain_points(
            logits,
            count,
            oversample=self.settings.oversample,
            importance=self.settings.importance,
        )


def uncertain_points(logits: Tensor, count: int, *, oversample: float, importance: float) -> Tensor:
    """Return random points, most of them where the two likeliest classes are close.

    Of `oversample * count` points drawn uniformly, the `importance * count` most uncertain are
    kept; the others are drawn uniformly.

    Args:
        logits: (F, K, H, W).
        count: P.
        oversample: points drawn per point wanted.
        importance: share of the points that are uncertain ones.

    Returns:
        (F, P, 2), x before y, from -1 (left and top edge) to 1.

    Source: Kirillov et al., "PointRend", CVPR 2020, arXiv:1912.08193.
    """
    frames, device = len(logits), logits.device
    certain = round(importance * count)
    drawn = 2 * torch.rand(frames, int(oversample * count), 2, device=device) - 1
    best = _sample(logits, drawn).topk(2, dim=1).values
    chosen = (best[:, 1] - best[:, 0]).topk(certain, dim=1).indices
    kept = drawn.gather(1, chosen[..., None].expand(-1, -1, 2))
    others = 2 * torch.rand(frames, count - certain, 2, device=device) - 1
    return torch.cat([kept, others], dim=1)


def _sample(values: Tensor, grid: Tensor) -> Tensor:
    """Return values (F, K, H, W) at points (F, P, 2), linear between pixels: (F, K, P)."""
    found: Tensor = functional.grid_sample(
        values, grid[:, None], mode="bilinear", padding_mode="border", align_corners=False
    )[:, :, 0]
    return found


def values_at(logits: Tensor, shape: Sequence[int], grid: Tensor | None) -> Tensor:
    """Return logits (F, K, h, w) at points (F, P, 2), or at each of H x W pixels: (F, K, P)."""
    if grid is not None:
        return _sample(logits, grid)
    if logits.shape[2:] != tuple(shape):
        logits = functional.interpolate(logits, tuple(shape), mode="bilinear", align_corners=False)
    return logits.flatten(2)


def targets_at(label: Tensor, classes: int, grid: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return what a network should say at points, or at every pixel, and where it is known.

    Args:
        label: (F, H, W); from `classes` on it says that nothing is known.
        classes: K.
        grid: points (F, P, 2); between pixels of different labels the target is a mixture. A point
            with a share of an unknown pixel is unknown.

    Returns:
        Probabilities (F, K, P) and (F, P) true where they count.
    """
    members = functional.one_hot(label.clamp(max=classes), classes + 1).movedim(-1, 1).float()
    found = members.flatten(2) if grid is None else _sample(members, grid)
    return found[:, :classes], found[:, classes] <= 0


def frame_losses(logits: Tensor, target: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Return the cross-entropy and the Dice loss of each frame, (F,) both.

    Args:
        logits: (F, K, P).
        target: probabilities (F, K, P).
        valid: points that count (F, P); a frame without any has the losses 0.

    Dice has 1 added to numerator and denominator, and leaves the background out.

    Source: Cheng et al., "Putting the Object Back into Video Object Segmentation", CVPR 2024,
    arXiv:2310.12982 (Cutie), which GDKVM (arXiv:2512.10252) trains with.
    """
    counted = valid.to(logits.dtype)
    points = counted.sum(1)
    surprise = -(target * logits.log_softmax(1)).sum(1)
    entropy = torch.where(valid, surprise, 0).sum(1) / points.clamp(min=1)
    probability = logits.softmax(1)[:, 1:] * counted[:, None]
    wanted = target[:, 1:] * counted[:, None]
    overlap = 2 * (probability * wanted).sum(2) + 1
    dice = 1 - overlap / (probability.sum(2) + wanted.sum(2) + 1)
    return entropy, torch.where(points > 0, dice.mean(1), 0)


def counts_of_labelled(logits: Tensor, label: Tensor) -> Tensor:
    """Return pixel counts of the hard prediction over all pixels whose label is known.

    Args:
        logits: (B, K, T, H, W).
        label: (B, T, H, W).

    Returns:
        True positives, false positives and false negatives of each class but the background,
        (K - 1, 3) int64.
    """
    classes = logits.shape[1]
    known = label < classes
    pairs = label[known] * classes + logits.argmax(1)[known]
    confusion = torch.bincount(pairs, minlength=classes**2).view(classes, classes)
    hits = confusion.diagonal()
    return torch.stack([hits, confusion.sum(0) - hits, confusion.sum(1) - hits], dim=1)[1:]


@dataclass(frozen=True, kw_only=True)
class VideoSegmentation:
    """Settings of the objective."""

    points: int | None = 12544
    """Points of a frame that are compared; None, and frames with fewer pixels: all pixels.

    Source: arXiv:2512.10252 and its code, 112 x 112."""

    oversample: float = 3.0
    importance: float = 0.75
    auxiliary_weight: float = 0.01
    """Of each auxiliary head; the first head has 1."""

    def build(
        self,
        network: nn.Module,
        *,
        batch_dice: bool,
        total: Callable[[Tensor], Tensor] | None = None,
        share: float = 1.0,
    ) -> VideoObjective:
        """Return the objective of a network.

        Frames, not samples, are what counts, and each has a Dice of its own; so `batch_dice` and
        `share`, which say the same of samples, change nothing.
        """
        return VideoObjective(network, self, total)
