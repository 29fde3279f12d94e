"""Image formats: files to arrays and back, chosen by the ending of the file name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from nnunetlike.core.errors import DataError
from nnunetlike.core.registry import Registry
from nnunetlike.core.typing import FloatArray, LabelMap
from nnunetlike.data.geometry import Geometry

DEFAULT_ENDING = ".nii.gz"
"""Ending of nnU-Net v1's files."""

LABEL_ROUNDING = 1e-3
"""Distance from an integer that is taken for rounding in a label map, such as 0.99998."""

LABEL_ENDINGS = {".jpg": ".png", ".jpeg": ".png"}
"""What label maps are called where the images' compression would change their values."""


class ImageFormat(Protocol):
    """A family of image files.

    Contract: `read` stacks the files to float32 (C, D, H, W) and gives the grid of the first;
    `read_label` gives one file's integers (D, H, W) in the smallest integer type that holds them,
    exactly (values off by rounding are rounded); `write_label` writes a label map so that
    `read_label` gives the same array and geometry, as far as the format holds it.
    """

    @property
    def suffixes(self) -> tuple[str, ...]:
        """Endings of file names, in lower case."""
        ...

    @property
    def multichannel(self) -> bool:
        """Whether one file may hold several channels, as a colour image does."""
        ...

    @property
    def oriented(self) -> bool:
        """Whether files say how their axes lie in the body."""
        ...

    def orientation(self, path: Path) -> str | None:
        """Return where the axes of a volume point (`LPS`), by its header alone.

        None: the file does not say, is one voxel thick, or cannot be read.
        """
        ...

    def read(self, paths: Sequence[Path]) -> tuple[FloatArray, Geometry]:
        """Return the channels as one float32 array (C, D, H, W) and their grid."""
        ...

    def read_label(self, path: Path) -> tuple[LabelMap, Geometry]:
        """Return a label map (D, H, W) and its grid."""
        ...

    def write_label(
        self, label: LabelMap, geometry: Geometry, path: Path, like: Path | None = None
    ) -> None:
        """Write a label map (D, H, W), whole or not at all.

        Args:
            label: integers.
            geometry: their grid.
            path: the file, whose ending chooses the format.
            like: a file on the same grid, such as the image; where the format can, the new file
                says where it lies in the very same bits. Ignored if it does not exist.
        """
        ...


IMAGE_FORMATS: Registry[ImageFormat] = Registry("image format", "nnunetlike.data.imageio")


def format_of(path: Path) -> ImageFormat:
    """Return the format that reads `path`, by its ending.

    Raises:
        DataError: no format has that ending.
    """
    for name in IMAGE_FORMATS.names():
        candidate = IMAGE_FORMATS.get(name)
        if path.name.lower().endswith(candidate.suffixes):
            return candidate
    raise DataError(
        f"{path}: no image format has this suffix; known are {', '.join(known_endings())}"
    )


def to_integers(voxels: npt.NDArray[Any], path: Path) -> LabelMap:
    """Return the voxels of a label map as integers; those off by rounding are rounded.

    Raises:
        DataError: a value is no integer.
    """
    if voxels.dtype.kind != "f":
        return voxels
    rounded = np.rint(voxels)
    with np.errstate(invalid="ignore"):  # infinity minus infinity
        near = np.abs(rounded - voxels) <= LABEL_ROUNDING
    if not near.all():
        raise DataError(
            f"{path}: a label map holds integers, but found {voxels[~near].flat[0]}. Export the "
            "label without interpolation, or round it"
        )
    integers: LabelMap = rounded.astype(np.int32)
    return integers


def known_endings() -> tuple[str, ...]:
    """Return the endings of all formats, in lower case, the default one first."""
    every = {e for name in IMAGE_FORMATS.names() for e in IMAGE_FORMATS.get(name).suffixes}
    return DEFAULT_ENDING, *sorted(every - {DEFAULT_ENDING})


def split_ending(name: str) -> tuple[str, str]:
    """Return a file name without its ending, and the ending as written.

    The ending is the longest that a format knows (`.nii.gz`, not `.gz`); empty if none does.
    """
    found = [ending for ending in known_endings() if name.lower().endswith(ending)]
    length = max(map(len, found), default=0)
    return name[: len(name) - length], name[len(name) - length :]


def label_ending(ending: str) -> str:
    """Return the ending of label maps that belong to images with `ending`."""
    return LABEL_ENDINGS.get(ending.lower(), ending)


def ending_in(folder: Path, default: str = DEFAULT_ENDING) -> str:
    """Return the ending of the images or labels in a folder.

    That is `.nii.gz` wherever there is such a file, else the most frequent one that a format
    knows, so pictures beside volumes do not count; `default` in a folder without images.
    """
    names = [e.name for e in folder.iterdir() if e.is_file() and not e.name.startswith(".")]
    found = Counter(ending for name in names if (ending := split_ending(name)[1]))
    if not found or DEFAULT_ENDING in found:
        return DEFAULT_ENDING if found else default
    return min(found, key=lambda ending: (-found[ending], ending))
