"""Where the axes of an image point in the body, and arrays turned from one orientation to another.

An orientation is three letters, one for each axis x, y, z of an image file, in this order: the side
towards which the index grows, R or L, A or P, S or I. An oblique axis has the letter of the nearest
axis of the body, and no two axes share one. These are the letters of `nibabel.aff2axcodes` and
`SimpleITK.DICOMOrient`; the direction (1, 0, 0, 0, 1, 0, 0, 0, 1) is `LPS`. Arrays are in the order
D, H, W, which is z, y, x.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from nibabel.orientations import io_orientation

from nnunetlike.core.errors import DataError

SIDES = ("LR", "PA", "SI")
"""Where the world's axes x, y, z point (LPS), and the other way."""

T = TypeVar("T")


def orientation_of(direction: Sequence[float]) -> str | None:
    """Return the orientation of an image, nearest letters; None if its axes do not span space.

    Args:
        direction: direction cosines as image files store them, row by row, world axes LPS; their
            length does not matter.

    Source: Brett et al., nibabel (`io_orientation`), which decides what is nearest.
    """
    return _nearest(tuple(map(float, np.ravel(direction))))


@lru_cache(maxsize=256)
def _nearest(direction: tuple[float, ...]) -> str | None:
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(direction, (3, 3))
    if not np.isfinite(affine).all() or np.linalg.matrix_rank(affine) < 4:
        return None
    return "".join(SIDES[int(axis)][int(way < 0)] for axis, way in io_orientation(affine))


def direction_of(orientation: str) -> tuple[float, ...]:
    """Return the direction cosines of axes that point exactly as the letters say."""
    cosines = np.zeros((3, 3))
    for axis, letter in enumerate(orientation):
        side = _side(letter)
        cosines[side, axis] = 1.0 if letter == SIDES[side][0] else -1.0
    return tuple(cosines.ravel().tolist())


def is_orientation(value: object) -> bool:
    """Tell whether a value is three letters, one of each pair."""
    if not isinstance(value, str) or len(value) != len(SIDES):
        return False
    return all(len({*pair} & {*value}) == 1 for pair in SIDES)


@dataclass(frozen=True)
class Turn:
    """The change of axes from one orientation to another: a permutation and flips, no resampling.

    Args:
        source: orientation of the arrays that are turned.
        target: orientation that they get.

    Raises:
        DataError: one of them is no orientation.
    """

    source: str
    target: str

    def __post_init__(self) -> None:
        for value in (self.source, self.target):
            if not is_orientation(value):
                raise DataError(
                    f"{value!r} is no orientation; it takes a letter of each of R/L, A/P and S/I, "
                    "such as 'LPS'"
                )

    @property
    def back(self) -> Turn:
        """The change that undoes this one."""
        return Turn(self.target, self.source)

    @property
    def axes(self) -> tuple[int, int, int]:
        """Which array axis each axis of the turned array was."""
        sides = [_side(letter) for letter in reversed(self.source)]
        a, b, c = (sides.index(_side(letter)) for letter in reversed(self.target))
        return a, b, c

    def order(self, values: Sequence[T]) -> tuple[T, T, T]:
        """Return what belongs to the axes D, H, W, such as spacings, for the turned array."""
        a, b, c = (values[axis] for axis in self.axes)
        return a, b, c

    def apply(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return an array (..., D, H, W) turned, contiguous; the same array if nothing changes."""
        if self.source == self.target:
            return array
        leading = array.ndim - 3
        axes = (*range(leading), *(leading + axis for axis in self.axes))
        before = self.order(self.source[::-1])
        flipped = tuple(
            leading + axis
            for axis, (old, new) in enumerate(zip(before, reversed(self.target), strict=True))
            if old != new
        )
        return np.ascontiguousarray(np.flip(array.transpose(axes), flipped))


AS_STORED = Turn("LPS", "LPS")
"""No change, whatever the orientation."""


def _side(letter: str) -> int:
    """Return the axis of the world that a letter lies on."""
    return next(axis for axis, pair in enumerate(SIDES) if letter in pair)
