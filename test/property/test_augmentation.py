"""What augmentation keeps, over random input."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from nnunetlike.training.augmentation.policies import AugmentationPolicy, Changes, draw, finish
from nnunetlike.training.augmentation.spatial import (
    Affine,
    centre_spans,
    cut,
    mirror,
    resample,
    source_spans,
)

sizes = st.integers(1, 12)
shapes = st.tuples(sizes, sizes, sizes)
seeds = st.integers(0, 2**32 - 1)


@given(shape=shapes, axes=st.sets(st.integers(0, 2)), seed=seeds)
def test_mirroring_twice_is_the_identity(shape, axes, seed):
    image = np.random.default_rng(seed).normal(size=(2, *shape))
    twice = mirror(mirror(image, sorted(axes), lead=1), sorted(axes), lead=1)
    np.testing.assert_array_equal(twice, image)


@settings(deadline=None)
@given(
    shape=shapes,
    patch=shapes,
    angles=st.tuples(*[st.floats(-3.2, 3.2)] * 3),
    scale=st.floats(0.5, 2),
    seed=seeds,
)
def test_labels_are_never_invented_and_a_constant_image_stays_constant(
    shape, patch, angles, scale, seed
):
    rng = np.random.default_rng(seed)
    label = rng.choice([-1, 0, 3, 7], size=shape).astype(np.int16)
    affine = Affine(angles, scale)
    image, new = resample(np.full((1, *shape), 2.5, np.float32), label, affine, patch)
    assert set(np.unique(new)) <= {0, *np.unique(label)}
    outside = np.abs(image) < 1e-3
    assert np.abs(image[~outside] - 2.5).max(initial=0) < 1e-4
    assert not new[outside[0]].any()


@settings(deadline=None)
@given(
    shape=st.tuples(*[st.integers(1, 40)] * 2),
    patch=st.tuples(*[st.integers(1, 24)] * 2),
    angle=st.floats(-3.2, 3.2),
    scale=st.floats(0.7, 1.4),
    seed=seeds,
)
def test_the_block_read_from_disk_suffices(shape, patch, angle, scale, seed):
    rng = np.random.default_rng(seed)
    image = rng.normal(size=(1, *shape)).astype(np.float32)
    label = rng.integers(0, 3, shape).astype(np.int16)
    affine = Affine((angle,), scale)
    spans = source_spans(affine, shape, patch)
    part = resample(
        cut(image, spans, 0), cut(label, spans, -1), affine, patch, shape, [s[0] for s in spans]
    )
    whole = resample(image, label, affine, patch)
    np.testing.assert_allclose(part[0], whole[0], atol=1e-5)
    np.testing.assert_array_equal(part[1], whole[1])


@given(shape=shapes, patch=shapes)
def test_the_centre_crop_is_centred(shape, patch):
    for n, (low, high), p in zip(shape, centre_spans(shape, patch), patch, strict=True):
        assert high - low == p
        assert 0 <= (n - high) - low <= 1


@given(seed=seeds, channels=st.integers(1, 4))
def test_a_draw_is_a_function_of_the_generator(seed, channels):
    policy = AugmentationPolicy(angles=((-1, 1),) * 3, mirror_axes=(0, 1, 2))
    drawn = [draw(policy, channels, np.random.default_rng(seed)) for _ in range(2)]
    assert drawn[0] == drawn[1]
    for values in (drawn[0].blur_sigmas, drawn[0].gammas, drawn[0].zooms):
        assert len(values) in (0, channels)


@settings(deadline=None)
@given(shape=shapes, axes=st.sets(st.integers(0, 2)), seed=seeds)
def test_finished_patches_have_no_negative_label_and_count_the_same(shape, axes, seed):
    rng = np.random.default_rng(seed)
    label = rng.integers(-1, 3, shape)
    image = rng.uniform(1, 2, (2, *shape)).astype(np.float32)
    new, new_label = finish(image, label, Changes(mirrored=tuple(axes)), {1: True})
    assert new_label.min() >= 0
    assert (new_label == 2).sum() == (label == 2).sum()
    assert (new[1] == 0).sum() == (label < 0).sum() and (new[0] > 0).all()
