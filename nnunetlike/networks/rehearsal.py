"""Training steps rehearsed on torch's `meta` device.

Tensors of the `meta` device have shapes but no memory, and operations on them take no arithmetic;
yet autograd keeps, recomputes and frees them as it does on a real device. So what a step will cost
can be read off a rehearsal of the very network that will run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from nnunetlike.networks import NetworkSpec, NetworkTask

_REHEARSED = (2, 3)
"""Frames of the clips that longer ones are judged by."""


def on_meta(network_spec: NetworkSpec, task: NetworkTask) -> nn.Module:
    """Return a network without memory for its weights."""
    with torch.device("meta"):
        return network_spec.build(task)


def of_clip(
    network_spec: NetworkSpec, size: Sequence[int], measure: Callable[[Sequence[int]], int]
) -> int:
    """Return `measure(size)`, of a long clip without rehearsing all of its frames.

    Every frame but the first and the last takes the same, so what two and three frames take says
    what any number does, within a hundredth: which tensors are alive at the peak may differ.

    Args:
        network_spec: network to be measured.
        size: axes of the patch, or frames and pixels (T, H, W).
        measure: what `size` takes; of networks for videos it is called with fewer frames.
    """
    frames = size[0]
    if network_spec.strategy != "frame_stream" or frames <= _REHEARSED[1]:
        return measure(size)
    few, more = (measure((count, *size[1:])) for count in _REHEARSED)
    return few + (frames - _REHEARSED[0]) * (more - few)


def empty_image(task: NetworkTask, patch_size: Sequence[int], batch_size: int) -> Tensor:
    """Return a batch of images without memory, (B, C, *patch)."""
    return torch.empty(batch_size, task.channels, *patch_size, device="meta")


def step(network: nn.Module, image: Tensor) -> int:
    """Go forward and backward with a loss that keeps what Dice and cross-entropy keep.

    Returns:
        How many values the logits of all heads have.
    """
    output = network(image)
    heads: list[Tensor] = output if isinstance(output, list) else [output]
    loss = torch.stack([h.softmax(1).sum() + h.log_softmax(1).sum() for h in heads]).sum()
    loss.backward()
    return sum(head.numel() for head in heads)
