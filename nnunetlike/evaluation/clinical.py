"""Volumes, ejection fraction and strain of the left ventricle, from label videos.

A video's heart cycle is measured at end-diastole (ED) and end-systole (ES). Volumes are in mL where
the spacing is in mm, else in cubic pixels; the ejection fraction needs no unit. A negative ejection
fraction is told as it is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from scipy import ndimage

from nnunetlike.core.typing import FloatArray, LabelMap
from nnunetlike.data.video import VideoFacts
from nnunetlike.evaluation.ventricle import (
    DISCS,
    NoVentricleError,
    Structures,
    Ventricle,
    measure_ventricle,
)

Method = Literal["single_plane_discs_20", "biplane_discs_20", "area_length"]
Step = Literal["per_phase", "camus_compat"]
BIPLANE_VIEWS = ("2CH", "4CH")
"""Views that the biplane method takes together."""

CUBIC_MM_PER_ML = 1000.0
SMOOTHED_FRAMES = 3
"""Frames that a point of the area curve is the mean of before its extremes are looked for."""


@dataclass(frozen=True, kw_only=True)
class Cycle:
    """The cavity of one video at end-diastole and end-systole."""

    ed: int | None = None
    es: int | None = None
    phases: Literal["given", "found"] | None = None
    """Whether both frames were known, or are those of largest and smallest area."""

    diastole: Ventricle | None = None
    systole: Ventricle | None = None
    unit: Literal["mm", "px"] = "mm"
    failure: str | None = None
    """Why there is nothing to measure."""

    notes: tuple[str, ...] = ()
    """What makes the measures doubtful."""


@dataclass(frozen=True, kw_only=True)
class Volumes:
    """Volumes at end-diastole and end-systole, in mL or in cubic pixels."""

    method: Method
    edv: float
    esv: float

    @property
    def ef(self) -> float:
        """Ejection fraction in percent, below 0 where the ventricle grew."""
        return 100 * (self.edv - self.esv) / self.edv


def measure_cycle(
    label: LabelMap,
    structures: Structures,
    spacing: tuple[float, float],
    facts: VideoFacts,
    *,
    areas: FloatArray | None = None,
) -> Cycle:
    """Return what the cavity of a video measures at ED and ES.

    Args:
        label: label map, (T, H, W).
        structures: which labels are what.
        spacing: distance between pixel centres along H and W; in pixels if the facts say that it
            is not known.
        facts: give ED and ES where they are known.
        areas: the cavity's area in each frame, (T,), NaN where it is not known; counted if None.

    Returns:
        A cycle with `failure` where a frame has no cavity that can be measured.
    """
    unit: Literal["mm", "px"] = "mm" if facts.spacing_known else "px"
    spacing = spacing if facts.spacing_known else (1.0, 1.0)
    if areas is None:
        areas = area_curve(label, structures.cavity, spacing)
    ed, es, phases = _phases(facts, areas)
    known = Cycle(ed=ed, es=es, phases=phases, unit=unit)
    if ed is None or es is None:
        return replace(known, failure="no cavity in any frame")
    if not (0 <= ed < len(label) and 0 <= es < len(label)):
        return replace(known, failure=f"ED {ed} and ES {es} are not both among {len(label)} frames")
    if ed == es:
        return replace(known, failure=f"ED and ES are the same frame, {ed}")
    if np.isnan(areas[[ed, es]]).any():
        return replace(known, failure=f"ED {ed} or ES {es} has no label")
    try:
        diastole = _measured(label[ed], structures, spacing, f"ED, frame {ed}")
        systole = _measured(label[es], structures, spacing, f"ES, frame {es}")
    except NoVentricleError as error:
        return replace(known, failure=str(error))
    measured = ((f"ED, frame {ed}", diastole), (f"ES, frame {es}", systole))
    notes = tuple(f"cavity touches the border at {at}" for at, v in measured if v.at_border)
    return replace(known, diastole=diastole, systole=systole, notes=notes)


def area_curve(label: LabelMap, value: int, spacing: tuple[float, float]) -> FloatArray:
    """Return the area of a structure in each frame, (T,), in squares of the spacing's unit."""
    pixels = np.count_nonzero(label == value, axis=(1, 2))
    return np.asarray(pixels * (spacing[0] * spacing[1]), dtype=float)


def find_phases(areas: FloatArray) -> tuple[int, int] | None:
    """Return the frames of largest and smallest area, ED and ES.

    The curve is smoothed over three frames where all areas are known.

    Args:
        areas: by frame, (T,); NaN where not known.

    Returns:
        None if no area is known, or all are 0.
    """
    if not np.nansum(areas):
        return None
    if not np.isnan(areas).any():
        areas = ndimage.uniform_filter1d(areas, min(SMOOTHED_FRAMES, len(areas)), mode="nearest")
    return int(np.nanargmax(areas)), int(np.nanargmin(areas))


def area_length(cycle: Cycle) -> Volumes | None:
    r"""Return the volumes $8 A^2 / (3 \pi L)$ of a cavity of area A and length L; None if failed.

    Source: Dodge et al., "The use of biplane angiocardiography for the measurement of left
    ventricular volume in man", American Heart Journal 1960, in a single plane.
    """
    if cycle.diastole is None or cycle.systole is None:
        return None
    volume = [8 * v.area**2 / (3 * math.pi * v.length) for v in (cycle.diastole, cycle.systole)]
    return _volumes("area_length", volume, cycle.unit)


def single_plane(cycle: Cycle) -> Volumes | None:
    r"""Return the volumes $\pi/4 \sum_i d_i^2 L / 20$ of 20 round discs; None if failed.

    Source: Lang et al., "Recommendations for cardiac chamber quantification by echocardiography in
    adults", JASE 2015 (method of discs).
    """
    if cycle.diastole is None or cycle.systole is None:
        return None
    volume = [
        _discs(v.diameters, v.diameters, v.length / DISCS) for v in (cycle.diastole, cycle.systole)
    ]
    return _volumes("single_plane_discs_20", volume, cycle.unit)


def biplane(first: Cycle, second: Cycle, step: Step = "per_phase") -> Volumes | None:
    r"""Return the volumes $\pi/4 \sum_i a_i b_i L / 20$ of 20 elliptic discs; None if one failed.

    Args:
        first: one apical view of a patient.
        second: the other one.
        step: L is the longer of the two views' lengths in each phase, or for both phases the
            longest of all four, as the script published with CAMUS does.

    Returns:
        None too where one view is in mm and the other in pixels.

    Source: as `single_plane`.
    """
    diastole = [first.diastole, second.diastole]
    systole = [first.systole, second.systole]
    if first.unit != second.unit:
        return None
    volume = []
    lengths = [max((v.length for v in views if v), default=0) for views in (diastole, systole)]
    if step == "camus_compat":
        lengths = [max(lengths)] * 2
    for (a, b), length in zip((diastole, systole), lengths, strict=True):
        if a is None or b is None:
            return None
        volume.append(_discs(a.diameters, b.diameters, length / DISCS))
    return _volumes("biplane_discs_20", volume, first.unit)


def longitudinal_strain(cycle: Cycle) -> float:
    """Return how much shorter the wall of the cavity is at ES, in percent, negative when shorter.

    It is 100 (L_ES - L_ED) / L_ED of the contour without the mitral plane; NaN if the cycle failed.
    """
    if cycle.diastole is None or cycle.systole is None:
        return math.nan
    return 100 * (cycle.systole.wall - cycle.diastole.wall) / cycle.diastole.wall


def _phases(
    facts: VideoFacts, areas: FloatArray
) -> tuple[int | None, int | None, Literal["given", "found"] | None]:
    if facts.ed is not None and facts.es is not None:
        return facts.ed, facts.es, "given"
    found = find_phases(areas)
    return (None, None, None) if found is None else (*found, "found")


def _measured(
    label: LabelMap, structures: Structures, spacing: tuple[float, float], where: str
) -> Ventricle:
    try:
        return measure_ventricle(label, structures, spacing)
    except NoVentricleError as error:
        raise NoVentricleError(f"{error} at {where}") from None


def _discs(a: tuple[float, ...], b: tuple[float, ...], step: float) -> float:
    return math.pi / 4 * step * math.fsum(x * y for x, y in zip(a, b, strict=True))


def _volumes(method: Method, volumes: list[float], unit: Literal["mm", "px"]) -> Volumes:
    factor = CUBIC_MM_PER_ML if unit == "mm" else 1.0
    return Volumes(method=method, edv=volumes[0] / factor, esv=volumes[1] / factor)
