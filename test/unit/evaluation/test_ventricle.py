from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nnunetlike.data.imageio import format_of
from nnunetlike.evaluation.ventricle import (
    NoVentricleError,
    Structures,
    Ventricle,
    measure_ventricle,
)

BINARY = Structures(cavity=1)
ALL = Structures(cavity=1, myocardium=2, atrium=3)
SQUARE = (1.0, 1.0)


def ellipse(
    semi: tuple[float, float], angle: float = 0.0, *, size: int = 256,
    spacing: tuple[float, float] = SQUARE, centre: tuple[float, float] | None = None,
) -> Any:  # fmt: skip
    """Return an ellipse with its long axis (semi[0]) along H, turned; all in units of length."""
    shape = tuple(round(size / s) for s in spacing)
    middle = centre or (size / 2 + 0.2, size / 2 - 0.3)
    y, x = (
        (np.arange(n) * s - c).reshape(-1, 1) if axis == 0 else (np.arange(n) * s - c)
        for axis, (n, s, c) in enumerate(zip(shape, spacing, middle, strict=True))
    )
    along = math.cos(angle) * y + math.sin(angle) * x
    across = -math.sin(angle) * y + math.cos(angle) * x
    return (along / semi[0]) ** 2 + (across / semi[1]) ** 2 < 1


def heart(scale: float = 1.0, tilt: float = 0.0) -> tuple[Any, float]:
    """Return LV, MYO and LA of an ellipse cut by a mitral plane, and the plane's height."""
    y, x = np.mgrid[:256, :256] - 128.0
    plane = math.cos(tilt) * y + math.sin(tilt) * x
    above = plane < 25 * scale
    cavity = ellipse((80 * scale, 40 * scale), centre=(128, 128)) & above
    muscle = ellipse((92 * scale, 52 * scale), centre=(128, 128)) & above & ~cavity
    atrium = ellipse((50 * scale, 45 * scale), centre=(160, 128)) & ~above
    return (cavity + 2 * muscle + 3 * atrium).astype(np.uint8), 25 * scale


def disc_volume(v: Ventricle) -> float:
    return math.pi / 4 * v.length / 20 * sum(d * d for d in v.diameters)


@pytest.mark.parametrize("angle", [0.0, 0.3, 1.0, math.pi / 2])
@pytest.mark.parametrize("semi", [(90, 45), (60, 40), (60, 52), (30, 15)])
def test_24_an_ellipse_has_its_long_axis_and_its_diameters(
    semi: tuple[float, float], angle: float
) -> None:
    found = measure_ventricle(ellipse(semi, angle).astype(np.uint8), BINARY, SQUARE)
    assert found.length == pytest.approx(2 * semi[0], rel=0.015)
    assert found.area == pytest.approx(math.pi * semi[0] * semi[1], rel=0.01)
    levels = (np.arange(20) + 0.5) / 10 - 1
    exact = 2 * semi[1] * np.sqrt(1 - levels**2)
    np.testing.assert_allclose(found.diameters, exact, atol=0.06 * semi[1] + 1.5)
    assert disc_volume(found) == pytest.approx(4 / 3 * math.pi * semi[0] * semi[1] ** 2, rel=0.02)


@pytest.mark.parametrize("structures", [ALL, BINARY])
@pytest.mark.parametrize("tilt", [0.0, 0.2, 0.35])
def test_the_long_axis_runs_from_the_middle_of_the_mitral_plane_to_the_apex(
    structures: Structures, tilt: float
) -> None:
    label, plane = heart(tilt=tilt)
    if structures == BINARY:
        label = label * (label == 1)
    found = measure_ventricle(label, structures, SQUARE)
    assert found.base == ("myocardium" if structures == ALL else "chord")
    assert found.length == pytest.approx(80 + plane, rel=0.02)
    assert max(found.diameters) == pytest.approx(80, rel=0.02)


def test_the_wall_is_the_contour_without_the_mitral_plane() -> None:
    label, plane = heart()
    theta = np.linspace(0, 2 * math.pi, 200001)
    y, x = -80 * np.cos(theta), 40 * np.sin(theta)
    steps = np.hypot(np.diff(y), np.diff(x))
    exact = steps[y[1:] < plane].sum()
    for structures in (ALL, BINARY):
        found = measure_ventricle(label * (label <= 1) if structures == BINARY else label,
                                  structures, SQUARE)  # fmt: skip
        assert found.wall == pytest.approx(exact, rel=0.02)


def test_the_atrium_tells_the_mitral_plane_from_a_hole_in_the_myocardium() -> None:
    label, plane = heart()
    gap = label.copy()
    gap[:60][gap[:60] == 2] = 0  # no muscle around the apex, wider than the mitral plane
    found = measure_ventricle(gap, ALL, SQUARE)
    assert found.length == pytest.approx(80 + plane, rel=0.02)


def test_muscle_all_around_leaves_the_mitral_plane_to_the_shape() -> None:
    cavity = ellipse((60, 30))
    label = (cavity + 2 * (ellipse((70, 40)) & ~cavity)).astype(np.uint8)
    found = measure_ventricle(label, ALL, SQUARE)
    assert found.base == "chord" and found.length == pytest.approx(120, rel=0.015)


def test_24_anisotropic_pixels_measure_the_same() -> None:
    apart = ellipse((90, 45), 0.5, spacing=(0.5, 1.2))
    fine = measure_ventricle(apart.astype(np.uint8), BINARY, (0.5, 1.2))
    even = measure_ventricle(ellipse((90, 45), 0.5).astype(np.uint8), BINARY, SQUARE)
    assert fine.length == pytest.approx(even.length, rel=0.01)
    assert fine.area == pytest.approx(even.area, rel=0.01)
    np.testing.assert_allclose(fine.diameters, even.diameters, atol=2)


def test_islands_and_holes_change_nothing() -> None:
    mask = ellipse((60, 30))
    spoilt = mask.copy()
    spoilt[2:8, 2:8] = True
    spoilt[120:128, 120:128] = False
    clean, dirty = (measure_ventricle(m.astype(np.uint8), BINARY, SQUARE) for m in (mask, spoilt))
    assert clean == dirty


def test_a_cavity_at_the_border_is_told() -> None:
    mask = ellipse((60, 30), centre=(128, 20))
    assert measure_ventricle(mask.astype(np.uint8), BINARY, SQUARE).at_border
    assert not measure_ventricle(ellipse((60, 30)).astype(np.uint8), BINARY, SQUARE).at_border


@pytest.mark.parametrize(("pixels", "said"), [(0, "no cavity"), (5, "cavity of 5 pixels")])
def test_what_cannot_be_measured_is_named(pixels: int, said: str) -> None:
    label = np.zeros((20, 20), np.uint8)
    label[10, 5 : 5 + pixels] = 1
    with pytest.raises(NoVentricleError, match=said):
        measure_ventricle(label, BINARY, SQUARE)


def test_a_thin_line_has_no_contour_or_a_finite_measure() -> None:
    label = np.zeros((40, 40), np.uint8)
    label[20, 2:38] = 1
    with pytest.raises(NoVentricleError, match="too thin"):
        measure_ventricle(label, BINARY, SQUARE)


@pytest.mark.parametrize("seed", range(8))
def test_any_blob_has_finite_measures(seed: int) -> None:
    rng = np.random.default_rng(seed)
    label = np.zeros((64, 64), np.uint8)
    for _ in range(6):
        top, left = rng.integers(5, 45, 2)
        label[top : top + rng.integers(4, 18), left : left + rng.integers(4, 18)] = rng.integers(
            1, 4
        )
    label[28:36, 28:36] = 1
    found = measure_ventricle(label, ALL, (1.0, 0.7))
    numbers = np.array([found.area, found.length, found.wall, *found.diameters])
    assert np.isfinite(numbers).all() and (numbers >= 0).all() and found.length > 0


@pytest.mark.parametrize(
    ("names", "found"),
    [
        ({0: "background", 1: "LV", 2: "MYO", 3: "LA", 4: "ignore"}, ALL),
        ({0: "background", 1: "la", 2: "Lv", 3: "myocardium"}, Structures(cavity=2, myocardium=3,
                                                                          atrium=1)),
        ({0: "background", 1: "LV"}, BINARY),
        ({0: "0", 1: "1", 2: "2", 3: "3"}, ALL),
        ({0: "background", 1: "thing"}, BINARY),
        ({0: "background", 1: "LA"}, None),
        ({0: "background"}, None),
    ],
)  # fmt: skip
def test_names_tell_the_structures(names: dict[int, str], found: Structures | None) -> None:
    assert Structures.of(names) == found


def test_of_real_cavities_the_flattest_end_is_where_the_myocardium_ends(shared: Path) -> None:
    """CAMUS: what the binary rule finds without muscle and atrium, against what they tell."""
    files = sorted((shared / "data" / "CAMUS_4CH").rglob("*_gt.nii.gz"))[:6]
    assert files
    for path in files:
        label, geometry = format_of(path).read_label(path)
        spacing = (geometry.spacing[1], geometry.spacing[2])
        told = measure_ventricle(label[0], ALL, spacing)
        guessed = measure_ventricle(label[0], BINARY, spacing)
        assert (told.base, guessed.base) == ("myocardium", "chord")
        assert guessed.length == pytest.approx(told.length, rel=0.01)
        assert disc_volume(guessed) == pytest.approx(disc_volume(told), rel=0.01)
        assert 40 < told.length < 100  # mm
