"""Probabilities in a file while a case is in hand, so that memory need not hold them."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
import numpy.typing as npt

from nnunetlike.core.disk import require_space

Values = npt.NDArray[np.float32]
ITEM = np.dtype(np.float32).itemsize


@dataclass(frozen=True)
class Spilled:
    """An array (K, D, H, W) float32, class after class, written and read by slices along D."""

    path: Path
    shape: tuple[int, ...]

    @classmethod
    def create(cls, path: Path, shape: tuple[int, ...], purpose: str, remedy: str) -> Spilled:
        """Return an array whose slices are yet to be written.

        Args:
            path: of the file; one that is there is replaced.
            shape: (K, D, H, W).
            purpose: for the error, what the room is needed for.
            remedy: for the error, what to do where there is none.

        Raises:
            ResourceError: the disk has no room for it.
        """
        path.unlink(missing_ok=True)
        require_space(path.parent, ITEM * prod(shape), purpose, remedy)
        path.touch()
        return cls(path, shape)

    def write(self, begin: int, slab: Values) -> None:
        """Write slices (K, d, H, W) from number `begin` on."""
        with self.path.open("r+b") as stream:
            for k, part in enumerate(slab):
                stream.seek(self._at(k, begin))
                stream.write(np.ascontiguousarray(part).data)

    def read(self, begin: int, stop: int) -> Values:
        """Return the slices (K, d, H, W) from `begin` up to `stop`."""
        found = np.empty((self.shape[0], stop - begin, *self.shape[2:]), np.float32)
        with self.path.open("rb") as stream:
            for k, part in enumerate(found):
                stream.seek(self._at(k, begin))
                stream.readinto(part.data)
        return found

    def channel(self, k: int) -> Values:
        """Return a class (D, H, W)."""
        with self.path.open("rb") as stream:
            stream.seek(self._at(k, 0))
            found = np.fromfile(stream, np.float32, prod(self.shape[1:]))
        return found.reshape(self.shape[1:])

    def remove(self) -> None:
        """Delete the file."""
        self.path.unlink(missing_ok=True)

    def _at(self, k: int, begin: int) -> int:
        return ITEM * (k * self.shape[1] + begin) * prod(self.shape[2:])
