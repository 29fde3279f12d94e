"""Sources of batches. Batch number i is a function of the seed and i, whoever makes it."""

from __future__ import annotations

from typing import Protocol, TypedDict

import numpy as np
import numpy.typing as npt


class ArrayBatch(TypedDict):
    """Patches of one step, as numpy arrays."""

    image: npt.NDArray[np.float32]
    """(B, C, *patch)."""

    label: npt.NDArray[np.int16]
    """(B, *patch)."""

    case_ids: list[str]


class BatchSource(Protocol):
    """Makes batches; picklable, so that worker processes can hold one."""

    def batch(self, index: int) -> ArrayBatch:
        """Return batch number `index`: the same at every call, in every process."""
        ...

    def cases(self, index: int) -> list[str]:
        """Return the identifiers of the cases of batch `index` without making it."""
        ...
