"""What is said of a case that is far from the training cases."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from nnunetlike.data.case import CaseFiles
from nnunetlike.data.geometry import Geometry
from nnunetlike.inference.familiarity import warn_if_unfamiliar
from nnunetlike.plans.fingerprint import ChannelIntensities, IntensityStatistics
from nnunetlike.plans.plans import Plans
from nnunetlike.preprocessing.preprocessor import crop_read

Shape = tuple[int, int, int]
Spacing = tuple[float, float, float]


def _ct(low: float = -100.0, high: float = 300.0) -> ChannelIntensities:
    overall = IntensityStatistics(
        median=100, mean=100, sd=80, mn=low - 50, mx=high + 50,
        percentile_99_5=high, percentile_00_5=low,
    )  # fmt: skip
    return ChannelIntensities(overall=overall, by_case={})


@pytest.fixture
def plans(tiny_plans: Callable[[int], Plans]) -> Plans:
    """Of CT, 8 x 16 x 16 voxels of 1 to 2 x 1 x 1 mm, foreground from -100 to 300."""
    found = tiny_plans(3)
    fingerprint = replace(
        found.fingerprint,
        spacings=((1.0, 1.0, 1.0),) * 3 + ((2.0, 1.0, 1.0),) * 3,
        intensities={0: _ct()},
    )
    return replace(
        found, modalities={0: "CT"}, normalization_schemes={0: "CT"}, fingerprint=fingerprint
    )


def _said(
    plans: Plans,
    spacing: Spacing = (1.5, 1.0, 1.0),
    shape: Shape = (8, 16, 16),
    low: float = -1000.0,
    high: float = 1500.0,
) -> str:
    image = np.linspace(low, high, int(np.prod(shape)), dtype=np.float32).reshape(1, *shape)
    image[image == 0] = 1
    geometry = Geometry(shape=shape, spacing=spacing)
    cropped, record = crop_read(image, None, geometry, CaseFiles(case_id="x", images=()))
    return "; ".join(warn_if_unfamiliar("x", plans, cropped.image, record))


def test_a_case_like_the_training_is_passed_over(
    plans: Plans, caplog: pytest.LogCaptureFixture
) -> None:
    assert _said(plans) == ""
    assert _said(plans, spacing=(2.9, 0.7, 1.4)) == ""
    assert _said(plans, shape=(8, 9, 31)) == ""
    assert not caplog.records


def test_spacing_names_axis_factor_and_range(plans: Plans) -> None:
    said = _said(plans, spacing=(6.0, 1.0, 0.5), shape=(3, 16, 32))
    assert (
        "its spacing along D is 6 mm, 3 times above the largest of the training (1 to 2 mm)" in said
    )
    assert "its spacing along W is 0.5 mm, 2 times below the smallest of the training" in said
    assert "along H" not in said


def test_extent_is_compared_in_mm(plans: Plans) -> None:
    assert _said(plans, spacing=(1.0, 0.7, 0.7), shape=(16, 23, 23)) == ""
    said = _said(plans, shape=(8, 4, 48))
    assert "its extent along H is 4 mm, 4 times below the smallest" in said
    assert "its extent along W is 48 mm, 3 times above the largest" in said


@pytest.mark.parametrize(
    ("low", "high", "what"),
    [
        (0.1, 1.0, "covers 0%"),  # scaled to 0..1
        (24.0, 2500.0, "covers 69%"),  # without the offset of 1024
        (-20000.0, 25000.0, "111 times as wide"),
    ],
)
def test_intensities_of_ct_name_how_far(plans: Plans, low: float, high: float, what: str) -> None:
    said = _said(plans, low=low, high=high)
    assert what in said
    assert "(-100 to 300)" in said


def test_a_channel_of_one_value_is_named(plans: Plans) -> None:
    assert _said(plans, low=7, high=7) == "channel 0 (CT) holds 7 everywhere"


def test_nothing_is_known_of_intensities_but_those_of_ct(plans: Plans) -> None:
    mr = replace(plans, normalization_schemes={0: "nonCT"})
    assert _said(mr, low=0.1, high=1.0) == ""


def test_training_without_foreground_says_nothing_of_intensities(plans: Plans) -> None:
    fingerprint = replace(plans.fingerprint, intensities={0: _ct(float("nan"), float("nan"))})
    assert _said(replace(plans, fingerprint=fingerprint), low=0.1, high=1.0) == ""


def test_plans_without_facts_of_cases_say_nothing(plans: Plans) -> None:
    fingerprint = replace(plans.fingerprint, sizes=(), spacings=())
    assert _said(replace(plans, fingerprint=fingerprint), spacing=(90.0, 9.0, 9.0)) == ""
