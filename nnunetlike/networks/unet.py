"""The plain U-Net: one decoder node per level.

Source: Ronneberger et al., MICCAI 2015, arXiv:1505.04597; Isensee et al., "nnU-Net", Nature Methods
18, 2021, doi:10.1038/s41592-020-01008-z.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from nnunetlike.networks import NETWORKS, NetworkTask
from nnunetlike.networks.blocks import Architecture, encode
from nnunetlike.networks.initialization import initialize


class UNet(nn.Module):
    """Encoder, decoder, and a head on each level but the bottleneck.

    Args:
        architecture: all sizes.
        checkpoint_nodes: compute decoder nodes again in the backward pass to save memory.
    """

    def __init__(self, architecture: Architecture, *, checkpoint_nodes: bool = False) -> None:
        super().__init__()
        self.architecture = architecture
        self.classes = architecture.classes
        self.input_divisor = architecture.topology.divisor
        self.deep_supervision = True
        levels = range(architecture.num_pools)
        self.encoder = architecture.encoder()
        self.decoder = nn.ModuleList(
            architecture.node(level, 1, up_first=True, checkpointed=checkpoint_nodes)
            for level in levels
        )
        self.heads = nn.ModuleList(architecture.head(level) for level in levels)
        initialize(self)

    def forward(self, image: Tensor) -> list[Tensor] | Tensor:
        """Return logits of all levels, full resolution first, or of the full resolution alone.

        Args:
            image: (B, C, *patch); the axes of the patch are multiples of `input_divisor`.

        Returns:
            With `deep_supervision` a list of (B, K, *patch of the level), else (B, K, *patch).
        """
        skips = encode(self.encoder, image)
        features = skips.pop()
        by_level: list[Tensor] = []
        for level in reversed(range(len(self.decoder))):
            features = self.decoder[level](features, skips.pop())
            if self.deep_supervision or level == 0:
                by_level.insert(0, self.heads[level](features))
        return by_level if self.deep_supervision else by_level[0]


@dataclass(frozen=True, kw_only=True)
class UNetSpec:
    """Settings of a U-Net."""

    strategy: ClassVar[str] = "sliding_window"

    base_features: int | None = None
    """Features of the full resolution; as planned when absent."""

    checkpoint_nodes: bool = False
    """Compute decoder nodes again in the backward pass: less memory, more time, same numbers."""

    def build(self, task: NetworkTask) -> UNet:
        """Return an initialised network."""
        architecture = Architecture.of(task, self.base_features)
        return UNet(architecture, checkpoint_nodes=self.checkpoint_nodes)

    @classmethod
    def tiny(cls, dimension: int = 3) -> tuple[UNetSpec, NetworkTask]:
        """Return a spec and a task small enough for tests."""
        return cls(), NetworkTask.tiny(dimension)


NETWORKS.add("unet", UNetSpec)
