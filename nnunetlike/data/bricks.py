"""Arrays in compressed bricks (`.b2nd`), of which a patch reads only those that it touches.

Compression is that of blosc2, an optional extra. Axes: channels, then D, H, W.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, prod
from pathlib import Path
from typing import Any

import numpy as np

from nnunetlike.core.errors import DataError, UsageError
from nnunetlike.core.intact import UNREADABLE, damage
from nnunetlike.core.serialization import atomic_path
from nnunetlike.core.typing import FloatArray, Size

BRICK_VOXELS = 2**15
"""Voxels that are compressed together: float32 of them lie in a core's own cache (measured)."""

ONE_THREAD = {"nthreads": 1}
"""Cases and batches are spread over processes, so none of them needs threads of its own."""

RECIPES = (b"LazyArray", b"b2o", b"proxy-source")
"""Entries of a file's header that make blosc2 compute an array, or fetch it, instead of read it."""

HEADER_BYTES = 4096


def has_blosc2() -> bool:
    """Tell whether the package is installed."""
    return importlib.util.find_spec("blosc2") is not None


def require_blosc2(purpose: str) -> Any:
    """Return the module `blosc2`.

    Args:
        purpose: what needs it, to begin the message with.

    Raises:
        UsageError: it is not installed.
    """
    try:
        return importlib.import_module("blosc2")
    except ImportError:
        raise UsageError(
            f"{purpose} needs blosc2, which is not installed here. Install it with: "
            'pip install "nnunetlike[blosc2]"'
        ) from None


def brick_shape(patch_size: Size) -> Size:
    """Return the brick for a patch of two or three axes, as (D, H, W).

    Its longest axis is halved until it has few enough voxels, so it is flat where patches are.
    """
    shape = [*(1,) * (3 - len(patch_size)), *patch_size]
    while prod(shape) > BRICK_VOXELS:
        longest = shape.index(max(shape))
        shape[longest] = -(-shape[longest] // 2)
    return tuple(shape)


def brick_bytes(data: FloatArray, patch_size: Size) -> bytes:
    """Return the content of a file that holds `data`, (channels, D, H, W).

    Args:
        data: of any type of numbers; it is kept exactly.
        patch_size: what is read at a time, (D, H, W) or (H, W).
    """
    blosc2 = require_blosc2("writing compressed bricks")
    patch = (*(1,) * (3 - len(patch_size)), *patch_size)
    chunks = tuple(min(n, p) for n, p in zip(data.shape, (1, *patch), strict=True))
    blocks = tuple(min(c, b) for c, b in zip(chunks, (1, *brick_shape(patch_size)), strict=True))
    packed = blosc2.asarray(
        np.ascontiguousarray(data),
        chunks=chunks,
        blocks=blocks,
        cparams={
            "codec": blosc2.Codec.ZSTD,
            "clevel": 1,
            "filters": [blosc2.Filter.SHUFFLE],
            "filters_meta": [0],
            **ONE_THREAD,
        },
    )
    return bytes(packed.to_cframe())


def save_bricks(path: Path, data: FloatArray, patch_size: Size) -> None:
    """Write `data` (channels, D, H, W) in compressed bricks, whole or not at all."""
    content = brick_bytes(data, patch_size)
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


@dataclass(frozen=True)
class BrickedArray:
    """An array that lies in a file; slicing it reads the bricks that the slices touch."""

    path: Path
    array: Any
    """As blosc2 opened it."""

    @property
    def shape(self) -> Size:
        """Shape of the whole array."""
        return tuple(self.array.shape)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: slice | Sequence[slice]) -> FloatArray:
        """Return a part, given by a slice of each axis, or of the first ones.

        Raises:
            DataError: the file is damaged there.
        """
        slices = (key,) if isinstance(key, slice) else tuple(key)
        limits = [part.indices(n) for part, n in zip(slices, self.shape, strict=False)]
        part_shape = [len(range(*limit)) for limit in limits]
        if 0 in part_shape:
            return np.empty((*part_shape, *self.shape[len(limits) :]), self.array.dtype)
        try:
            return np.asarray(self.array[slices])
        except UNREADABLE as error:
            raise unreadable(self.path, error) from None


def open_bricks(path: Path) -> BrickedArray:
    """Return an array that `save_bricks` wrote, of which nothing is decompressed yet.

    Raises:
        DataError: the file is missing, truncated or damaged, or asks for more than to be read.
        UsageError: blosc2 is not installed.
    """
    blosc2 = require_blosc2(f"reading {path}")
    try:
        with path.open("rb") as stream:
            header = stream.read(HEADER_BYTES)
        if any(recipe in header for recipe in RECIPES):
            raise ValueError("it holds no array but a recipe for one")
        if wrong := damage(path):
            raise ValueError(f"it {wrong}")
        array = blosc2.open(str(path), mode="r", mmap_mode="r", dparams=ONE_THREAD)
        if not isinstance(array, blosc2.NDArray) or array.dtype.kind != "f":
            raise ValueError("it holds no array of numbers")
        if array.schunk.nchunks != prod(map(ceil, np.divide(array.shape, array.chunks))):
            raise ValueError("it is not as large as it says")
    except FileNotFoundError:
        raise DataError(f"{path} does not exist") from None
    except UNREADABLE as error:
        raise unreadable(path, error) from None
    return BrickedArray(path, array)


def unreadable(path: Path, error: Exception) -> DataError:
    """Return the error that says that a file of ours cannot be read and how to mend it."""
    return DataError(
        f"{path} cannot be read ({error}); delete it and run the step that made it again"
    )
