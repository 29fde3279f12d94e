"""Cross-entropy: over all voxels, over the worst of them, and per region.

Axes: B batch, K classes (or regions), then the patch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 (torch's customary name)

NO_LABEL = -100
"""No voxel has it; torch's own default."""


@dataclass(frozen=True, kw_only=True)
class CrossEntropy:
    """Mean cross-entropy over voxels.

    torch sums voxels in any order on a GPU, so the last digits vary from call to call. Where
    deterministic algorithms are asked for, the voxels are summed here.
    """

    name: ClassVar[str] = "cross_entropy"

    ignore_label: int | None = None
    """Voxels of this label do not count; if no others are there the loss is 0."""

    def __call__(self, logits: Tensor, label: Tensor) -> Tensor:
        """Return the loss, a scalar.

        Args:
            logits: (B, K, *patch).
            label: (B, *patch), 0 to K - 1, or `ignore_label`.
        """
        if self.ignore_label is None and not torch.are_deterministic_algorithms_enabled():
            return F.cross_entropy(logits, label.long())
        ignored = NO_LABEL if self.ignore_label is None else self.ignore_label
        by_voxel = F.cross_entropy(logits, label.long(), ignore_index=ignored, reduction="none")
        return by_voxel.sum() / (label != ignored).sum().clamp(min=1)


@dataclass(frozen=True, kw_only=True)
class TopKCrossEntropy:
    """Mean cross-entropy over the `percent` % of voxels where it is largest.

    Source: Wu, Shen and van den Hengel, "Bridging Category-level and Instance-level Semantic Image
    Segmentation", arXiv:1605.06885.
    """

    name: ClassVar[str] = "cross_entropy"

    percent: float = 10

    def __call__(self, logits: Tensor, label: Tensor) -> Tensor:
        """Return the loss, a scalar; at least one voxel counts. Arguments as `CrossEntropy`."""
        by_voxel = F.cross_entropy(logits, label.long(), reduction="none").flatten()
        count = max(int(by_voxel.numel() * self.percent / 100), 1)
        return torch.topk(by_voxel, count, sorted=False).values.mean()


@dataclass(frozen=True, kw_only=True)
class BinaryCrossEntropy:
    """Mean binary cross-entropy over voxels and regions, which may overlap."""

    name: ClassVar[str] = "cross_entropy"

    def __call__(self, logits: Tensor, label: Tensor) -> Tensor:
        """Return the loss, a scalar.

        Args:
            logits: (B, R, *patch).
            label: whether a voxel belongs to a region, (B, R, *patch).
        """
        return F.binary_cross_entropy_with_logits(logits, label.to(logits.dtype))
