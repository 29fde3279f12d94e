"""Which part of a batch each of several processes makes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from nnunetlike.training.sources import BatchSource, HostBatch


@dataclass(frozen=True, kw_only=True)
class BatchShare:
    """A process's part of the batch of all."""

    samples: int
    """Of this process, at least 1."""

    total: int
    """Of all processes together."""

    oversample: float
    """Share of this process's samples that must show foreground."""

    rank: int = 0
    world_size: int = 1

    @property
    def weight(self) -> float:
        """Weight of this process's loss, so that the mean over processes is that of the batch."""
        return self.samples * self.world_size / self.total


def split_batch(batch_size: int, world_size: int, *, shared: bool) -> tuple[int, ...]:
    """Return the samples of each process.

    Args:
        batch_size: planned samples of a batch.
        world_size: processes.
        shared: they share the batch; else each makes a whole one.

    Where v1 leaves a process less than one sample, the samples are dealt out evenly instead, one
    each at least.

    Source: nnU-Net v1 (nnUNetTrainerV2_DDP), as far as every process gets a sample.
    """
    if not shared:
        return (batch_size,) * world_size
    most = math.ceil(batch_size / world_size)
    as_v1 = tuple(min(most, batch_size - rank * most) for rank in range(world_size))
    if as_v1[-1] >= 1:
        return as_v1
    even, left = divmod(batch_size, world_size)
    return tuple(max(1, even + (rank < left)) for rank in range(world_size))


def share_of_batch(sizes: Sequence[int], rank: int, oversample: float) -> BatchShare:
    """Return one process's part of a batch.

    Args:
        sizes: samples of every process, see `split_batch`.
        rank: of the process.
        oversample: share of the whole batch, its last samples, that must show foreground.

    Source: nnU-Net v1 (nnUNetTrainerV2_DDP).
    """
    total, plain = sum(sizes), 1 - oversample
    begin, end = sum(sizes[:rank]) / total, sum(sizes[: rank + 1]) / total
    forced = min(1.0, max(0.0, 1 - (plain - begin) / (end - begin)))
    return BatchShare(
        samples=sizes[rank],
        total=total,
        oversample=forced if len(sizes) > 1 else oversample,
        rank=rank,
        world_size=len(sizes),
    )


@dataclass(frozen=True)
class OwnBatches:
    """The batches that are one process's, every n-th of a source: no two make the same."""

    source: BatchSource
    share: BatchShare

    def batch(self, index: int) -> HostBatch:
        """Return this process's batch number `index`."""
        return self.source.batch(self._number(index))

    def cases(self, index: int) -> list[str]:
        """Return the cases of this process's batch number `index`."""
        return self.source.cases(self._number(index))

    def _number(self, index: int) -> int:
        return index * self.share.world_size + self.share.rank
