"""From corrected tokens to masks, and from one map per object to logits of classes.

Axes: B batch, O objects, K = O + 1 classes, C features, h and w tokens.

Source: Cheng et al., arXiv:2310.12982; soft aggregation: Oh et al., "Video Object Segmentation
using Space-Time Memory Networks", ICCV 2019, arXiv:1904.00607.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from nnunetlike.networks.gated_delta import full_precision
from nnunetlike.networks.gdkvm_blocks import GatedUpdate, Identity, group_norm, per_object
from nnunetlike.networks.gdkvm_sizes import Sizes

_LEAST_PROBABILITY = 1e-7
_LARGEST_LOGIT = math.log((1 - _LEAST_PROBABILITY) / _LEAST_PROBABILITY)


def aggregate(logits: Tensor) -> Tensor:
    """Return logits of background and objects, of which the softmax makes probabilities.

    The background is what no object claims, prod (1 - p); each probability p, kept 1e-7 from 0 and
    1, becomes log(p / (1 - p)).

    Args:
        logits: of each object on its own, (B, O, h, w).

    Returns:
        (B, K, h, w), float32 or float64.
    """
    with full_precision(logits.device):
        own = logits.to(torch.promote_types(logits.dtype, torch.float32))
        own = own.clamp(-_LARGEST_LOGIT, _LARGEST_LOGIT)
        log_background = functional.logsigmoid(-own).sum(1, keepdim=True)
        background = log_background - torch.log(-torch.expm1(log_background))
        return torch.cat([background.clamp(-_LARGEST_LOGIT, _LARGEST_LOGIT), own], 1)


class UpBlock(nn.Module):
    """Doubles the resolution, adds the encoder's features, and refines."""

    def __init__(self, features: int, out: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = group_norm(features), group_norm(out)
        self.conv1 = nn.Conv2d(features, out, 3, padding=1)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1)
        self.shortcut = nn.Conv2d(features, out, 1) if features != out else nn.Identity()

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """Return (B, C', 2 h, 2 w)."""
        x = functional.interpolate(x, scale_factor=2, mode="bilinear") + skip
        change = self.conv1(functional.gelu(self.norm1(x)))
        change = self.conv2(functional.gelu(self.norm2(change)))
        refined: Tensor = change + self.shortcut(x)
        return refined


class MaskDecoder(nn.Module):
    """One logit per object and pixel of the finest level, and the sensory memory after it."""

    def __init__(self, sizes: Sizes, objects: int, *, sensory: bool) -> None:
        super().__init__()
        fine, middle, _ = sizes.image_features
        high, higher = sizes.decoder
        self.own_middle = Identity(objects, sizes.embed)
        self.own_fine = Identity(objects, high)
        self.skip_middle = nn.Conv2d(middle, sizes.embed, 1)
        self.skip_fine = nn.Conv2d(fine, high, 1)
        self.up_middle = UpBlock(sizes.embed, high)
        self.up_fine = UpBlock(high, higher)
        self.logit = nn.Conv2d(higher, 1, 1)
        self.sensory = SensoryUpdate(sizes) if sensory else None

    def skips(self, fine: Tensor, middle: Tensor) -> tuple[Tensor, Tensor]:
        """Return the encoder's two finer levels as the decoder adds them."""
        return self.skip_fine(fine), self.skip_middle(middle)

    def forward(
        self, pixels: Tensor, fine: Tensor, middle: Tensor, sensory: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Return logits (B O, 1, 4 h, 4 w), and the new sensory memory.

        Args:
            pixels: corrected tokens, (B O, C, h, w).
            fine: from `skips`, (B, C', 4 h, 4 w).
            middle: from `skips`, (B, C, 2 h, 2 w).
            sensory: (B O, C'', h, w), if there is one.
        """
        at_middle = self.up_middle(pixels, self.own_middle(middle))
        at_fine = self.up_fine(at_middle, self.own_fine(fine))
        logits = self.logit(functional.relu(at_fine))
        if self.sensory is not None and sensory is not None:
            sensory = self.sensory(pixels, at_middle, torch.cat([at_fine, logits], 1), sensory)
        return logits, sensory


class SensoryUpdate(nn.Module):
    """Updates the sensory memory from all levels of the decoder."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        high, higher = sizes.decoder
        self.coarse = nn.Conv2d(sizes.embed, sizes.sensory, 1)
        self.middle = nn.Conv2d(high, sizes.sensory, 1)
        self.fine = nn.Conv2d(higher + 1, sizes.sensory, 1)
        self.update = GatedUpdate(sizes.sensory, sizes.sensory)

    def forward(self, coarse: Tensor, middle: Tensor, fine: Tensor, sensory: Tensor) -> Tensor:
        """Return the new sensory memory, (B O, C, h, w)."""
        seen = self.coarse(coarse) + self.middle(functional.avg_pool2d(middle, 2))
        seen = seen + self.fine(functional.avg_pool2d(fine, 4))
        new: Tensor = self.update(seen, sensory)
        return new


class SensoryHead(nn.Module):
    """A map per object from the sensory memory: a linear function of pixels that it chooses."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.project = nn.Conv2d(sizes.sensory, sizes.embed + 1, 1)

    def forward(self, sensory: Tensor, pixels: Tensor) -> Tensor:
        """Return logits (B O, h, w) for sensory memory (B O, C, h, w), pixels (B, C', h, w)."""
        chosen = self.project(sensory)
        pixels = per_object(pixels, sensory.shape[0] // pixels.shape[0])
        scale = pixels.shape[1] ** -0.5
        logits: Tensor = scale * (chosen[:, 1:] * pixels).sum(1) + chosen[:, 0]
        return logits
