"""How wide and deep the parts of a GDKVM are."""

from __future__ import annotations

from dataclasses import dataclass

from nnunetlike.plans.plans import NetworkSize


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Every width and depth of a GDKVM."""

    bottleneck: bool
    """Residual blocks of the image encoder: bottlenecks (ResNet-50) or basic ones (ResNet-18)."""

    image_width: int
    """Features of the image encoder's stem."""

    image_depths: tuple[int, int, int]
    """Residual blocks of the image encoder's three stages."""

    mask_width: int
    """Features of the mask encoder's stem."""

    mask_depths: tuple[int, int, int]
    """Residual blocks of the mask encoder's three stages."""

    key: int
    """Features of a key."""

    embed: int
    """Features of a token: pixel features, values, objects."""

    heads: int
    """Value heads of the memory; each holds embed / heads features."""

    sensory: int
    """Features of the sensory memory."""

    fuser_depth: int
    """Residual blocks of a feature fuser."""

    queries: int
    """Summaries of an object, half of them of what it is not; and queries."""

    blocks: int
    """Blocks of the query transformer."""

    attention_heads: int
    feed_forward: int
    decoder: tuple[int, int]
    """Features of the decoder one and two levels above the memory."""

    @property
    def image_features(self) -> tuple[int, int, int]:
        """Features of the three levels of the image encoder, finest first."""
        finest = self.image_width * (4 if self.bottleneck else 1)
        return finest, 2 * finest, 4 * finest


BASE = Sizes(
    bottleneck=True,
    image_width=64,
    image_depths=(3, 4, 6),
    mask_width=64,
    mask_depths=(2, 2, 2),
    key=64,
    embed=256,
    heads=8,
    sensory=256,
    fuser_depth=2,
    queries=16,
    blocks=3,
    attention_heads=8,
    feed_forward=2048,
    decoder=(128, 128),
)
"""As published: ResNet-50 and ResNet-18 without their last stages.

Source: Wang et al., ICCV 2025, arXiv:2512.10252.
"""

SMALL = Sizes(
    bottleneck=False,
    image_width=16,
    image_depths=(1, 1, 1),
    mask_width=8,
    mask_depths=(1, 1, 1),
    key=32,
    embed=48,
    heads=2,
    sensory=16,
    fuser_depth=1,
    queries=4,
    blocks=1,
    attention_heads=4,
    feed_forward=96,
    decoder=(32, 16),
)
"""The same parts for CPUs and small data."""

SIZES: dict[NetworkSize, Sizes] = {"base": BASE, "small": SMALL}
