"""Cropping, affine resampling against scipy, and the block of the source that suffices."""

from __future__ import annotations

import pickle
from threading import Thread

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, map_coordinates

from nnunetlike.training.augmentation.spatial import (
    Affine,
    Scratch,
    centre_spans,
    cut,
    generator_patch_size,
    mirror,
    resample,
    rotation_matrix,
    source_spans,
)


def by_scipy(image, label, affine, patch_size):
    grid = np.stack(np.meshgrid(*map(np.arange, patch_size), indexing="ij")).astype(float)
    shape = (len(patch_size),) + (1,) * len(patch_size)
    grid -= ((np.array(patch_size) - 1) / 2).reshape(shape)
    points = np.tensordot(affine.matrix, grid, 1)
    points += ((np.array(label.shape) - 1) / 2).reshape(shape)
    images = [
        map_coordinates(c.astype(float), points, order=3, mode="constant", cval=0) for c in image
    ]
    result = np.zeros(patch_size, label.dtype)
    for value in np.unique(label):
        share = map_coordinates((label == value).astype(float), points, order=1, cval=-1)
        result[share >= 0.5] = value
    return np.stack(images), result


def a_case(shape, channels=1, seed=0):
    rng = np.random.default_rng(seed)
    image = rng.normal(size=(channels, *shape)).astype(np.float32)
    label = np.digitize(gaussian_filter(rng.normal(size=shape), 1.5), [-0.1, 0, 0.1]) - 1
    return image, label.astype(np.int16)


@pytest.mark.parametrize(
    ("shape", "patch", "affine"),
    [
        ((20, 17, 23), (14, 12, 16), Affine((0.3, -0.5, 0.2))),
        ((20, 17, 23), (14, 12, 16), Affine((0.0, 0.0, 0.0), 0.7)),
        ((5, 4, 6), (9, 9, 9), Affine((0.5, 0.5, -0.5), 1.4)),
        ((1, 9, 8), (1, 8, 8), Affine((0.0, 0.0, 0.4), 1.1)),
        ((3, 2, 8), (4, 4, 4), Affine((0.1, 0.2, 0.4), 0.5)),
        ((30, 26), (20, 22), Affine((2.6,), 1.3)),
        ((40, 50), (12, 10), Affine((-1.0,), 0.8)),
    ],
)
def test_resampling_is_that_of_scipy(shape, patch, affine):
    image, label = a_case(shape, channels=2)
    found, found_label = resample(image, label, affine, patch)
    expected, expected_label = by_scipy(image, label, affine, patch)
    np.testing.assert_allclose(found, expected, atol=3e-6)
    np.testing.assert_array_equal(found_label, expected_label)


def test_one_angle_turns_every_slice_of_a_volume_in_its_plane():
    image, label = a_case((3, 20, 18), channels=2)
    affine = Affine((0.7,), 0.9)
    found, found_label = resample(image, label, affine, (3, 12, 14))
    for z in range(3):
        plane, plane_label = resample(image[:, z], label[z], affine, (12, 14))
        np.testing.assert_array_equal(found[:, z], plane)
        np.testing.assert_array_equal(found_label[z], plane_label)


@pytest.mark.parametrize("affine", [Affine((0.3, -0.2, 0.5), 0.7), Affine((0.0, 0.0, 0.1), 1.0)])
def test_the_block_of_the_source_suffices(affine):
    shape, patch = (70, 64, 60), (20, 24, 16)
    image, label = a_case(shape)
    spans = source_spans(affine, shape, patch)
    assert any(high - low < n for (low, high), n in zip(spans, shape, strict=True))
    whole, whole_label = resample(image, label, affine, patch)
    part, part_label = resample(
        cut(image, spans, 0), cut(label, spans, -1), affine, patch, shape, [s[0] for s in spans]
    )
    np.testing.assert_allclose(part, whole, atol=2e-6)
    np.testing.assert_array_equal(part_label, whole_label)


def test_outside_the_source_the_image_and_the_label_are_zero():
    image, label = np.ones((1, 4, 4), np.float32), np.full((4, 4), 2, np.int16)
    found, found_label = resample(image, label, Affine((0.0,), 2.0), (4, 4))
    inside = np.zeros((4, 4), bool)
    inside[1:3, 1:3] = True
    np.testing.assert_allclose(found[0], inside, atol=1e-6)
    np.testing.assert_array_equal(found_label, 2 * inside)


def test_of_two_labels_with_half_a_voxel_each_the_larger_wins():
    label = np.array([[1, 3], [1, 3]], np.int16)
    _, found = resample(np.zeros((1, 2, 2), np.float32), label, Affine((0.0,)), (1, 1))
    assert found.item() == 3


def test_no_label_wins_with_less_than_half():
    label = np.array([[1, 2], [3, 4]], np.int16)
    _, found = resample(np.zeros((1, 2, 2), np.float32), label, Affine((0.0,)), (1, 1))
    assert found.item() == 0


def test_a_quarter_turn_turns_an_image_by_ninety_degrees():
    image, label = a_case((9, 9))
    found, found_label = resample(image, label, Affine((np.pi / 2,)), (9, 9))
    inner = slice(1, -1)  # rounding puts some border voxels outside
    turned, turned_label = np.rot90(image[0]), np.rot90(label)
    np.testing.assert_allclose(found[0][inner, inner], turned[inner, inner], atol=1e-5)
    np.testing.assert_array_equal(found_label[inner, inner], turned_label[inner, inner])


def test_rotations_are_orthonormal_and_compose_in_the_order_of_the_axes():
    a, b, c = 0.3, -0.7, 1.1
    whole = rotation_matrix((a, b, c))
    np.testing.assert_allclose(whole @ whole.T, np.eye(3), atol=1e-12)
    steps = [rotation_matrix(t) for t in ((a, 0, 0), (0, b, 0), (0, 0, c))]
    np.testing.assert_allclose(steps[0] @ steps[1] @ steps[2], whole, atol=1e-12)


def test_the_centre_crop_takes_the_lower_middle_and_may_reach_outside():
    assert centre_spans((9, 8, 5), (6, 8, 8)) == ((1, 7), (0, 8), (-2, 6))


def test_a_cut_outside_the_array_is_filled_and_the_array_stays():
    array = np.arange(6).reshape(1, 2, 3)
    assert cut(array, ((-1, 1), (2, 5)), 9).tolist() == [[[9, 9, 9], [2, 9, 9]]]
    assert cut(array, ((4, 6), (0, 1)), 9).tolist() == [[[9], [9]]]
    part = cut(array, ((0, 2), (0, 3)), 9)
    part[:] = -1
    assert array.max() == 5


def test_the_generator_patch_of_a_cube_turned_by_30_degrees():
    # 128 * (cos 30° + sin 30°) = 174.85; / 0.85 = 205.7
    assert generator_patch_size((128, 128, 128), [np.pi / 6] * 3) == (205, 205, 205)


def test_mirroring_twice_gives_the_image_back():
    image, _ = a_case((4, 5, 6), channels=2)
    for axes in [(), (0,), (1, 2), (0, 1, 2)]:
        twice = mirror(mirror(image, axes, lead=1), axes, lead=1)
        np.testing.assert_array_equal(twice, image)
    np.testing.assert_array_equal(mirror(image, (0,), lead=1), image[:, ::-1])


def test_memory_for_coefficients_is_used_again_by_larger_and_smaller_patches() -> None:
    scratch, affine = Scratch(), Affine((0.2, -0.1, 0.3), 0.9)
    for seed, shape in enumerate([(12, 13, 14), (20, 21, 22), (9, 8, 7)]):
        image, label = a_case(shape, channels=2, seed=seed)
        found, found_label = resample(image, label, affine, (8, 8, 8), scratch=scratch)
        expected, expected_label = resample(image, label, affine, (8, 8, 8))
        np.testing.assert_array_equal(found, expected)
        np.testing.assert_array_equal(found_label, expected_label)
    assert scratch.array((5,)).base is scratch.array((6, 7)).base


def test_threads_do_not_share_memory_for_coefficients() -> None:
    scratch, found = Scratch(), []
    threads = [Thread(target=lambda: found.append(scratch.array((4,)))) for _ in range(2)]
    for thread in threads:
        thread.start()
        thread.join()
    assert not np.shares_memory(*found)
    assert not np.shares_memory(pickle.loads(pickle.dumps(scratch)).array((4,)), found[0])
