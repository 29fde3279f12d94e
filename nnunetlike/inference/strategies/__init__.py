"""Ways to predict a whole image with a network, found by name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from nnunetlike.core.registry import Registry
from nnunetlike.core.typing import FloatArray, Size


@dataclass(frozen=True, kw_only=True)
class Request:
    """How one image is to be predicted."""

    patch_size: Size
    """What the network sees, in voxels: two axes (slice by slice along D) or three."""

    device: torch.device
    """Where the network lies."""

    step_size: float = 0.5
    """Largest distance between windows as a share of the patch."""

    gaussian: bool = True
    """Let the middle of a window count more than its border (where there are several windows)."""

    mirror_axes: tuple[int, ...] = ()
    """Axes of the patch over whose mirrored views the probabilities are averaged."""

    logits: bool = False
    """Average logits and give these, in place of probabilities (nnU-Net v2)."""

    tiled: bool = True
    """False: the whole image at once, padded to what the network can pool."""

    bidirectional: bool = False
    """Videos: go through the frames backwards too and average."""

    autocast: torch.dtype | None = None
    """Compute in this type where torch thinks it safe; None computes in float32."""

    accumulate_on_device: bool | None = None
    """Sum on the network's device (True), in main memory (False), or where there is room (None)."""


class Strategy(Protocol):
    """A way to predict an image.

    Contract: gives probabilities, or logits if asked for, (K, D, H, W) float32 of an image
    (C, D, H, W) float32, on its grid; leaves network and image unchanged.
    """

    def __call__(
        self, network: nn.Module, image: FloatArray, request: Request
    ) -> npt.NDArray[np.float32]:
        """Return probabilities (K, D, H, W)."""
        ...


class Slabs(Protocol):
    """A way to predict an image that finishes its first slices before it sees the last.

    Contract: gives the result of a `Strategy` in slabs (K, d, H, W) that follow one another along D
    and make up the image; they are the caller's to keep. `whole` asks for a single one.
    """

    def __call__(
        self, network: nn.Module, image: FloatArray, request: Request, *, whole: bool
    ) -> Iterator[npt.NDArray[np.float32]]:
        """Yield the slabs."""
        ...


@dataclass(frozen=True)
class SlabStrategy:
    """A strategy that can give its result in slabs, as well as at once."""

    slabs: Slabs

    def __call__(
        self, network: nn.Module, image: FloatArray, request: Request
    ) -> npt.NDArray[np.float32]:
        """Return probabilities (K, D, H, W)."""
        (result,) = self.slabs(network, image, request, whole=True)
        return result


def slabs_of(
    strategy: Strategy, network: nn.Module, image: FloatArray, request: Request
) -> Iterator[npt.NDArray[np.float32]]:
    """Return what a strategy gives, in slabs where it can; see `Slabs`."""
    if isinstance(strategy, SlabStrategy):
        return strategy.slabs(network, image, request, whole=False)
    return iter([strategy(network, image, request)])


STRATEGIES: Registry[Strategy] = Registry("inference strategy", "nnunetlike.inference.strategies")
