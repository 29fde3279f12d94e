"""What is wrong inside the files of one case: grids, voxels, labels.

Arrays are (D, H, W).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nnunetlike.core.errors import DataError
from nnunetlike.core.intact import unpacked_size
from nnunetlike.core.typing import FloatArray
from nnunetlike.data.doctor.complaint import (
    ALL_ZERO,
    EMPTY_LABEL,
    FRACTIONAL,
    LABEL_NOT_FINITE,
    NEAR_INTEGER,
    NOT_FINITE,
    UNDECLARED,
    UNREADABLE,
    WRONG_CHANNELS,
    ZERO_CHANNEL,
    Complaint,
    Kind,
)
from nnunetlike.data.doctor.grids import compare
from nnunetlike.data.doctor.layout import CaseOnDisk, short
from nnunetlike.data.doctor.videos import VideoTask, timeless
from nnunetlike.data.geometry import Geometry
from nnunetlike.data.imageio import LABEL_ROUNDING, format_of
from nnunetlike.data.orientation import orientation_of

MEMORY_FACTOR = 20
"""Memory that a case takes, per byte of its largest file unpacked: a mask of one byte per voxel is
held as single-precision numbers, a copy of the finite ones and a sorted copy of these."""

HISTOGRAM_SHOWN = 12
"""Most values of a label histogram that are printed; anti-aliased masks have thousands."""


@dataclass(frozen=True, kw_only=True)
class Histogram:
    """How many voxels of a label map hold which value."""

    voxels: Mapping[float, int]
    omitted: int = 0
    """Values left out, the rarest ones of a map that does not hold integers."""

    def __str__(self) -> str:
        frequent = sorted(self.voxels, key=lambda value: -self.voxels[value])[:HISTOGRAM_SHOWN]
        listed = ", ".join(f"{value:.7g}: {self.voxels[value]}" for value in sorted(frequent))
        more = len(self.voxels) - len(frequent) + self.omitted
        return f"({listed})" + (f" and {more} rarer values" if more else "")


@dataclass(frozen=True, kw_only=True)
class Examined:
    """What was found in one case."""

    case: CaseOnDisk
    complaints: tuple[Complaint, ...]
    histogram: Histogram | None
    orientation: str | None
    """Where the axes x, y, z of the first image point, such as `LPS`."""


@dataclass(frozen=True, kw_only=True)
class _SeenImage:
    """What the reading of an image file gave; its voxels are not kept."""

    path: Path
    grid: Geometry
    channels: int
    is_zero: bool


def examine_case(
    case: CaseOnDisk, *, labels: Sequence[int], channels: int, video: VideoTask | None = None
) -> Examined:
    """Read every file of a case and return what is wrong with them.

    Args:
        case: its files.
        labels: values that dataset.json declares.
        channels: how many of them dataset.json declares.
        video: what the task says of videos, if its cases are such.
    """
    complaints: list[Complaint] = []
    images = [
        _SeenImage(path=path, grid=grid, channels=len(voxels), is_zero=not np.any(voxels))
        for path in case.images
        if path is not None
        for voxels, grid in _look(case, path, NOT_FINITE, complaints)
    ]
    complaints += [*_zero_images(case, images), *_wrong_channels(case, images, channels)]
    histogram = label = None
    grids = [(image.path, image.grid) for image in images]
    if case.label is not None:
        for voxels, grid in _look(case, case.label, LABEL_NOT_FINITE, complaints):
            grids.append((case.label, grid))
            label = voxels if images and grid.shape == images[0].grid.shape else None
            histogram, wrong = _examine_label(voxels, labels)
            complaints += (_of(case, kind, case.label, f, e) for kind, f, e in wrong)
    if video is not None:
        grids = [(path, timeless(grid)) for path, grid in grids]
        frames = images[0].grid.shape[0] if images else 0
        complaints += video.examine(case, frames, label)
    complaints += _different_grids(case, grids)
    return Examined(
        case=case,
        complaints=tuple(complaints),
        histogram=histogram,
        orientation=orientation_of(images[0].grid.direction) if images else None,
    )


def memory_needed(case: CaseOnDisk) -> float:
    """Return about how many bytes it takes to examine or mend a case."""
    return MEMORY_FACTOR * max(map(unpacked_size, case.files), default=0)


def read_label_voxels(path: Path) -> tuple[Any, Geometry]:
    """Return the voxels of a label map (D, H, W) as they stand in the file, and its grid.

    Raises:
        DataError: the file cannot be read.
    """
    if format_of(path).multichannel:  # a picture, whose palette or colours need interpretation
        return format_of(path).read_label(path)
    voxels, grid = format_of(path).read([path])
    return voxels[0], grid


def _of(case: CaseOnDisk, kind: Kind, path: Path, found: str, expected: str) -> Complaint:
    return Complaint(
        kind=kind, file=short(path), case_id=case.case_id, found=found, expected=expected
    )


def _look(
    case: CaseOnDisk, path: Path, not_finite: Kind, complaints: list[Complaint]
) -> Iterator[tuple[Any, Geometry]]:
    """Yield what a file holds if it can be read; add complaints if not, or if it is not finite."""
    try:
        if path == case.label:
            voxels, grid = read_label_voxels(path)
        else:
            voxels, grid = format_of(path).read([path])
    except DataError as error:
        reason = str(error).replace(f"{path}: ", "").replace(f"{path} ", "", 1)
        reason = reason.replace(str(path), path.name)
        complaints.append(_of(case, UNREADABLE, path, reason, ""))
        return
    wrong = voxels.size - np.count_nonzero(np.isfinite(voxels))
    if wrong:
        complaints.append(
            _of(case, not_finite, path, f"{wrong} of {voxels.size} voxels not finite", "none")
        )
    yield voxels, grid


def _zero_images(case: CaseOnDisk, images: Sequence[_SeenImage]) -> Iterator[Complaint]:
    """Yield a complaint for each channel that is zero everywhere; an error if all are."""
    zero = [image.path for image in images if image.is_zero]
    kind = ALL_ZERO if len(zero) == len(case.images) else ZERO_CHANNEL
    for path in zero:
        yield _of(case, kind, path, "0 in every voxel", "an image")


def _wrong_channels(
    case: CaseOnDisk, images: Sequence[_SeenImage], channels: int
) -> Iterator[Complaint]:
    """Yield a complaint if the images, all of them read, have too many or too few channels."""
    found = sum(image.channels for image in images)
    if images and len(images) == len(case.images) and found != channels:
        yield _of(case, WRONG_CHANNELS, images[0].path, f"{found} channels", f"{channels}")


def _different_grids(
    case: CaseOnDisk, grids: Sequence[tuple[Path, Geometry]]
) -> Iterator[Complaint]:
    """Yield a complaint for each file that does not lie on the grid of the first one."""
    for path, grid in grids[1:]:
        difference = compare(grid, grids[0][1])
        if difference is not None:
            kind, found, expected = difference
            yield _of(case, kind, path, found, f"{expected} as {short(grids[0][0])}")


def _examine_label(
    voxels: FloatArray, labels: Sequence[int]
) -> tuple[Histogram, list[tuple[Kind, str, str]]]:
    """Return the histogram of a label map and what is wrong with its values."""
    values, counts = np.unique(voxels[np.isfinite(voxels)], return_counts=True)
    rounded = np.rint(values)
    distance = float(np.abs(values - rounded).max(initial=0.0))
    if distance > LABEL_ROUNDING:
        histogram = _histogram(values, counts, most=HISTOGRAM_SHOWN)
        return histogram, [(FRACTIONAL, str(histogram), f"integers out of {_declared(labels)}")]
    wrong = []
    if distance > 0:
        odd = values[np.abs(values - rounded).argmax()]
        wrong.append((NEAR_INTEGER, f"{odd:.7g} for example", f"{np.rint(odd):.0f}"))
    histogram = _histogram(*_merged(rounded, counts))
    if not set(rounded.tolist()) <= set(labels):
        wrong.append((UNDECLARED, str(histogram), _declared(labels)))
    if not np.any(rounded):
        wrong.append((EMPTY_LABEL, "0 in every voxel", "some foreground"))
    return histogram, wrong


def _merged(rounded: Any, counts: Any) -> tuple[Any, Any]:
    """Return the distinct values and the sum of the counts of each."""
    values, index = np.unique(rounded, return_inverse=True)
    return values, np.bincount(index.reshape(-1), weights=counts, minlength=len(values))


def _histogram(values: Any, counts: Any, most: int | None = None) -> Histogram:
    frequent = np.argsort(-counts, kind="stable")[:most]
    voxels = {float(values[i]): int(counts[i]) for i in sorted(frequent.tolist())}
    return Histogram(voxels=voxels, omitted=len(values) - len(voxels))


def _declared(labels: Sequence[int]) -> str:
    return f"{', '.join(map(str, labels))} (dataset.json)"
