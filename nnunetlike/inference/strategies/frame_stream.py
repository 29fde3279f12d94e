"""A video frame by frame, as a network with a memory sees it.

Axes: C image channels, K classes, T frames, H, W. What grows with T is the result alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from nnunetlike.core.typing import FloatArray, Size
from nnunetlike.inference.strategies import STRATEGIES, Request
from nnunetlike.inference.windows import padded_shape, padding


def frame_stream(
    network: nn.Module, image: FloatArray, request: Request
) -> npt.NDArray[np.float32]:
    """Return the class probabilities of every frame of a video.

    Frames are taken whole, padded with 0 to what the network can pool. With `bidirectional` the
    video is seen a second time, backwards, and both probabilities are averaged.

    Args:
        network: has `init_state`, `step`, `classes` and `input_divisor` (see `networks.gdkvm`); on
            `request.device`, in evaluation mode.
        image: (C, T, H, W) float32.
        request: device, precision and direction; windows and mirroring do not apply.

    Returns:
        Probabilities (K, T, H, W) float32 in main memory.
    """
    inside = image.shape[2:]
    shape = padded_shape(inside, (1, 1), cast(Size, network.input_divisor))
    pads = [(0, 0), (0, 0), *padding(inside, shape)]
    (top, _), (left, _) = pads[2:]
    window = np.s_[:, top : top + inside[0], left : left + inside[1]]
    found = np.zeros((cast(int, network.classes), *image.shape[1:]), np.float32)
    frames = range(image.shape[1])
    ways = (frames, reversed(frames)) if request.bidirectional else (frames,)
    with torch.inference_mode(), _precision(request):
        for way in ways:
            for t, logits in _streamed(network, image, way, pads, request.device):
                found[:, t] += logits.float().softmax(0).cpu().numpy()[window]
    return found if len(ways) == 1 else np.divide(found, len(ways), out=found)


def _streamed(
    network: Any,
    image: FloatArray,
    way: Iterable[int],
    pads: list[tuple[int, int]],
    device: torch.device,
) -> Iterable[tuple[int, Tensor]]:
    """Yield frame numbers and the logits (K, h, w) of the padded frames, in an order."""
    state = None
    for t in way:
        frame = np.pad(image[:, t], [pads[0], *pads[2:]])
        source = torch.from_numpy(frame.astype(np.float32, copy=False))[None].to(device)
        if state is None:
            state = network.init_state(1, *source.shape[2:], device=device)
        logits, state = network.step(source, state)
        yield t, logits[0]


def _precision(request: Request) -> AbstractContextManager[Any]:
    if request.autocast is None:
        return nullcontext()
    return torch.autocast(request.device.type, dtype=request.autocast)


STRATEGIES.add("frame_stream", frame_stream)
