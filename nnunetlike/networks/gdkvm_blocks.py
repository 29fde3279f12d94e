"""Parts that several parts of a GDKVM are built of.

Axes: B batch, C features, h and w tokens of a frame along its height and width.

Source: channel gates: Wang et al., "ECA-Net", CVPR 2020, arXiv:1910.03151; fusers and the gated
update: Cheng et al., "Putting the Object Back into Video Object Segmentation", CVPR 2024,
arXiv:2310.12982. Group norm (Wu and He, ECCV 2018, arXiv:1803.08494) throughout, so that a frame's
result depends on no other frame or clip.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

_FEATURES_PER_GROUP, _MOST_GROUPS = 8, 32


def group_norm(features: int) -> nn.GroupNorm:
    """Return a norm of so many features in groups of 8 at least, 32 groups at most."""
    return nn.GroupNorm(math.gcd(_MOST_GROUPS, max(1, features // _FEATURES_PER_GROUP)), features)


class ChannelGate(nn.Module):
    """Weights each feature by what it and its neighbours hold on average (ECA)."""

    def __init__(self, features: int) -> None:
        super().__init__()
        size = int(abs((math.log2(features) + 1) / 2))
        size += 1 - size % 2
        self.mix = nn.Conv1d(1, 1, size, padding=size // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, C, h, w), weighted."""
        weight = self.mix(x.mean((2, 3))[:, None]).sigmoid()
        weighted: Tensor = x * weight.transpose(1, 2)[..., None]
        return weighted


class GatedResidualBlock(nn.Module):
    """Two 3x3 convolutions, activated before, and a channel gate, added to what came in."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = group_norm(features), group_norm(features)
        self.conv1 = nn.Conv2d(features, features, 3, padding=1)
        self.conv2 = nn.Conv2d(features, features, 3, padding=1)
        self.gate = ChannelGate(features)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, C, h, w)."""
        change = self.conv1(functional.relu(self.norm1(x)))
        change = self.conv2(functional.relu(self.norm2(change)))
        refined: Tensor = x + self.gate(change)
        return refined


class FeatureFuser(nn.Module):
    """Adds two feature maps, each brought to the width of the result, and refines the sum."""

    def __init__(self, first: int, second: int, features: int, depth: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(first, features, 1)
        self.second = nn.Conv2d(second, features, 1)
        self.blocks = nn.Sequential(*(GatedResidualBlock(features) for _ in range(depth)))

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Return (B, C, h, w)."""
        fused: Tensor = self.blocks(self.first(first) + self.second(second))
        return fused


class GatedUpdate(nn.Module):
    """Updates a hidden map from an input: (f, u, n) = conv [g; h], h' = f h (1 - u) + u n."""

    def __init__(self, features: int, hidden: int) -> None:
        super().__init__()
        self.transform = nn.Conv2d(features + hidden, 3 * hidden, 3, padding=1)

    def forward(self, x: Tensor, hidden: Tensor) -> Tensor:
        """Return the new hidden map, of the dtype of `hidden` and within ±1 if that was."""
        forget, update, new = self.transform(torch.cat([x, hidden.to(x.dtype)], 1)).chunk(3, 1)
        kept, update = forget.sigmoid() * hidden, update.sigmoid()
        updated: Tensor = (kept * (1 - update) + update * new.tanh()).to(hidden.dtype)
        return updated


def sines(features: int, height: int, width: int, device: torch.device) -> Tensor:
    """Return sines and cosines of the position of tokens, (features, h, w).

    Positions count tokens; half of the features are of y and half of x. Wavelengths grow
    geometrically from 2 pi / 32 of the frame, up to 128 times that.

    Source: scale and temperature of Cheng et al., arXiv:2310.12982.
    """
    scale, temperature = 32, 128
    count = features // 4
    steps = torch.arange(count, device=device, dtype=torch.float32) / max(1, count)
    y = (torch.arange(height, device=device) + 0.5)[:, None] * (scale / height)
    x = (torch.arange(width, device=device) + 0.5)[:, None] * (scale / width)
    along_y, along_x = y / temperature**steps, x / temperature**steps
    grid_y = torch.cat([along_y.sin(), along_y.cos()], 1).T[:, :, None].expand(-1, -1, width)
    grid_x = torch.cat([along_x.sin(), along_x.cos()], 1).T[:, None, :].expand(-1, height, -1)
    encoding = torch.cat([grid_y, grid_x])
    return functional.pad(encoding, (0, 0, 0, 0, 0, features - 4 * count))


def waves(octaves: int, height: int, width: int, device: torch.device) -> Tensor:
    """Return sines and cosines of y and x in [0, 1] times pi 2^i, (4 octaves, h, w)."""
    frequency = math.pi * 2.0 ** torch.arange(octaves, device=device)
    y = (torch.arange(height, device=device) + 0.5)[:, None] / height * frequency
    x = (torch.arange(width, device=device) + 0.5)[:, None] / width * frequency
    grid_y = torch.cat([y.sin(), y.cos()], 1).T[:, :, None].expand(-1, -1, width)
    grid_x = torch.cat([x.sin(), x.cos()], 1).T[:, None, :].expand(-1, height, -1)
    return torch.cat([grid_y, grid_x])


class Identity(nn.Module):
    """Features as each object sees them: its own factor and offset per feature.

    Objects share all other weights, so without this nothing but the masks of earlier frames, of
    which there are none at first, would tell the ventricle's cavity from its wall. One object sees
    the features as they are.

    Source: ours; a factor and an offset per feature are Perez et al., "FiLM", arXiv:1709.07871.
    """

    SPREAD = 0.5

    def __init__(self, objects: int, features: int) -> None:
        super().__init__()
        self.objects = objects
        shape = (objects, features, 1, 1)
        self.change = nn.Parameter(self.SPREAD * torch.randn(2, *shape)) if objects > 1 else None

    def forward(self, x: Tensor) -> Tensor:
        """Return (B O, C, h, w) for (B, C, h, w)."""
        if self.change is None:
            return x
        factor, offset = self.change.to(x.dtype)
        own: Tensor = (x[:, None] * (1 + factor) + offset).flatten(0, 1)
        return own


def per_object(x: Tensor, objects: int) -> Tensor:
    """Return (B, ...) once per object, (B objects, ...)."""
    return x[:, None].expand(-1, objects, *x.shape[1:]).flatten(0, 1)
