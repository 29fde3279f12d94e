"""v1's defaults by kind of patch, and that draws keep to them."""

from __future__ import annotations

from dataclasses import fields, replace
from math import pi

import numpy as np
import pytest

from nnunetlike.plans.plans import StagePlan
from nnunetlike.plans.topology import Topology
from nnunetlike.training.augmentation.policies import (
    AugmentationPolicy,
    Changes,
    change_intensities,
    draw,
    either_side,
    finish,
    policy_for,
)


def a_stage(patch, dummy=False):
    n = len(patch)
    return StagePlan(
        spacing=(1.0,) * 3,
        original_spacing=(1.0,) * 3,
        median_shape=(64,) * 3,
        patch_size=patch,
        batch_size=2,
        dummy_2d_augmentation=dummy,
        topology=Topology.of([], [[3] * n]),
        num_pool_per_axis=(0,) * n,
    )


@pytest.mark.parametrize(
    ("patch", "dummy", "angles", "in_plane", "generator"),
    [
        ((128, 128, 128), False, [pi / 6] * 3, False, (205, 205, 205)),
        ((16, 128, 128), True, [pi], True, (16, 150, 150)),
        ((16, 128, 64), True, [pi], True, (16, 150, 150)),
        ((128, 128), False, [pi], False, (150, 150)),
        ((128, 64), False, [pi / 12], False, (164, 75)),
        ((96, 64), False, [pi], False, (112, 112)),  # 1.5 is not above 1.5
    ],
)
def test_defaults_of_v1_by_kind_of_patch(patch, dummy, angles, in_plane, generator):
    policy = policy_for(a_stage(patch, dummy))
    assert policy.angles == tuple((-a, a) for a in angles)
    assert policy.in_plane is in_plane
    assert policy.mirror_axes == tuple(range(len(patch)))
    assert policy.generator_patch_size(patch) == generator


def test_transforms_fire_as_often_as_v1s():
    policy = policy_for(a_stage((32, 32, 32)))
    rng = np.random.default_rng(0)
    drawn = [draw(policy, 2, rng) for _ in range(4000)]
    both_channels = [c for d in drawn for c in d.blur_sigmas]
    expected = {
        "affine": (0.36, [d.affine is not None for d in drawn]),
        "noise_sd": (0.1, [d.noise_sd is not None for d in drawn]),
        "blur": (0.2, [bool(d.blur_sigmas) for d in drawn]),
        "blurred channels": (0.5, [c is not None for c in both_channels]),
        "brightness": (0.15, [bool(d.brightness_factors) for d in drawn]),
        "contrast": (0.15, [bool(d.contrast_factors) for d in drawn]),
        "zoom": (0.25, [bool(d.zooms) for d in drawn]),
        "zoomed channels": (0.5, [c is not None for d in drawn for c in d.zooms]),
        "inverted gamma": (0.1, [bool(d.inverted_gammas) for d in drawn]),
        "gamma": (0.3, [bool(d.gammas) for d in drawn]),
        "mirror": (0.5, [axis in d.mirrored for d in drawn for axis in range(3)]),
        "shrinks": (0.5, [d.affine.scale < 1 for d in drawn if d.affine and d.affine.scale != 1]),
    }
    for name, (probability, fired) in expected.items():
        slack = 4 * np.sqrt(probability * (1 - probability) / len(fired))
        assert np.mean(fired) == pytest.approx(probability, abs=slack), name


def test_parameters_stay_in_their_ranges():
    policy = policy_for(a_stage((32, 32, 32)))
    rng = np.random.default_rng(1)
    for _ in range(1000):
        drawn = draw(policy, 2, rng)
        if drawn.affine:
            assert 0.7 <= drawn.affine.scale <= 1.4
            assert max(map(abs, drawn.affine.angles)) <= pi / 6
        assert all(0.5 <= z <= 1 for z in drawn.zooms if z is not None)
        assert all(0.5 <= s <= 1 for s in drawn.blur_sigmas if s is not None)
        assert all(0.7 <= g <= 1.5 for g in (*drawn.gammas, *drawn.inverted_gammas))
        assert all(0.75 <= f <= 1.25 for f in (*drawn.contrast_factors, *drawn.brightness_factors))


def test_a_range_on_one_side_of_one_is_drawn_within():
    rng = np.random.default_rng(2)
    assert all(1.1 <= either_side((1.1, 1.3), rng) <= 1.3 for _ in range(50))
    assert all(either_side((0.7, 1.0), rng) <= 1.0 for _ in range(50))


def test_mirror_axes_are_a_setting():
    policy = replace(policy_for(a_stage((8, 8, 8))), mirror_axes=(1,), mirror_probability=1.0)
    assert draw(policy, 1, np.random.default_rng(0)).mirrored == (1,)


def test_nothing_drawn_changes_nothing():
    image = np.random.default_rng(0).normal(size=(2, 4, 4, 4)).astype(np.float32)
    assert change_intensities(image, Changes(), np.random.default_rng(0)) is image


def test_a_channel_without_a_parameter_stays_as_it_is():
    image = np.random.default_rng(0).normal(size=(2, 8, 8, 8)).astype(np.float32)
    changed = change_intensities(image, Changes(blur_sigmas=(None, 0.9)), np.random.default_rng(0))
    np.testing.assert_array_equal(changed[0], image[0])
    assert np.abs(changed[1] - image[1]).max() > 0.1


def test_changes_in_place_are_those_of_a_copy():
    policy = replace(
        policy_for(a_stage((8, 8, 8))),
        **{f.name: 1.0 for f in fields(AugmentationPolicy) if f.name.endswith("_probability")},
    )
    image = np.random.default_rng(0).normal(size=(2, 8, 9, 10)).astype(np.float32)
    before, changes = image.copy(), draw(policy, 2, np.random.default_rng(1))
    changed = change_intensities(image, changes, np.random.default_rng(2))
    np.testing.assert_array_equal(image, before)
    written = change_intensities(image, changes, np.random.default_rng(2), in_place=True)
    assert written is image
    np.testing.assert_array_equal(written, changed)


def test_finishing_masks_the_channels_normalised_with_a_mask_and_clears_the_label():
    image = np.ones((2, 2, 3), np.float32)
    label = np.array([[-1, 0, 2], [1, -1, 0]], np.int8)
    new, new_label = finish(image, label, Changes(mirrored=(1,)), {0: True, 1: False})
    assert new_label.tolist() == [[2, 0, 0], [0, 0, 1]]
    assert new[0].tolist() == [[1, 1, 0], [1, 0, 1]]
    assert new[1].tolist() == [[1, 1, 1], [1, 1, 1]]
    assert new.flags.c_contiguous and new_label.flags.c_contiguous
    assert (image == 1).all() and new_label.dtype == np.int16


def test_every_field_of_the_changes_is_drawn_from_the_policy():
    policy = policy_for(a_stage((8, 8, 8)))
    always = replace(
        policy,
        **{f.name: 1.0 for f in fields(policy) if f.name.endswith("_probability")},
    )
    drawn = draw(always, 3, np.random.default_rng(0))
    assert all(getattr(drawn, f.name) for f in fields(Changes))
    assert drawn == draw(always, 3, np.random.default_rng(0))
