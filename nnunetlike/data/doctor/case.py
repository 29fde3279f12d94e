"""What is wrong inside the files of one case: grids, voxels, labels.

Arrays are (D, H, W).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError

from nnunetlike.core.errors import DataError
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
from nnunetlike.data.doctor.grids import compare, orientation
from nnunetlike.data.doctor.layout import CaseOnDisk, short
from nnunetlike.data.geometry import Geometry
from nnunetlike.data.imageio import LABEL_ROUNDING, format_of

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


@dataclass(frozen=True)
class _Seen:
    """What the reading of a file gave."""

    voxels: FloatArray
    grid: Geometry


def examine_case(case: CaseOnDisk, *, labels: Sequence[int], channels: int) -> Examined:
    """Read every file of a case and return what is wrong with them.

    Args:
        case: its files.
        labels: values that dataset.json declares.
        channels: how many of them dataset.json declares.
    """
    complaints: list[Complaint] = []
    images = [
        (path, seen)
        for path in case.images
        if path is not None
        for seen in _look(case, path, NOT_FINITE, complaints)
    ]
    complaints += _zero_images(case, [(path, seen.voxels) for path, seen in images])
    complaints += _wrong_channels(case, [len(seen.voxels) for _, seen in images], channels)
    histogram = None
    grids = [(path, seen.grid) for path, seen in images]
    if case.label is not None:
        for seen in _look(case, case.label, LABEL_NOT_FINITE, complaints):
            grids.append((case.label, seen.grid))
            histogram, wrong = _examine_label(seen.voxels, labels)
            complaints += (_of(case, kind, case.label, f, e) for kind, f, e in wrong)
    for path, grid in grids[1:]:
        difference = compare(grid, grids[0][1])
        if difference is not None:
            kind, found, expected = difference
            expected += f" as {short(grids[0][0])}"
            complaints.append(_of(case, kind, path, found, expected))
    return Examined(
        case=case,
        complaints=tuple(complaints),
        histogram=histogram,
        orientation=orientation(images[0][1].grid.direction) if images else None,
    )


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
) -> Iterator[_Seen]:
    """Yield what a file holds if it can be read; add complaints if not, or if it is not finite."""
    try:
        if path == case.label:
            voxels, grid = read_label_voxels(path)
        else:
            voxels, grid = format_of(path).read([path])
        wrong = _not_finite(path, voxels)
    except DataError as error:
        reason = str(error).removeprefix(str(path)).lstrip(": ")
        complaints.append(_of(case, UNREADABLE, path, reason, "a readable file"))
        return
    if wrong:
        complaints.append(
            _of(case, not_finite, path, f"{wrong} of {voxels.size} voxels not finite", "none")
        )
    yield _Seen(voxels, grid)


def _not_finite(path: Path, voxels: FloatArray) -> int:
    """Return how many voxels of the file are NaN or infinite.

    ITK silently reads such voxels of a NIfTI file as 0, so floating-point files are looked at
    through nibabel.

    Raises:
        DataError: nibabel refuses the file.
    """
    found: Any = voxels
    if path.name.endswith((".nii", ".nii.gz")):
        try:
            stored: Any = nibabel.load(path)
        except (ImageFileError, HeaderDataError) as error:
            raise DataError(f"{path} cannot be read as NIfTI: {error}") from None
        if stored.get_data_dtype().kind != "f":
            return 0
        found = np.asanyarray(stored.dataobj)
    return int(found.size - np.isfinite(found).sum())


def _zero_images(
    case: CaseOnDisk, images: Sequence[tuple[Path, FloatArray]]
) -> Iterator[Complaint]:
    """Yield a complaint for each channel that is zero everywhere; an error if all are."""
    zero = [path for path, voxels in images if not np.any(voxels)]
    kind = ALL_ZERO if len(zero) == len(case.images) else ZERO_CHANNEL
    for path in zero:
        yield _of(case, kind, path, "0 in every voxel", "an image")


def _wrong_channels(case: CaseOnDisk, found: Sequence[int], channels: int) -> Iterator[Complaint]:
    """Yield a complaint if the images, all of them read, have too many or too few channels."""
    first = case.images[0]
    if first is not None and len(found) == len(case.images) and sum(found) != channels:
        yield _of(case, WRONG_CHANNELS, first, f"{sum(found)} channels", f"{channels}")


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
