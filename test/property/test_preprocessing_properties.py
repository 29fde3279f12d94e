"""What holds for any array: resampling against slow formulas, round trips of cropping."""

from __future__ import annotations

import numpy as np
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from scipy import ndimage

from nnunetlike.preprocessing.cropping import (
    EMPTY,
    crop_to_nonzero,
    flood_surroundings,
    present_labels,
    uncrop,
)
from nnunetlike.preprocessing.label_export import resampled_argmax
from nnunetlike.preprocessing.label_resampling import resample_label
from nnunetlike.preprocessing.resampling import resample_image

few = settings(max_examples=25, deadline=None)
sizes = st.tuples(*[st.integers(1, 9)] * 3)
seeds = st.integers(0, 2**31)
axes = st.sampled_from([None, 0, 1, 2])


def slow_resize(image: np.ndarray, shape: tuple[int, ...], order: int) -> np.ndarray:
    """Resize in double precision with SciPy and clip, as scikit-image's `resize` does."""
    factors = [new / old for old, new in zip(image.shape, shape, strict=True)]
    resized = ndimage.zoom(
        image.astype(np.float64), factors, order=order, mode="nearest", grid_mode=True
    )
    return np.clip(resized, image.min(), image.max())


@few
@given(old=sizes, new=sizes, order=st.sampled_from([0, 1, 3]), seed=seeds)
def test_images_equal_those_of_scipy(
    old: tuple[int, ...], new: tuple[int, ...], order: int, seed: int
) -> None:
    image = np.random.default_rng(seed).normal(1000, 5, (2, *old)).astype(np.float32)
    found = resample_image(image, new, order=order)
    for channel, source in zip(found, image, strict=True):
        tolerance = 1e-6 * np.ptp(source) + np.spacing(np.float32(1000))
        np.testing.assert_allclose(channel, slow_resize(source, new, order), rtol=0, atol=tolerance)


@few
@given(old=sizes, new=sizes, order=st.sampled_from([0, 1, 3]), axis=st.integers(0, 2), seed=seeds)
def test_a_separate_axis_shows_each_slice_resized_and_clipped(
    old: tuple[int, ...], new: tuple[int, ...], order: int, axis: int, seed: int
) -> None:
    image = np.random.default_rng(seed).normal(size=old)
    found = np.moveaxis(resample_image(image[None], new, order=order, axis=axis)[0], axis, 0)
    slices = np.moveaxis(image, axis, 0)
    plane = tuple(n for i, n in enumerate(new) if i != axis)
    for index, shown in enumerate(found):
        nearest = int((2 * index + 1) * old[axis] // (2 * new[axis]))
        expected = slow_resize(slices[nearest], plane, order) if old != new else slices[nearest]
        np.testing.assert_allclose(shown, expected, rtol=0, atol=1e-12)


@few
@given(old=sizes, new=sizes, labels=st.integers(1, 6), seed=seeds)
def test_labels_equal_the_slow_vote_of_masks(
    old: tuple[int, ...], new: tuple[int, ...], labels: int, seed: int
) -> None:
    label = np.random.default_rng(seed).integers(-1, labels, old).astype(np.int16)
    expected, tied = np.zeros(new, np.int16), np.zeros(new, bool)
    for value in np.unique(label):
        share = slow_resize((label == value).astype(np.float64), new, 1)
        expected[share >= 0.5] = value
        tied |= np.abs(share - 0.5) < 1e-12  # which way these go is a matter of the last bit
    found = resample_label(label, new)
    if old == new:
        expected = label
    np.testing.assert_array_equal(np.where(tied, found, expected), found)
    assert np.isin(found[tied], [0, *np.unique(label)]).all()


@few
@given(
    old=sizes,
    new=sizes,
    order=st.sampled_from([0, 1, 3]),
    axis=axes,
    order_z=st.sampled_from([0, 1]),
    classes=st.integers(1, 7),
    half=st.booleans(),
    seed=seeds,
)
@example(
    old=(2, 8, 8), new=(9, 5, 1), order=3, axis=1, order_z=1, classes=3, half=True, seed=1121
)  # nearly a tie
def test_the_exported_label_is_the_argmax_of_resampled_probabilities(
    old: tuple[int, ...],
    new: tuple[int, ...],
    order: int,
    axis: int | None,
    order_z: int,
    classes: int,
    half: bool,
    seed: int,
) -> None:
    values = np.random.default_rng(seed).random((classes, *old)).astype(np.float32)
    values = values.astype(np.float16) if half else values
    manner = {"order": order, "axis": axis, "order_z": order_z}
    found = resampled_argmax(values, new, **manner)
    slow = resample_image(values.astype(np.float64), new, **manner)
    won = np.take_along_axis(slow, found[None].astype(np.int64), axis=0)[0]
    assert np.all(won >= slow.max(axis=0) - 1e-6)
    assert np.mean(found == slow.argmax(axis=0)) > 0.99 or found.size < 100


@few
@given(old=sizes, new=sizes, axis=axes, classes=st.integers(1, 4), seed=seeds)
def test_the_exported_region_is_the_last_above_one_half(
    old: tuple[int, ...], new: tuple[int, ...], axis: int | None, classes: int, seed: int
) -> None:
    values = np.random.default_rng(seed).random((classes, *old)).astype(np.float32)
    regions = [3, 1, 300, 2][:classes]
    found = resampled_argmax(values, new, axis=axis, regions=regions)
    slow = resample_image(values.astype(np.float64), new, order=1, axis=axis)
    expected = np.zeros(new, np.int64)
    for region, channel in zip(regions, slow, strict=True):
        expected[channel > 0.5] = region
    sure = np.all(np.abs(slow - 0.5) > 1e-6, axis=0)
    np.testing.assert_array_equal(found[sure], expected[sure])


@few
@given(shape=sizes, share=st.floats(0.05, 0.95), seed=seeds)
def test_filled_holes_are_those_of_scipy(shape: tuple[int, ...], share: float, seed: int) -> None:
    body = np.random.default_rng(seed).random(shape) < share
    mask = body.astype(np.uint8)
    flood_surroundings(mask)
    np.testing.assert_array_equal(np.isin(mask, (EMPTY, 1)), ndimage.binary_fill_holes(body))


@few
@given(shape=sizes, seed=seeds)
def test_a_cropped_label_returns_to_its_place(shape: tuple[int, int, int], seed: int) -> None:
    random = np.random.default_rng(seed)
    label = random.integers(0, 3, shape).astype(np.int16)
    image = np.where(label > 0, 7.5, 0)[None]
    assume(label.any())
    cropped = crop_to_nonzero(image, label)
    back = uncrop(cropped.label, cropped.box, shape)
    np.testing.assert_array_equal(np.maximum(back, 0), label)
    window = tuple(slice(*side) for side in cropped.box)
    np.testing.assert_array_equal(cropped.image, image[(slice(None), *window)])


@few
@given(shape=sizes, seed=seeds)
def test_present_labels_are_the_unique_values(shape: tuple[int, ...], seed: int) -> None:
    label = np.random.default_rng(seed).integers(-3, 40, shape).astype(np.int16)
    assert list(present_labels(label)) == np.unique(label).tolist()
