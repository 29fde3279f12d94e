"""Patches placed by torch against those placed by the loops for the CPU."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from nnunetlike.training.augmentation import spatial
from nnunetlike.training.augmentation.policies import Changes
from nnunetlike.training.augmentation.spatial import Affine, source_spans
from nnunetlike.training.device_augmentation import placement
from nnunetlike.training.device_augmentation.orders import PatchOrder

AFFINES = [
    ((20, 17, 23), (14, 12, 16), Affine((0.3, -0.5, 0.2))),
    ((20, 17, 23), (14, 12, 16), Affine((0.3, -0.5, 0.2), 1.3)),
    ((20, 17, 23), (14, 12, 16), Affine((0.0, 0.0, 0.0), 0.7)),
    ((5, 4, 6), (9, 9, 9), Affine((0.5, 0.5, -0.5), 1.4)),
    ((5, 4, 6), (9, 9, 9), Affine((0.0, 0.0, 0.0), 1.4)),
    ((1, 9, 8), (1, 8, 8), Affine((0.0, 0.0, 0.4), 1.1)),
    ((3, 2, 8), (4, 4, 4), Affine((0.0, 0.0, 0.0), 0.5)),
    ((4, 30, 26), (4, 20, 22), Affine((2.6,), 1.3)),
    ((4, 30, 26), (4, 20, 22), Affine((0.0,), 0.8)),
    ((40, 50), (12, 10), Affine((-1.0,), 0.8)),
]


def a_case(shape, channels, seed=0):
    rng = np.random.default_rng(seed)
    image = rng.normal(size=(channels, *shape)).astype(np.float32)
    smooth = gaussian_filter(rng.normal(size=shape), 1.5)
    return image, (np.digitize(smooth, [-0.2, -0.05, 0.05]) - 1).astype(np.int16)


def both(shape, patch, affine, channels=2):
    """The patch by the loops and by torch, each of the block that it depends on."""
    image, label = a_case(shape, channels)
    axes = len(affine.matrix)
    spans = source_spans(affine, shape[-axes:], patch[-axes:])
    spans = [(0, n) for n in shape[: len(shape) - axes]] + list(spans)
    inside = tuple(slice(*span) for span in spans)
    image, label = image[(slice(None), *inside)], label[inside]
    origin = tuple(low for low, _ in spans)
    expected = spatial.resample(image, label, affine, patch, shape=shape, origin=origin)
    order = PatchOrder(
        changes=Changes(affine=affine), patch_size=patch, source=shape, origin=origin
    )
    found = placement.placed(torch.from_numpy(image.copy()), torch.from_numpy(label.copy()), order)
    return [a.numpy() for a in found], expected


@pytest.mark.parametrize(("shape", "patch", "affine"), AFFINES)
def test_images_are_those_of_the_cpu(shape, patch, affine):
    (found, _), (expected, _) = both(shape, patch, affine)
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.ptp(expected))


@pytest.mark.parametrize(("shape", "patch", "affine"), AFFINES)
def test_labels_are_those_of_the_cpu(shape, patch, affine):
    (_, found), (_, expected) = both(shape, patch, affine)
    assert found.dtype == np.int16
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("affine", [Affine((0.3, -0.5, 0.2), 1.2), Affine((0.4,))])
def test_a_patch_may_be_gathered_in_pieces(affine, monkeypatch):
    whole = both((9, 12, 11), (9, 8, 10), affine)[0]
    monkeypatch.setattr(placement, "POINTS", 50)
    pieces = both((9, 12, 11), (9, 8, 10), affine)[0]
    for a, b in zip(whole, pieces, strict=True):
        np.testing.assert_array_equal(a, b)


def test_labels_with_equal_weight_are_the_larger_one():
    label = np.zeros((4, 4, 4), np.int16)
    label[2:] = 3
    order = PatchOrder(
        changes=Changes(affine=Affine((0.0, 0.0, 0.0))),
        patch_size=(3, 4, 4), source=(4, 4, 4), origin=(0, 0, 0),
    )  # fmt: skip
    _, found = placement.placed(torch.zeros(1, 4, 4, 4), torch.from_numpy(label), order)
    np.testing.assert_array_equal(found.numpy()[:, 0, 0], [0, 3, 3])
