"""Batches on their way to the device: the next one travels while the network is busy with this one.

On CUDA a stream of its own copies, and augments if that is the device's part; the stream of the
network waits for nothing but the batch it needs. On a CPU a batch is made when it is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol, cast

import torch
from torch import Tensor

from nnunetlike.training.objectives import Batch
from nnunetlike.training.sources import HostBatch


class SideStream(Protocol):
    """Where batches are prepared beside the network."""

    def prepare(self, make: Callable[[], Batch]) -> Batch:
        """Return what `make` gives, whose work may be under way yet."""
        ...

    def hand_over(self, batch: Batch) -> Batch:
        """Return a batch so that whatever is begun now begins when it is ready."""
        ...


class CudaSideStream:
    """A stream of a CUDA device.

    Args:
        device: of the network.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)

    def prepare(self, make: Callable[[], Batch]) -> Batch:
        """Return what `make` gives; its work is queued in this stream."""
        with torch.cuda.stream(self._stream):
            return make()

    def hand_over(self, batch: Batch) -> Batch:
        """Let the current stream wait for what is queued in this one; call it before the next."""
        current = torch.cuda.current_stream(self._device)
        current.wait_stream(self._stream)
        for value in batch.values():
            if isinstance(value, Tensor):
                value.record_stream(current)  # whose memory this stream may reuse only afterwards
        return batch


class Feeder(Iterator[Batch]):
    """The batches of an endless iterator on a device, with one made ahead where there is a stream.

    Args:
        batches: on the host.
        to_device: brings one to the device.
        side: None makes each when it is asked for.
    """

    def __init__(
        self,
        batches: Iterator[HostBatch],
        to_device: Callable[[HostBatch], Batch],
        side: SideStream | None = None,
    ) -> None:
        self._batches = batches
        self._to_device = to_device
        self._side = side
        self._ahead: Batch | None = None

    def __next__(self) -> Batch:
        if self._side is None:
            return self._to_device(next(self._batches))
        batch = self._side.hand_over(self._ahead or self._begun(self._side))
        self._ahead = self._begun(self._side)
        return batch

    def _begun(self, side: SideStream) -> Batch:
        host = next(self._batches)
        return side.prepare(lambda: self._to_device(host))


def feeder(
    batches: Iterator[HostBatch],
    to_device: Callable[[HostBatch], Batch],
    device: torch.device,
) -> Feeder:
    """Return the batches on a device, with one made ahead on CUDA."""
    side = CudaSideStream(device) if device.type == "cuda" else None
    return Feeder(batches, to_device, side)


def pinned(batch: HostBatch) -> HostBatch:
    """Return a batch in memory from which CUDA copies by itself, as tensors in place of arrays."""

    def pin(part: object) -> object:
        """Return an array, or each of a list of arrays, so."""
        if isinstance(part, list):
            return [pin(one) for one in part]
        return torch.as_tensor(part).pin_memory()

    parts = {"image": pin(batch["image"]), "label": pin(batch["label"])}
    return cast(HostBatch, {**batch, **parts})
