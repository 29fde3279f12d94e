"""What a GDKVM does with its state: recall before a frame is segmented, keep after.

Axes: B batch, O objects, C features, H and W pixels, h and w tokens, P = h w.

Source: Wang et al., ICCV 2025, arXiv:2512.10252; Cheng et al., arXiv:2310.12982.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from nnunetlike.networks.gated_delta_frames import FrameRule
from nnunetlike.networks.gdkvm_blocks import GatedUpdate
from nnunetlike.networks.gdkvm_memory import (
    KeyEncoder,
    KeyValueMemory,
    MaskEncoder,
    with_others,
)
from nnunetlike.networks.gdkvm_objects import OBJECT_DECAY, ObjectSummarizer
from nnunetlike.networks.gdkvm_sizes import Sizes
from nnunetlike.networks.gdkvm_state import VideoState


class Recollection(nn.Module):
    """The parts that carry something from frame to frame.

    Args:
        channels: of a frame.
        sizes: widths and depths.
        rule: how a frame is written into the key-value memory.
        sensory: there is a sensory memory.
        mask_feedback: what is predicted for a frame is remembered with it.
        pool: tokens are 16 pixels wide, else 8.
    """

    def __init__(
        self,
        channels: int,
        sizes: Sizes,
        *,
        rule: FrameRule,
        sensory: bool,
        mask_feedback: bool,
        pool: bool,
    ) -> None:
        super().__init__()
        self.keys = KeyEncoder(sizes.image_features[2], sizes)
        self.values = MaskEncoder(channels, sizes, pool=pool)
        self.memory = KeyValueMemory(sizes, rule)
        self.summarizer = ObjectSummarizer(sizes)
        hidden = sizes.sensory if sensory else 0
        self.recent = nn.Conv2d(hidden + 2, sizes.embed, 1)
        self.sensory = GatedUpdate(sizes.embed, hidden) if sensory else None
        self.mask_feedback = mask_feedback

    def recall(self, state: VideoState, key: Tensor) -> Tensor:
        """Return what is remembered at each token, (B O, C, h, w)."""
        readout = self.memory.read(state.memory, key, *state.masks.shape[2:])
        recent = torch.cat([state.sensory.flatten(0, 1), with_others(state.masks)], 1)
        recent = self.recent(recent.to(self.recent.weight.dtype))
        recalled: Tensor = recent + readout
        return recalled

    def keep(
        self, frame: Tensor, masks: Tensor, pixels: Tensor, key: Tensor, state: VideoState
    ) -> VideoState:
        """Return the state after a frame.

        Args:
            frame: (B, C, H, W).
            masks: probabilities predicted for it, (B, O, H, W).
            pixels: its pixel features as each object sees them, (B O, C, h, w).
            key: its keys, (B, P, 1, C).
            state: the state before, with the sensory memory of the decoder.
        """
        if not self.mask_feedback:
            masks = torch.zeros_like(masks)
        small = functional.avg_pool2d(masks, masks.shape[2] // state.masks.shape[2])
        value = self.values(frame, masks, pixels)
        seen = self.summarizer(value, small.flatten(0, 1)).unflatten(0, masks.shape[:2])
        sensory = state.sensory
        if self.sensory is not None:
            sensory = self.sensory(value, sensory.flatten(0, 1)).unflatten(0, masks.shape[:2])
        return VideoState(
            memory=self.memory.write(state.memory, key, value),
            sensory=sensory,
            objects=OBJECT_DECAY * state.objects + (1 - OBJECT_DECAY) * seen,
            masks=small,
        )
