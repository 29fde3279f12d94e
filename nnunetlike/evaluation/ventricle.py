"""The left ventricle in one frame: long axis, diameters and wall, from its label map.

Points are (y, x) in the unit of the spacing, contours are closed polygons whose last point is the
first. The apex is the end of the long axis that lies opposite the mitral plane, the base.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from skimage.measure import find_contours
from skimage.transform import resize

from nnunetlike.core.errors import DataError
from nnunetlike.core.typing import BoolArray, LabelMap
from nnunetlike.evaluation.mitral_plane import Base, base_by_chord, base_by_neighbours, crossings

DISCS = 20
SMOOTHING = 1.0
"""Standard deviation in pixels of the blur that takes the stairs from a contour."""

MARGIN = 4
"""Pixels around the cavity in which its neighbours are looked for."""

SMALLEST = 12
"""Pixels of a cavity that has a long axis."""

NAMES = {
    "cavity": ("lv", "lv cavity", "lv_endo", "lvendo", "left ventricle", "left_ventricle"),
    "myocardium": ("myo", "myocardium", "lv_myo", "lv myocardium", "lv_epi"),
    "atrium": ("la", "left atrium", "left_atrium"),
}
"""What the structures are called in dataset.json, in lower case."""

Points = npt.NDArray[np.float64]


class NoVentricleError(DataError):
    """A frame's cavity cannot be measured."""


@dataclass(frozen=True, kw_only=True)
class Structures:
    """Labels of what a ventricle is measured by."""

    cavity: int
    myocardium: int | None = None
    atrium: int | None = None

    @classmethod
    def of(cls, names: Mapping[int, str]) -> Structures | None:
        """Return the labels that the names tell, upper or lower case.

        Where no name is known they are 1, 2 and 3, as far as there are. None without a cavity.
        """
        found = {
            structure: value
            for structure, known in NAMES.items()
            for value, name in names.items()
            if value > 0 and name.strip().lower() in known
        }
        if not found:
            found = {name: value for value, name in enumerate(NAMES, start=1) if value in names}
        return cls(**found) if "cavity" in found else None


@dataclass(frozen=True, kw_only=True)
class Ventricle:
    """The cavity of one frame, in the unit of the spacing."""

    area: float
    length: float
    """From the middle of the mitral plane to the apex."""

    diameters: tuple[float, ...]
    """Across the long axis, in the middle of each of 20 slices of equal height, base first."""

    wall: float
    """Length of the contour without the mitral plane: where the cavity touches myocardium."""

    at_border: bool
    """The cavity touches the border of the frame, so a part may be missing."""

    base: Literal["myocardium", "chord"]
    """What told the mitral plane: where myocardium ends, or the flattest end."""


def measure_ventricle(
    label: LabelMap, structures: Structures, spacing: tuple[float, float]
) -> Ventricle:
    """Return the measures of the cavity in one frame.

    The label map is resampled to isotropic pixels; of the cavity the largest component counts,
    its holes filled. The mitral plane is the part of the cavity's contour that does not touch
    myocardium (the one that touches the atrium, where there are several); without myocardium it
    is the flattest end.

    Args:
        label: label map, (H, W).
        structures: which labels are what.
        spacing: distance between pixel centres along H and W.

    Raises:
        NoVentricleError: there is no cavity, or it is too small.
    """
    cavity = _largest(label == structures.cavity)
    if np.count_nonzero(cavity) < SMALLEST:
        found = np.count_nonzero(cavity)
        raise NoVentricleError(f"cavity of {found} pixels" if found else "no cavity")
    at_border = bool(
        cavity[0].any() or cavity[-1].any() or cavity[:, 0].any() or cavity[:, -1].any()
    )
    box = _padded_box(cavity)
    scale, cavity = isotropic(cavity[box], spacing)
    walls = _mask(label[box], structures.myocardium, spacing)
    atrium = _mask(label[box], structures.atrium, spacing)
    contour = _contour(cavity)
    base = base_by_neighbours(contour, walls, atrium) if walls.any() else None
    by: Literal["myocardium", "chord"] = "chord" if base is None else "myocardium"
    axis = _long_axis(contour * scale, base or base_by_chord(contour))
    return Ventricle(
        area=float(np.count_nonzero(cavity) * scale[0] * scale[1]),
        length=axis.length,
        diameters=_diameters(contour * scale, axis),
        wall=axis.wall,
        at_border=at_border,
        base=by,
    )


def isotropic(mask: BoolArray, spacing: tuple[float, float]) -> tuple[Points, BoolArray]:
    """Return a mask (H, W) on pixels as fine along both axes, and their height and width."""
    pitch = min(spacing)
    shape = tuple(max(1, round(n * s / pitch)) for n, s in zip(mask.shape, spacing, strict=True))
    scale = np.multiply(mask.shape, spacing) / shape
    if shape == mask.shape:
        return scale, mask
    finer = resize(mask.astype(np.float64), shape, order=1, mode="edge", anti_aliasing=False)
    return scale, np.asarray(finer >= 0.5)


class _Axis(NamedTuple):
    """Long axis: from `foot` in the mitral plane along `direction` to the apex."""

    foot: Points
    direction: Points
    length: float
    wall: float


def _largest(mask: BoolArray) -> BoolArray:
    """Return the largest component (4 neighbours; of equal ones the first), holes filled."""
    parts, count = ndimage.label(mask)
    if count > 1:
        mask = parts == 1 + int(np.argmax(np.bincount(parts.ravel())[1:]))
    return np.asarray(ndimage.binary_fill_holes(mask), dtype=bool)


def _padded_box(mask: BoolArray) -> tuple[slice, ...]:
    box = ndimage.find_objects(mask.astype(np.uint8))[0]
    return tuple(slice(max(0, s.start - MARGIN), s.stop + MARGIN) for s in box)


def _mask(label: LabelMap, value: int | None, spacing: tuple[float, float]) -> BoolArray:
    return isotropic(label == value if value is not None else np.zeros(label.shape, bool), spacing)[
        1
    ]


def _contour(mask: BoolArray) -> Points:
    """Return the outline between the pixels, (N, 2) in pixels, blurred a little."""
    around = 2 * MARGIN
    soft = ndimage.gaussian_filter(np.pad(mask, around).astype(np.float64), SMOOTHING)
    longest = max(find_contours(soft, 0.5), key=len, default=None)
    if longest is None:
        raise NoVentricleError("cavity too thin to have a contour")
    return np.asarray(longest - around)


def _long_axis(contour: Points, base: Base) -> _Axis:
    """Return the axis from the middle of the mitral plane to the farthest point of the wall."""
    inside = base.members(len(contour) - 1)
    middle = (contour[base.start] + contour[base.stop]) / 2
    away = np.linalg.norm(contour[:-1] - middle, axis=1)
    apex = contour[int(np.argmax(np.where(inside, -1, away)))]
    length = float(np.linalg.norm(apex - middle))
    direction = (apex - middle) / length
    if base.extends:  # the chord cuts off what lies behind it
        behind = crossings((contour - apex) @ _across(direction), (contour - apex) @ direction)
        length = max(length, float(-behind.min(initial=0)))
    steps = np.linalg.norm(np.diff(contour, axis=0), axis=1)
    wall = float(steps[~base.edges(len(steps))].sum())
    return _Axis(apex - length * direction, direction, length, wall)


def _across(direction: Points) -> Points:
    return np.array([direction[1], -direction[0]])


def _diameters(contour: Points, axis: _Axis) -> tuple[float, ...]:
    """Return how wide the cavity is in the middle of each disc; parts beside each other add up."""
    along = (contour - axis.foot) @ axis.direction
    across = (contour - axis.foot) @ _across(axis.direction)
    levels = (np.arange(DISCS) + 0.5) * axis.length / DISCS
    found = [np.sort(crossings(along - level, across)) for level in levels]
    return tuple(float((at[1::2] - at[0::2]).sum()) for at in found)
