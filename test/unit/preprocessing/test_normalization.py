from __future__ import annotations

import numpy as np
import pytest

from nnunetlike.core.errors import PlanError, UsageError
from nnunetlike.plans.fingerprint import ChannelIntensities, IntensityStatistics
from nnunetlike.preprocessing.normalization import normalize

WINDOW = ChannelIntensities(
    overall=IntensityStatistics(
        median=0, mean=10, sd=5, mn=-9, mx=99, percentile_00_5=0, percentile_99_5=20
    ),
    by_case={},
)
IMAGE = np.array([[-50, 0, 10, 20, 90]], np.float32)
LABEL = np.array([-1, 0, 0, 1, 0], np.int16)


def one(scheme: str, masked: bool) -> list[float]:
    found = normalize(
        IMAGE, LABEL, schemes={0: scheme}, use_mask={0: masked}, intensities={0: WINDOW}
    )
    assert found.dtype == np.float32
    return found[0].tolist()


def test_ct_clips_to_the_window_and_standardises_by_the_data_set() -> None:
    assert one("CT", masked=False) == [-2, -2, 0, 2, 2]
    assert one("CT", masked=True) == [0, -2, 0, 2, 2]


def test_other_images_are_standardised_by_themselves() -> None:
    inside = np.array([0, 10, 20, 90], np.float32)
    expected = (inside - inside.mean()) / inside.std()
    assert one("nonCT", masked=True) == pytest.approx([0, *expected])
    assert np.mean(one("nonCT", masked=False)) == pytest.approx(0, abs=1e-6)


def test_no_normalisation_leaves_the_image() -> None:
    assert one("noNorm", masked=True) == IMAGE[0].tolist()


def test_v2s_schemes_bring_ranges_to_0_and_1_whatever_the_mask() -> None:
    expected = [(value + 50) / 140 for value in (-50, 0, 10, 20, 90)]
    assert one("to01", masked=True) == pytest.approx(expected)
    assert one("rgbTo01", masked=True) == pytest.approx([v / 255 for v in IMAGE[0].tolist()])


def test_a_constant_image_becomes_zero() -> None:
    found = normalize(
        np.full((1, 4), 7.0),
        np.zeros(4, np.int16),
        schemes={0: "nonCT"},
        use_mask={0: False},
        intensities=None,
    )
    assert found.tolist() == [[0, 0, 0, 0]]


def test_the_image_itself_is_untouched() -> None:
    before = IMAGE.copy()
    one("CT", masked=True)
    np.testing.assert_array_equal(IMAGE, before)


def test_missing_schemes_and_intensities_are_named() -> None:
    with pytest.raises(UsageError, match="channel 0 has no normalisation scheme"):
        normalize(IMAGE, LABEL, schemes={}, use_mask={}, intensities=None)
    with pytest.raises(PlanError, match="no intensities"):
        normalize(IMAGE, LABEL, schemes={0: "CT"}, use_mask={0: False}, intensities=None)


@pytest.mark.parametrize("scheme", ["CT", "CT2", "nonCT"])
def test_an_image_without_variation_becomes_zero(scheme: str) -> None:
    flat = IntensityStatistics(
        median=7, mean=7, sd=0, mn=7, mx=7, percentile_00_5=7, percentile_99_5=7
    )
    found = normalize(
        np.full((1, 5), 7, np.float32),
        LABEL,
        schemes={0: scheme},
        use_mask={0: False},
        intensities={0: ChannelIntensities(overall=flat, by_case={})},
    )
    assert found.tolist() == [[0.0] * 5]


def test_the_result_goes_where_it_is_asked_to() -> None:
    settings = {"schemes": {0: "CT"}, "use_mask": {0: False}, "intensities": {0: WINDOW}}
    expected, image = normalize(IMAGE, LABEL, **settings), IMAGE.copy()
    out = np.empty_like(image)
    assert normalize(image, LABEL, out=out, **settings) is out
    assert np.array_equal(image, IMAGE) and np.array_equal(out, expected)
    assert normalize(image, LABEL, out=image, **settings) is image
    assert np.array_equal(image, expected)
