from __future__ import annotations

from dataclasses import astuple

import numpy as np

from nnunetlike.preprocessing.intensities import foreground_sample, intensity_statistics


def test_every_tenth_foreground_voxel_is_sampled_from_the_first() -> None:
    channel = np.arange(60, dtype=np.float32).reshape(3, 4, 5)
    label = (channel % 2 == 1).astype(np.int16)
    label[0, 0, 0] = -1
    assert foreground_sample(channel, label).tolist() == [1, 21, 41]


def test_the_sample_of_any_label_map_is_that_of_slicing() -> None:
    random = np.random.RandomState(0)
    for run in (1, 5, 70, 200):
        label = np.repeat(random.randint(-1, 2, 40), run).astype(np.int16)
        values = random.rand(label.size).astype(np.float32)
        found = foreground_sample(values.reshape(1, 1, -1), label.reshape(1, 1, -1))
        assert np.array_equal(found, values[label > 0][::10])


def test_percentiles_and_median_are_those_of_numpy() -> None:
    random = np.random.RandomState(0)
    for size in (1, 2, 3, 100, 401, 1999):
        values = (random.standard_normal(size) * 300).astype(np.float32)
        found = intensity_statistics(values)
        low, high = np.percentile(values.astype(np.float64), (0.5, 99.5))
        assert (found.percentile_00_5, found.percentile_99_5) == (low, high)
        assert found.median == float(np.median(values))


def test_without_foreground_all_statistics_are_missing() -> None:
    empty = foreground_sample(np.ones((2, 2, 2)), np.zeros((2, 2, 2), np.int16))
    assert empty.dtype == np.float32 and empty.size == 0
    assert np.isnan(astuple(intensity_statistics(empty))).all()


def test_statistics_of_a_ramp_are_those_of_the_formulae() -> None:
    found = intensity_statistics(np.arange(201, dtype=np.float32))
    assert (found.median, found.mean, found.mn, found.mx) == (100, 100, 0, 200)
    assert (found.percentile_00_5, found.percentile_99_5) == (1, 199)
    assert found.sd == np.float32(np.sqrt((201**2 - 1) / 12))
