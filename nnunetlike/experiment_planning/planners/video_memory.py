"""How much memory it takes to train on clips, as a straight line in pixels, frames and classes.

A rehearsal on the `meta` device would tell it too, but it goes through all frames one by one, which
takes longer than the whole of planning; and plans should not depend on the version of torch.
"""

from __future__ import annotations

from typing import NamedTuple

from nnunetlike.plans.plans import NetworkSize


class Cost(NamedTuple):
    """Bytes in single precision."""

    fixed: int
    """Of the weights, their gradients and two moments."""

    shared: int
    """Of each pixel of each frame, whatever there is to segment."""

    per_class: int
    """Of each pixel of each frame and each class but the background."""


COSTS: dict[tuple[NetworkSize, int], Cost] = {
    ("base", 16): Cost(fixed=425_000_000, shared=1655, per_class=1200),
    ("base", 8): Cost(fixed=425_000_000, shared=6070, per_class=4225),
    ("small", 8): Cost(fixed=5_000_000, shared=227, per_class=530),
}
"""By size of the network and pixels per token of its memory.

Source: `training_bytes` of `gdkvm` for two and four clips of two and four frames and one to three
classes."""


def clip_bytes(size: NetworkSize, stride: int, pixels: int, classes: int) -> int:
    """Return the bytes that one frame of a clip adds.

    Args:
        size: of the network.
        stride: pixels per token of the memory.
        pixels: of the frame.
        classes: with background.
    """
    cost = COSTS[size, stride]
    return pixels * (cost.shared + cost.per_class * (classes - 1))


def video_training_bytes(
    size: NetworkSize, stride: int, pixels: int, classes: int, frames: int
) -> tuple[int, int]:
    """Return the bytes to train, in single and in mixed precision.

    Mixed precision halves what is kept of the frames and keeps a copy of the weights.

    Args:
        size: of the network.
        stride: pixels per token of the memory.
        pixels: of the frame.
        classes: with background.
        frames: of all clips of a batch.
    """
    fixed = COSTS[size, stride].fixed
    kept = frames * clip_bytes(size, stride, pixels, classes)
    return fixed + kept, fixed + fixed // 4 + kept // 2
