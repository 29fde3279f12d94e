"""What the memory of a GDKVM is written and asked with: keys, values and gates.

Keys come from key and pixel features fused (KPFF), and from where a token lies. The latter is our
addition: a frame that shows nothing but speckle can only ask what was here before.

Keys have length 1, so that a read gives back what was written, whatever the number of tokens.

Axes: B batch, O objects, C features, h and w tokens along height and width, P = h w.

Source: Wang et al., ICCV 2025, arXiv:2512.10252; gates: Yang, Kautz and Hatamizadeh,
arXiv:2412.06464.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from nnunetlike.networks.gated_delta import full_precision
from nnunetlike.networks.gated_delta_frames import FrameRule, read_frame, write_frame
from nnunetlike.networks.gdkvm_blocks import FeatureFuser, per_object, waves
from nnunetlike.networks.gdkvm_encoder import ResNet
from nnunetlike.networks.gdkvm_sizes import Sizes

_OCTAVES = 4
_KEY_EPSILON = 1e-6
_LARGEST_STRENGTH = 20.0
"""Of the implicit rule. Its condition number is below 1 + this, so float32 serves."""

_FIRST_STEPS = (1e-3, 2e-2)
"""Range of -log(decay) of new heads: the slowest keeps 99.9 % of a frame, the fastest 98 %."""


class KeyPixelFusion(nn.Module):
    """Fuses key features, local and of the whole frame, with pixel features by a gate (KPFF)."""

    def __init__(self, key: int, pixels: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(pixels, pixels, 1)
        self.project = nn.Conv2d(pixels, key, 3, padding=1)
        self.gate = nn.Conv2d(key, 1, 1)

    def forward(self, key: Tensor, pixels: Tensor) -> Tensor:
        """Return fused key features, (B, C of a key, h, w)."""
        whole = key + key.mean((2, 3), keepdim=True)
        local = self.project(functional.relu(self.reduce(pixels)))
        share = self.gate(whole).sigmoid()
        fused: Tensor = share * whole + (1 - share) * local
        return fused


class KeyEncoder(nn.Module):
    """Keys of the tokens of a frame."""

    def __init__(self, features: int, sizes: Sizes) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(features, sizes.embed, 1)
        self.project = nn.Conv2d(sizes.embed, sizes.key, 3, padding=1)
        self.fusion = KeyPixelFusion(sizes.key, sizes.embed)
        self.norm = nn.GroupNorm(1, sizes.key)
        self.place = nn.Conv2d(4 * _OCTAVES, sizes.key, 1, bias=False)

    def forward(self, features: Tensor, pixels: Tensor) -> Tensor:
        """Return keys of length 1, (B, P, 1, C of a key), float32 or float64.

        Args:
            features: coarsest level of the image encoder, (B, C, h, w).
            pixels: pixel features, (B, C of a token, h, w).
        """
        content = self.norm(self.fusion(self.project(self.reduce(features)), pixels))
        where = waves(_OCTAVES, content.shape[2], content.shape[3], content.device).to(
            self.place.weight.dtype
        )
        key = (content + self.place(where[None])).flatten(2).mT[:, :, None]
        with full_precision(key.device):
            full = key.to(torch.promote_types(key.dtype, torch.float32))
            return functional.normalize(full, dim=-1, eps=_KEY_EPSILON)


class MaskEncoder(nn.Module):
    """Values: what a frame and the mask predicted for it say about one object."""

    def __init__(self, channels: int, sizes: Sizes, *, pool: bool) -> None:
        super().__init__()
        self.trunk = ResNet(
            channels + 2, sizes.mask_width, sizes.mask_depths, bottleneck=False, pool=pool
        )
        self.fuser = FeatureFuser(sizes.embed, 4 * sizes.mask_width, sizes.embed, sizes.fuser_depth)

    def forward(self, image: Tensor, masks: Tensor, pixels: Tensor) -> Tensor:
        """Return values, (B O, C, h, w).

        Args:
            image: the frame, (B, C, H, W).
            masks: probabilities of its objects, (B, O, H, W).
            pixels: its pixel features as each object sees them, (B O, C, h, w).
        """
        own_and_others = with_others(masks).to(image.dtype)
        seen = torch.cat([per_object(image, masks.shape[1]), own_and_others], 1)
        value: Tensor = self.fuser(pixels, self.trunk(seen)[-1])
        return value


def with_others(masks: Tensor) -> Tensor:
    """Return (B, O, ...) as (B O, 2, ...): each object's mask, and that of all others together."""
    others = (masks.sum(1, keepdim=True) - masks).clamp(0, 1)
    return torch.stack([masks, others], 2).flatten(0, 1)


class Gates(nn.Module):
    """How strongly a frame is written and how much fades before, per head and object.

    The logarithm of the decay is -exp(A_log) softplus(a . mean(value) + dt_bias), so that the decay
    is in (0, 1]. The strength is in (0, 20) under the rule `implicit`, else in (0, 1).
    """

    def __init__(self, features: int, heads: int, rule: FrameRule) -> None:
        super().__init__()
        self.largest = _LARGEST_STRENGTH if rule == "implicit" else 1.0
        self.strength = nn.Linear(features, heads)
        self.decay = nn.Linear(features, heads, bias=False)
        self.A_log = nn.Parameter(torch.zeros(heads))
        self.dt_bias = nn.Parameter(torch.zeros(heads))
        self.begin()

    def begin(self) -> None:
        """Let heads fade slowly, each at its own pace, whatever they see, in place."""
        nn.init.normal_(self.strength.weight, std=0.02)
        nn.init.zeros_(self.strength.bias)
        nn.init.zeros_(self.decay.weight)
        low, high = (math.log(step) for step in _FIRST_STEPS)
        steps = torch.linspace(low, high, self.dt_bias.numel(), device=self.dt_bias.device).exp()
        with torch.no_grad():
            self.A_log.zero_()
            self.dt_bias.copy_(steps.expm1().log())  # the inverse of softplus

    def forward(self, value: Tensor) -> tuple[Tensor, Tensor]:
        """Return strength and logarithm of the decay, each (B O, heads), at least float32.

        Args:
            value: (B O, C, h, w).
        """
        with full_precision(value.device):
            mean = value.to(self.A_log.dtype).mean((2, 3))
            step = functional.softplus(self.decay(mean) + self.dt_bias)
            return self.largest * self.strength(mean).sigmoid(), -self.A_log.exp() * step


class KeyValueMemory(nn.Module):
    """A memory per object and head, all of one frame under one set of keys.

    Its state is (B, O, heads, C of a key, C of a value), float32 also under autocast.
    """

    def __init__(self, sizes: Sizes, rule: FrameRule) -> None:
        super().__init__()
        self.heads, self.rule = sizes.heads, rule
        self.gates = Gates(sizes.embed, sizes.heads, rule)

    def write(self, state: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Return the state after a frame.

        Args:
            state: the state before.
            key: (B, P, 1, C of a key).
            value: (B O, C, h, w).
        """
        batch, objects = state.shape[:2]
        strength, log_decay = (x.unflatten(0, (batch, objects)) for x in self.gates(value))
        tokens = value.flatten(2).unflatten(1, (self.heads, -1)).unflatten(0, (batch, objects))
        written = write_frame(
            state.flatten(1, 2),
            key,
            tokens.flatten(1, 2).permute(0, 3, 1, 2),
            strength.flatten(1),
            log_decay.flatten(1),
            rule=self.rule,
        )
        after: Tensor = written.unflatten(1, (objects, self.heads))
        return after

    def read(self, state: Tensor, key: Tensor, height: int, width: int) -> Tensor:
        """Return what the memory holds under the keys of a frame, (B O, C, h, w)."""
        answers = read_frame(state.flatten(1, 2), key, scale=1.0)
        by_object = answers.permute(0, 2, 3, 1).unflatten(1, state.shape[1:3])
        recalled: Tensor = by_object.flatten(0, 1).flatten(1, 2).unflatten(2, (height, width))
        return recalled
