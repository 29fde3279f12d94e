"""Image formats: files to arrays and back, chosen by suffix."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from nnunetlike.core.errors import DataError
from nnunetlike.core.registry import Registry
from nnunetlike.core.typing import FloatArray, LabelMap
from nnunetlike.data.geometry import Geometry


class ImageFormat(Protocol):
    """A family of image files.

    Contract: `read` stacks the files (one per channel) to float32 (C, D, H, W) and gives the grid
    of the first; `read_label` gives one file's integers (D, H, W) in the smallest integer type that
    holds them, exactly; `write_label` writes a label map so that `read_label` gives the same array
    and geometry.
    """

    @property
    def suffixes(self) -> tuple[str, ...]:
        """Endings of file names, in lower case."""
        ...

    def read(self, paths: Sequence[Path]) -> tuple[FloatArray, Geometry]:
        """Return the channels as one float32 array (C, D, H, W) and their grid."""
        ...

    def read_label(self, path: Path) -> tuple[LabelMap, Geometry]:
        """Return a label map (D, H, W) and its grid."""
        ...

    def write_label(self, label: LabelMap, geometry: Geometry, path: Path) -> None:
        """Write a label map (D, H, W), whole or not at all."""
        ...


IMAGE_FORMATS: Registry[ImageFormat] = Registry("image format", "nnunetlike.data.imageio")


def format_of(path: Path) -> ImageFormat:
    """Return the format that reads `path`, by its suffix.

    Raises:
        DataError: no format has that suffix.
    """
    formats = [IMAGE_FORMATS.get(name) for name in IMAGE_FORMATS.names()]
    for candidate in formats:
        if path.name.lower().endswith(candidate.suffixes):
            return candidate
    known = ", ".join(suffix for candidate in formats for suffix in candidate.suffixes)
    raise DataError(f"{path}: no image format has this suffix; known are {known}")
