from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from nnunetlike.data.video import VideoFacts
from nnunetlike.evaluation.clinical import (
    Cycle,
    Volumes,
    area_length,
    biplane,
    find_phases,
    longitudinal_strain,
    measure_cycle,
    single_plane,
)
from nnunetlike.evaluation.ventricle import Structures, Ventricle

LV = Structures(cavity=1)
MM, PX = (0.5, 0.5), (1.0, 1.0)


def ellipse(a: float, b: float, angle: float = 0.0, size: int = 256) -> Any:
    y, x = np.mgrid[:size, :size] - size / 2 + 0.2
    along = math.cos(angle) * y + math.sin(angle) * x
    across = -math.sin(angle) * y + math.cos(angle) * x
    return ((along / a) ** 2 + (across / b) ** 2 < 1).astype(np.uint8)


def facts(**more: Any) -> VideoFacts:
    return VideoFacts(**{"patient": "p", "labelled_frames": (0, 1), "ed": 0, "es": 1, **more})


def cycle(diastole: Any, systole: Any, spacing: tuple[float, float] = PX, **more: Any) -> Cycle:
    return measure_cycle(np.stack([diastole, systole]), LV, spacing, facts(**more))


def ventricle(length: float, diameter: float) -> Ventricle:
    return Ventricle(area=0.0, length=length, diameters=(diameter,) * 20, wall=1.0,
                     at_border=False, base="chord")  # fmt: skip


def exact(a: float, b: float) -> float:
    return 4 / 3 * math.pi * a * b * b


def value(volumes: Volumes | None) -> Volumes:
    assert volumes is not None
    return volumes


@pytest.mark.parametrize("method", [area_length, single_plane])
def test_24_volumes_of_an_ellipse_are_within_2_percent(method: Any) -> None:
    found = value(method(cycle(ellipse(90, 45), ellipse(70, 30), spacing_known=False)))
    assert found.edv == pytest.approx(exact(90, 45), rel=0.02)
    assert found.esv == pytest.approx(exact(70, 30), rel=0.02)


def test_24_area_length_is_exact_in_the_continuum() -> None:
    a, b = 40.0, 21.0
    v = replace(ventricle(2 * a, 1.0), area=math.pi * a * b)
    found = value(area_length(Cycle(diastole=v, systole=v, unit="px")))
    assert found.edv == pytest.approx(exact(a, b), rel=1e-12)


@pytest.mark.parametrize("scale", [0.95, 0.8, 0.65])
@pytest.mark.parametrize("method", [area_length, single_plane])
def test_24_a_short_axis_scaled_by_s_ejects_1_minus_s_squared(method: Any, scale: float) -> None:
    found = value(method(cycle(ellipse(90, 45), ellipse(90, 45 * scale))))
    assert found.ef == pytest.approx(100 * (1 - scale**2), abs=2)


def test_24_biplane_of_two_equal_views_is_the_single_plane() -> None:
    one = cycle(ellipse(90, 45), ellipse(80, 30), MM)
    both, alone = value(biplane(one, one)), value(single_plane(one))
    assert (both.edv, both.esv) == pytest.approx((alone.edv, alone.esv), rel=1e-12)
    assert both.method == "biplane_discs_20" and alone.method == "single_plane_discs_20"


@pytest.mark.parametrize("method", [area_length, single_plane])
def test_24_turning_by_30_degrees_changes_a_volume_by_less_than_3_percent(method: Any) -> None:
    for semi in ((90, 45), (60, 45)):
        still, turned = ellipse(*semi), ellipse(*semi, angle=math.pi / 6)
        found = value(method(cycle(still, turned)))
        assert abs(found.ef) < 3


@pytest.mark.parametrize("muscle", [True, False])
def test_24_the_strain_of_a_shape_scaled_by_8_tenths_is_minus_20(muscle: bool) -> None:
    y = np.mgrid[:256, :256][0] - 128

    def frame(scale: float) -> Any:
        above = y < 25 * scale
        cavity = (ellipse(80 * scale, 40 * scale) == 1) & above
        wall = (ellipse(92 * scale, 52 * scale) == 1) & above & ~cavity
        return (cavity + 2 * muscle * wall).astype(np.uint8)

    label = np.stack([frame(1.0), frame(0.8)])
    structures = Structures(cavity=1, myocardium=2) if muscle else LV
    found = measure_cycle(label, structures, PX, facts())
    assert longitudinal_strain(found) == pytest.approx(-20, abs=1.5)


def test_volumes_are_in_ml_where_the_spacing_is_known() -> None:
    found = value(single_plane(cycle(ellipse(90, 45), ellipse(80, 30), MM)))
    assert found.edv == pytest.approx(exact(45, 22.5) / 1000, rel=0.02)
    unknown = cycle(ellipse(90, 45), ellipse(80, 30), MM, spacing_known=False)
    assert unknown.unit == "px"
    assert value(single_plane(unknown)).edv == pytest.approx(exact(90, 45), rel=0.02)


def test_biplane_by_hand_with_the_longer_of_the_views_in_each_phase() -> None:
    first = Cycle(diastole=ventricle(80, 40), systole=ventricle(60, 30), unit="px")
    second = Cycle(diastole=ventricle(70, 50), systole=ventricle(66, 20), unit="px")
    per_phase = value(biplane(first, second))
    assert per_phase.edv == pytest.approx(math.pi / 4 * 40 * 50 * 80)
    assert per_phase.esv == pytest.approx(math.pi / 4 * 30 * 20 * 66)
    compat = value(biplane(first, second, step="camus_compat"))
    assert compat.edv == pytest.approx(per_phase.edv)
    assert compat.esv == pytest.approx(math.pi / 4 * 30 * 20 * 80)  # one step for all four
    assert biplane(first, replace(second, unit="mm")) is None


def test_a_growing_ventricle_has_a_negative_fraction_that_is_not_clipped() -> None:
    found = value(single_plane(cycle(ellipse(60, 30), ellipse(60, 36))))
    assert found.ef == pytest.approx(100 * (1 - 1.44), abs=2)


def test_phases_are_found_as_the_extremes_of_the_smoothed_curve() -> None:
    areas = np.array([50, 60, 70, 68, 66, 40, 30, 28, 35, 50.0])
    assert find_phases(areas) == (3, 7)  # means of three: 68 at 3, 31 at 7
    spike = areas.copy()
    spike[5] = 75  # one wild frame
    assert find_phases(spike) != (5, 7)


def test_phases_are_found_among_the_frames_that_have_an_area() -> None:
    assert find_phases(np.array([math.nan, 4.0, math.nan, 9.0, 2.0])) == (3, 4)
    assert find_phases(np.array([math.nan, math.nan])) is None
    assert find_phases(np.zeros(4)) is None
    assert find_phases(np.array([5.0])) == (0, 0)


def test_unknown_phases_are_found_and_said_so() -> None:
    video = np.stack([ellipse(20, s, size=64) for s in (8, 9, 12, 14, 14, 13, 9, 6, 6, 7)])
    found = measure_cycle(video, LV, PX, facts(ed=None, es=None))
    assert (found.ed, found.es, found.phases) == (4, 8, "found")
    known = measure_cycle(video, LV, PX, facts(ed=9, es=0))
    assert (known.ed, known.es, known.phases) == (9, 0, "given")


@pytest.mark.parametrize(
    ("frames", "phases", "said"),
    [
        ((0, 0), {}, "no cavity at ED, frame 0"),
        ((1, 0), {}, "no cavity at ES, frame 1"),
        ((0, 0), {"ed": None}, "no cavity in any frame"),
        ((1, 1), {"es": 0}, "ED and ES are the same frame, 0"),
        ((1, 1), {"es": 5}, "ED 0 and ES 5 are not both among 2 frames"),
        ((1, 1), {"es": -1}, "ED 0 and ES -1 are not both among 2 frames"),
    ],
)
def test_failures_are_named(frames: tuple[int, int], phases: Any, said: str) -> None:
    found = cycle(*(ellipse(20, 10, size=64) * there for there in frames), **phases)
    assert found.failure == said
    assert area_length(found) is single_plane(found) is biplane(found, found) is None
    assert math.isnan(longitudinal_strain(found))


def test_one_frame_is_no_heart_cycle() -> None:
    found = measure_cycle(ellipse(20, 10)[None], LV, PX, facts(ed=None, es=None))
    assert found.failure == "ED and ES are the same frame, 0"


def test_a_cavity_cut_by_the_border_is_noted_and_measured() -> None:
    cut = np.roll(ellipse(20, 10, size=64), 24, axis=1)
    cut[:, :20] = 0
    found = cycle(cut, ellipse(18, 8, size=64))
    assert found.failure is None
    assert found.notes == ("cavity touches the border at ED, frame 0",)
