"""UNet++: a U-Net whose skips are nested dense blocks, of any depth.

Node X(i, j) lies on level i (0 is the full resolution) and is the j-th of its row. X(i, 0) is the
encoder; every other node joins all earlier nodes of its row with the up-convolved X(i + 1, j - 1).
The grid is a triangle, i + j <= L with L poolings, and each X(0, j), j >= 1, has a head.

Source: Zhou et al., "UNet++: A Nested U-Net Architecture for Medical Image Segmentation", DLMIA
2018, arXiv:1807.10165, and "UNet++: Redesigning Skip Connections to Exploit Multiscale Features in
Image Segmentation", IEEE TMI 39(6), 2020, arXiv:1912.05074.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

from torch import Tensor, nn

from nnunetlike.networks import NETWORKS, NetworkTask
from nnunetlike.networks.blocks import Architecture, encode
from nnunetlike.networks.initialization import initialize


class UNetPlusPlus(nn.Module):
    """Nested U-Net; all heads give the full resolution.

    Args:
        architecture: all sizes.
        checkpoint_nodes: compute nested nodes again in the backward pass to save memory.
    """

    def __init__(self, architecture: Architecture, *, checkpoint_nodes: bool = False) -> None:
        super().__init__()
        self.architecture = architecture
        self.classes = architecture.classes
        self.input_divisor = architecture.topology.divisor
        self.deep_supervision = True
        depth = architecture.num_pools
        self.encoder = architecture.encoder()
        self.nodes = nn.ModuleDict(
            {
                f"{i}_{j}": architecture.node(i, j, up_first=False, checkpointed=checkpoint_nodes)
                for j in range(1, depth + 1)
                for i in range(depth + 1 - j)
            }
        )
        self.heads = nn.ModuleList(architecture.head(0) for _ in range(depth))
        initialize(self)

    def forward(self, image: Tensor) -> list[Tensor] | Tensor:
        """Return logits of X(0, L), …, X(0, 1), deepest first, or of X(0, L) alone.

        Args:
            image: (B, C, *patch); the axes of the patch are multiples of `input_divisor`.

        Returns:
            With `deep_supervision` a list of L tensors (B, K, *patch), else one.
        """
        rows = [[features] for features in encode(self.encoder, image)]
        while len(rows) > 1:
            for i, (row, row_below) in enumerate(pairwise(rows)):
                row.append(self.nodes[f"{i}_{len(row)}"](row_below[-1], *row))
            rows.pop()  # the lowest row has given all it had to give
        nested = rows[0][1:]
        if not self.deep_supervision:
            logits: Tensor = self.heads[-1](nested[-1])
            return logits
        return [head(node) for head, node in zip(self.heads, nested, strict=True)][::-1]


@dataclass(frozen=True, kw_only=True)
class UNetPlusPlusSpec:
    """Settings of a UNet++."""

    strategy: ClassVar[str] = "sliding_window"

    base_features: int | None = None
    """Features of the full resolution; as planned when absent."""

    checkpoint_nodes: bool = False
    """Compute nested nodes again in the backward pass: less memory, more time, same numbers."""

    def build(self, task: NetworkTask) -> UNetPlusPlus:
        """Return an initialised network."""
        architecture = Architecture.of(task, self.base_features)
        return UNetPlusPlus(architecture, checkpoint_nodes=self.checkpoint_nodes)

    @classmethod
    def tiny(cls, dimension: int = 3) -> tuple[UNetPlusPlusSpec, NetworkTask]:
        """Return a spec and a task small enough for tests."""
        return cls(), NetworkTask.tiny(dimension)


NETWORKS.add("unet_plus_plus", UNetPlusPlusSpec)
