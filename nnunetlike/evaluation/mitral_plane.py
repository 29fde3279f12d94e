"""Where a ventricle's contour is its mitral plane.

A contour is a closed polygon, (N + 1, 2) points (y, x) whose last is the first. The part that is
the mitral plane runs from point `start` to point `stop`, possibly over the end.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from nnunetlike.core.typing import BoolArray

Points = npt.NDArray[np.float64]

TOUCHES = 1.5
"""Pixels from a point of the contour to the nearest one of a structure that it touches."""

NARROWEST = 0.2
"""Shortest mitral plane, in square roots of the cavity's area; shorter ones are gaps."""

FLATNESS = 0.04
"""How far the contour may leave the chord that stands for the mitral plane, likewise."""

CORNERS = 96
"""Points of the contour between which that chord is searched."""


class Base(NamedTuple):
    """The part of a contour that is the mitral plane."""

    start: int
    stop: int
    extends: bool = False
    """The long axis goes on behind the chord, to the contour."""

    def members(self, count: int) -> BoolArray:
        """Return which of `count` points of the contour belong to it, both ends included."""
        steps = (np.arange(count) - self.start) % count
        return np.asarray(steps <= (self.stop - self.start) % count)

    def edges(self, count: int) -> BoolArray:
        """Return which of `count` edges, each from a point to the next, belong to it."""
        steps = (np.arange(count) - self.start) % count
        return np.asarray(steps < (self.stop - self.start) % count)


def base_by_neighbours(contour: Points, wall: BoolArray, atrium: BoolArray) -> Base | None:
    """Return the part of the contour that touches no myocardium.

    Of several the one with most contact with the atrium counts, else the longest.

    Args:
        contour: in pixels.
        wall: mask of the myocardium, (H, W).
        atrium: mask of the left atrium, (H, W), which may be empty.

    Returns:
        None if myocardium surrounds the cavity, is nowhere beside it, or leaves but a small gap.
    """
    points = contour[:-1]
    free = ~_touches(points, wall)
    if free.all() or not free.any():
        return None
    beside = _touches(points, atrium)
    runs = _runs(free)
    best = max(
        runs,
        key=lambda run: (np.count_nonzero(run.members(len(points)) & beside), *_size(run, contour)),
    )
    area = abs(_signed_area(contour))
    return best if _size(best, contour)[0] >= NARROWEST * np.sqrt(area) else None


def base_by_chord(contour: Points) -> Base:
    """Return the flattest end of a contour of which nothing else is known.

    That is the longest chord that the contour leaves by little, its length weighed by the squared
    cosine of the angle between the chord and the normal of the shape's principal axis. Of an
    ellipse it is an end of the long axis.
    """
    corners = _corners(contour)
    across = _minor_axis(contour)
    limit = FLATNESS * np.sqrt(abs(_signed_area(contour)))
    best, where = -1.0, (0, 2)
    for span in range(2, CORNERS // 2):
        chord = np.roll(corners, -span, axis=0) - corners
        length = np.maximum(np.linalg.norm(chord, axis=1), 1e-12)
        inner = corners[(np.arange(CORNERS)[:, None] + np.arange(1, span)) % CORNERS]
        off = np.abs(_cross(inner - corners[:, None], (chord / length[:, None])[:, None])).max(1)
        score = np.where(off <= limit, (chord @ across) ** 2 / length, -1.0)
        if score.max() > best:
            best, where = float(score.max()), (int(score.argmax()), span)
    start, span = where
    ends = corners[start], corners[(start + span) % CORNERS]
    first, last = (int(np.linalg.norm(contour[:-1] - end, axis=1).argmin()) for end in ends)
    return Base(first, last, extends=True)


def crossings(height: Points, position: Points) -> Points:
    """Return the positions at which a closed polygon passes the height 0.

    Args:
        height: of each point, (N + 1,).
        position: of each point, (N + 1,).
    """
    below = height < 0
    at = np.flatnonzero(below[:-1] != below[1:])
    share = height[at] / (height[at] - height[at + 1])
    return np.asarray(position[at] + share * (position[at + 1] - position[at]))


def _touches(points: Points, mask: BoolArray) -> BoolArray:
    """Return which points lie beside a mask (H, W)."""
    if not mask.any():
        return np.zeros(len(points), bool)
    distance = np.asarray(ndimage.distance_transform_edt(~mask))
    return np.asarray(
        ndimage.map_coordinates(distance, points.T, order=1, mode="nearest") <= TOUCHES
    )


def _runs(flags: BoolArray) -> list[Base]:
    """Return the runs of a circle of flags of which some are set and some are not."""
    count = len(flags)
    begins = np.flatnonzero(flags & ~np.roll(flags, 1))
    ends = np.flatnonzero(flags & ~np.roll(flags, -1))
    if ends[0] < begins[0]:
        ends = np.roll(ends, -1)
    return [Base(int(b), int(e)) for b, e in zip(begins % count, ends, strict=True)]


def _size(run: Base, contour: Points) -> tuple[float, int]:
    """Return how far apart the ends of a part are, and its first point to decide ties."""
    return float(np.linalg.norm(contour[run.stop] - contour[run.start])), -run.start


def _corners(contour: Points) -> Points:
    """Return points of the contour at equal distances along it, (CORNERS, 2)."""
    steps = np.linalg.norm(np.diff(contour, axis=0), axis=1)
    along = np.concatenate([[0.0], np.cumsum(steps)])
    at = np.arange(CORNERS) * along[-1] / CORNERS
    return np.stack([np.interp(at, along, contour[:, axis]) for axis in (0, 1)], axis=1)


def _minor_axis(contour: Points) -> Points:
    """Return the direction in which the contour spreads least."""
    spread = np.cov(_corners(contour).T)
    return np.asarray(np.linalg.eigh(spread)[1][:, 0])


def _signed_area(contour: Points) -> float:
    return float(_cross(contour[:-1], contour[1:]).sum() / 2)


def _cross(first: Points, second: Points) -> Points:
    return np.asarray(first[..., 0] * second[..., 1] - first[..., 1] * second[..., 0])
