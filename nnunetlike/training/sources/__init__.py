"""Sources of batches. Batch number i is a function of the seed and i, whoever makes it."""

from __future__ import annotations

from typing import Protocol, TypeAlias, TypedDict, final

import numpy as np
import numpy.typing as npt

from nnunetlike.training.device_augmentation.orders import PatchOrder


@final
class ArrayBatch(TypedDict):
    """Patches of one step, as numpy arrays."""

    image: npt.NDArray[np.float32]
    """(B, C, *patch)."""

    label: npt.NDArray[np.int16]
    """(B, *patch)."""

    case_ids: list[str]


@final
class ReadBatch(TypedDict):
    """Patches of one step as they were read, and what a device is to make of them."""

    image: list[npt.NDArray[np.float32]]
    """For each sample a block (C, *block)."""

    label: list[npt.NDArray[np.int16]]
    """(*block) each."""

    orders: list[PatchOrder]
    case_ids: list[str]


HostBatch: TypeAlias = ArrayBatch | ReadBatch


class BatchSource(Protocol):
    """Makes batches; picklable, so that worker processes can hold one."""

    def batch(self, index: int) -> HostBatch:
        """Return batch number `index`: the same at every call, in every process."""
        ...

    def cases(self, index: int) -> list[str]:
        """Return the identifiers of the cases of batch `index` without making it."""
        ...
