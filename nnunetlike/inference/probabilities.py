"""Probabilities that predictions kept (`ID.npz`), read class by class, and averaged over models."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt

from nnunetlike.core.errors import DataError, ShapeError
from nnunetlike.core.intact import UNREADABLE
from nnunetlike.core.typing import LabelMap
from nnunetlike.data.record import Box
from nnunetlike.data.store import load_npz, read_npy_header

KEY = "softmax"
Probabilities = npt.NDArray[np.float16]


@dataclass(frozen=True)
class Channels:
    """The classes of one case: how many, their shape (D, H, W), and the arrays, read as asked."""

    shape: tuple[int, ...]
    """(K, D, H, W)."""

    arrays: Iterator[Probabilities]


@contextmanager
def open_channels(path: Path) -> Iterator[Channels]:
    """Give the probabilities of a file without holding more than one class of them.

    Raises:
        DataError: the file is missing or damaged, or holds no probabilities.
    """
    with ExitStack() as stack:
        try:
            archive = stack.enter_context(zipfile.ZipFile(path))
            stream = stack.enter_context(archive.open(f"{KEY}.npy"))
            shape, is_fortran, dtype = read_npy_header(stream)
        except UNREADABLE as error:
            raise _unreadable(path, error) from None
        if len(shape) != 4 or dtype.kind != "f":
            raise _unreadable(path, f"axes {shape} of {dtype}; they should be K, D, H, W of floats")
        if is_fortran:
            yield Channels(shape, iter(load_npz(path, KEY)))
        else:
            yield Channels(shape, _read(stream, shape, dtype, path))


def _read(
    stream: IO[bytes], shape: tuple[int, ...], dtype: np.dtype[np.generic], path: Path
) -> Iterator[Probabilities]:
    for _ in range(shape[0]):
        yield _read_one(stream, shape[1:], dtype, path)  # no name, which would keep it for a turn


def _read_one(
    stream: IO[bytes], shape: tuple[int, ...], dtype: np.dtype[np.generic], path: Path
) -> Probabilities:
    count = math.prod(shape)
    try:
        content = stream.read(count * dtype.itemsize)
        return np.frombuffer(content, dtype, count).reshape(shape).astype(np.float16, copy=False)
    except UNREADABLE as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, why: object) -> DataError:
    return DataError(f"{path} holds no probabilities that can be read ({why}); predict it again")


def mean_label(
    files: Sequence[Path],
    crop_box: Box,
    volume: Sequence[int],
    regions: Sequence[int] | None = None,
    *,
    keep: bool = False,
) -> tuple[LabelMap, Probabilities | None]:
    """Return the most probable labels by the mean of several files, and that mean if it is kept.

    As in nnU-Net v1 the mean has half precision, which decides between near equals. Memory does not
    grow with the number of files, and with that of classes only if the mean is kept.

    Args:
        files: `ID.npz` of each model.
        crop_box: part of the source volume that the probabilities cover,
        volume: (D, H, W) of the source; files that cover all of it, as a later version of v1
            writes them, are cut to the box.
        regions: label of each channel where channels are regions; a later one overwrites where its
            mean exceeds 1/2. None: the largest mean wins, the lowest class among equals.
        keep: also return the mean.

    Returns:
        The label map (d, h, w) of the cropped grid, and the mean (K, d, h, w) or None.

    Raises:
        DataError: a file cannot be read.
        ShapeError: the files differ in classes or size, or fit neither crop box nor volume.
    """
    with ExitStack() as stack:
        members = [stack.enter_context(open_channels(path)) for path in files]
        box = tuple(slice(begin, end) for begin, end in crop_box)
        size = tuple(end - begin for begin, end in crop_box)
        classes = _require_equal(files, members, size, tuple(volume))
        winner = _Winner(size, regions)
        kept = np.empty((classes, *size), np.float16) if keep else None
        for k in range(classes):
            mean = _mean((next(member.arrays) for member in members), len(members), size, box)
            winner.see(k, mean)
            if kept is not None:
                kept[k] = mean
    return winner.label, kept


class _Winner:
    """The label map of the classes seen so far."""

    def __init__(self, size: tuple[int, ...], regions: Sequence[int] | None) -> None:
        highest = max(regions or [0])
        self.label: LabelMap = np.zeros(size, np.uint8 if highest < 256 else np.uint16)
        self._regions = regions
        self._best: Probabilities | None = None

    def see(self, k: int, mean: Probabilities) -> None:
        """Take the next class."""
        if self._regions is not None:
            self.label[mean > 0.5] = self._regions[k]
        elif self._best is None:
            self._best = mean
        else:
            if k > np.iinfo(self.label.dtype).max:
                self.label = self.label.astype(np.uint16)
            wins = mean > self._best
            self.label[wins] = k
            self._best[wins] = mean[wins]


def _mean(
    channels: Iterable[Probabilities], count: int, size: tuple[int, ...], box: tuple[slice, ...]
) -> Probabilities:
    total = np.zeros(size, np.float32)
    for channel in channels:
        total += channel if channel.shape == size else channel[box]
    total /= count
    return total.astype(np.float16)


def _require_equal(
    files: Sequence[Path],
    members: Sequence[Channels],
    size: tuple[int, ...],
    volume: tuple[int, ...],
) -> int:
    """Return the number of classes, which is that of all files."""
    classes = {member.shape[0] for member in members}
    if len(classes) > 1:
        shown = ", ".join(f"{m.shape[0]} in {p}" for p, m in zip(files, members, strict=True))
        raise ShapeError(f"the models do not have the same classes: {shown}")
    for path, member in zip(files, members, strict=True):
        found = member.shape[1:]
        if found not in (size, volume):
            raise ShapeError(
                f"{path} holds {found} voxels (D, H, W) but {path.stem}.pkl says {size}; predict "
                "the case again"
            )
    return classes.pop()


def kept_ids(folder: Path) -> list[str]:
    """Return the identifiers of the cases of a folder that have probabilities, sorted."""
    with suppress(FileNotFoundError):
        return sorted(
            path.stem
            for path in folder.glob("*.npz")
            if path.with_suffix(".pkl").is_file() and not path.name.startswith(".")
        )
    return []
