"""Every primitive of augmentation against batchgenerators, which nnU-Net v1 augmented with.

The library runs through its own transforms with the arguments of nnU-Net v1
(`get_moreDA_augmentation`, `default_3D_augmentation_params`). Its draws are replaced by ours, each
of which must lie in the range that it asks for. Images are noise of any offset and spread, which no
smoothness makes easy. Deviations are shares of the image's range; they come from float32 (1e-6).

Where the two differ on purpose, or could:

- A label wins a voxel with half of the linear weight, as in the library until 0.25.3, and so in v1.
  From 0.25.4 on the library takes the heaviest label, however light, and -1 outside; there the test
  compares where one label holds more than half.
- A voxel whose weights are equal but for rounding (1e-6) may be either label's.
- The parameter that nnU-Net v1 calls a variance of noise is a standard deviation, in both.
- Zooms so small that an axis would vanish keep one voxel; the library fails. v1 never draws them.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from math import pi
from typing import Any

import numpy as np
import pytest

from nnunetlike.training.augmentation import intensity, policies
from nnunetlike.training.augmentation.policies import AugmentationPolicy, Changes
from nnunetlike.training.augmentation.spatial import (
    Affine,
    centre_spans,
    cut,
    generator_patch_size,
    mirror,
    resample,
)


def library(module: str) -> Any:
    """Import a part of batchgenerators; importorskip silences what the import warns of."""
    reason = "batchgenerators is not installed: pip install -r requirements-dev.txt"
    return pytest.importorskip(f"batchgenerators.{module}", reason=reason)


noises = library("transforms.noise_transforms")
colours = library("transforms.color_transforms")
resamplings = library("transforms.resample_transforms")
spatials = library("transforms.spatial_transforms")
utilities = library("transforms.utility_transforms")
cropping = library("augmentations.crop_and_pad_augmentations")
coordinates = library("augmentations.utils")

TOLERANCE = 1e-5
"""Largest deviation, as a share of the range of the image's channel."""

TIE = 1e-6
UNUSED = 1.0
"""What the library draws for all channels before it draws brightness for each."""

RULE_OF_V1 = tuple(map(int, version("batchgenerators").split(".")[:3])) < (0, 25, 4)
SEEDS = range(6)
RIGHT = 90 / 180 * pi
ANGLE = 30 / 180 * pi
SPATIAL = {
    "patch_center_dist_from_border": None,
    "do_elastic_deform": False,
    "p_rot_per_sample": 0.2,
    "p_rot_per_axis": 1,
    "p_scale_per_sample": 0.2,
    "scale": (0.7, 1.4),
    "independent_scale_for_each_axis": False,
    "border_mode_data": "constant",
    "border_cval_data": 0,
    "border_mode_seg": "constant",
    "border_cval_seg": -1,
    "order_seg": 1,
    "random_crop": False,
}
RANGES = {"brightness": (0.75, 1.25), "contrast": (0.75, 1.25), "gamma": (0.7, 1.5)}

seeds = pytest.mark.parametrize("seed", SEEDS)
channel_counts = pytest.mark.parametrize("channels", [1, 3])
dimensions = pytest.mark.parametrize("dimension", [2, 3])


class Draws:
    """Stands in for the library's random numbers: every change fires, values come in order."""

    def __init__(self, values: Sequence[float], field: Any = None) -> None:
        self.values = deque(values)
        self.field = deque(() if field is None else field)

    def uniform(self, low: float | None = None, high: float = 1, size: None = None) -> float:
        """Return 0, which is below every probability, or the next value of a range."""
        if low is None:
            return 0.0
        value = self.values.popleft()
        assert low <= value <= high, "we drew what nnU-Net v1 would not"
        return value

    def random(self) -> float:
        """Choose the side of 1 on which the next value lies."""
        return 0.0 if self.values[0] < 1 else 0.5

    def normal(self, mean: float, sd: float, size: tuple[int, ...]) -> Any:
        field = self.field.popleft()
        assert field.shape == tuple(size)
        return mean + sd * field.astype(np.float64)


@contextmanager
def drawing(draws: Draws) -> Iterator[None]:
    """Let the library draw from `draws`, to the last value."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("uniform", "random", "normal"):
            patch.setattr(np.random, name, getattr(draws, name))
        patch.setattr(random, "uniform", draws.uniform)
        yield
    assert not draws.values and not draws.field


def theirs(
    transform: Callable[..., dict[str, Any]], image: Any, values: Sequence[float], field: Any = None
) -> Any:
    with drawing(Draws(values, field)):
        return transform(data=image[None].copy())["data"][0]


def sizes(rng: np.random.Generator, dimension: int, low: int = 6, high: int = 14) -> Any:
    return tuple(int(n) for n in rng.integers(low, high, dimension))


def noise_image(rng: np.random.Generator, channels: int, shape: Sequence[int]) -> Any:
    mean, spread = rng.uniform(-3, 3, channels), rng.uniform(0.1, 5, channels)
    values = rng.standard_normal((*shape, channels)) * spread + mean
    return np.ascontiguousarray(np.moveaxis(values, -1, 0), np.float32)


def label_map(rng: np.random.Generator, shape: Sequence[int]) -> Any:
    """Return labels of which one is frequent, so that some voxels have a clear winner."""
    return rng.choice([-1, 0, 1, 4], size=shape, p=[0.2, 0.1, 0.6, 0.1]).astype(np.int16)


def example(seed: int, channels: int, dimension: int) -> tuple[np.random.Generator, Any]:
    rng = np.random.default_rng([seed, channels, dimension])
    return rng, noise_image(rng, channels, sizes(rng, dimension))


def assert_close(ours: Any, expected: Any, image: Any, tolerance: float = TOLERANCE) -> None:
    """Compare channel by channel, relative to the range of the unchanged channel."""
    assert ours.shape == expected.shape and ours.dtype == np.float32
    for got, wanted, before in zip(ours, expected, image, strict=True):
        deviation = np.abs(got.astype(np.float64) - wanted).max() / np.ptp(before)
        assert deviation < tolerance


def per_channel(change: Callable[..., Any], image: Any, values: Sequence[float]) -> Any:
    return np.stack([change(c, value) for c, value in zip(image, values, strict=True)])


def on_either_side(rng: np.random.Generator, limits: tuple[float, float], n: int) -> list[float]:
    return [policies.either_side(limits, rng) for _ in range(n)]


def turn(rng: np.random.Generator, kind: str, limits: Sequence[float]) -> Affine:
    angles = [rng.uniform(-limit, limit) if "rotated" in kind else 0.0 for limit in limits]
    scale = policies.either_side((0.7, 1.4), rng) if "scaled" in kind else 1.0
    return Affine(tuple(angles), scale)


def placed(
    image: Any, label: Any, affine: Affine, patch: Sequence[int], kind: str, limit: float
) -> tuple[Any, Any, Any]:
    """Return the library's image, label and, per label that occurs, linear weight."""

    def transform(data: Any, seg: Any, order: int) -> tuple[Any, Any]:
        values = [*affine.angles] * ("rotated" in kind) + [affine.scale] * ("scaled" in kind)
        apply = spatials.SpatialTransform(
            patch,
            do_rotation="rotated" in kind,
            do_scale="scaled" in kind,
            order_data=order,
            **{f"angle_{axis}": (-limit, limit) for axis in "xyz"},
            **SPATIAL,
        )
        with drawing(Draws(values)):
            result = apply(data=data[None], seg=seg[None].astype(np.float32))
        return result["data"][0], result["seg"][0]

    changed, seg = transform(image, label, 3)
    masks = np.concatenate([label == value for value in np.unique(label)])
    weights, _ = transform(masks.astype(np.float64), label[:1], 1)
    return changed, seg, weights.reshape(-1, *label.shape[:1], *patch)


def assert_same_labels(ours: Any, seg: Any, weights: Any) -> None:
    """Compare labels (S, *patch) given the weights (N, S, *patch) of the N that occur."""
    heaviest = weights.max(0)
    compared = heaviest > 0.5 + TIE
    if RULE_OF_V1:
        compared |= heaviest < 0.5 - TIE
    np.testing.assert_array_equal(ours[compared], seg[compared])
    assert compared.any()


@seeds
@channel_counts
@dimensions
@pytest.mark.parametrize("kind", ["rotated", "scaled", "rotated and scaled"])
def test_rotation_and_scaling_are_batchgenerators(
    kind: str, dimension: int, channels: int, seed: int
) -> None:
    rng, image = example(seed, channels, dimension)
    label = label_map(rng, image.shape[1:])
    limit = ANGLE if dimension == 3 else pi
    affine = turn(rng, kind, [limit] * (3 if dimension == 3 else 1))
    patch = sizes(rng, dimension)
    new, new_label = resample(image, label, affine, patch)
    expected, seg, weights = placed(image, label[None], affine, patch, kind, limit)
    assert_close(new, expected, image)
    assert_same_labels(new_label[None], seg, weights)


@seeds
@channel_counts
def test_rotation_in_the_plane_of_a_volume_is_batchgenerators(channels: int, seed: int) -> None:
    """nnU-Net v1 merges channels and slices, and augments what it gets in 2D."""
    rng, image = example(seed, channels, 3)
    depth, *plane = image.shape[1:]
    label = label_map(rng, image.shape[1:])
    kind = "rotated and scaled"
    affine, patch = turn(rng, kind, [pi]), sizes(rng, 2)
    new, new_label = resample(image, label, affine, (depth, *patch))
    merged = image.reshape(-1, *plane)
    expected, seg, weights = placed(merged, label, affine, patch, kind, pi)
    assert_close(new.reshape(-1, *patch), expected, merged)
    assert_same_labels(new_label, seg, weights)


@seeds
@channel_counts
@dimensions
def test_centre_crops_and_their_padding_are_batchgenerators(
    dimension: int, channels: int, seed: int
) -> None:
    rng, image = example(seed, channels, dimension)
    label = rng.integers(-1, 3, image.shape[1:]).astype(np.int16)
    patch = sizes(rng, dimension, 3, 18)
    new, seg = cropping.center_crop(image[None], patch, label[None, None])
    spans = centre_spans(label.shape, patch)
    np.testing.assert_array_equal(cut(image, spans, 0), new[0])
    np.testing.assert_array_equal(cut(label, spans, 0), seg[0, 0])


@seeds
@dimensions
def test_generator_patch_sizes_follow_from_batchgenerators_rotations(
    dimension: int, seed: int
) -> None:
    """The formula is that of nnU-Net v1's get_patch_size; the rotations are the library's."""
    rng = np.random.default_rng([seed, dimension])
    patch = sizes(rng, dimension, 16, 320)
    angles = rng.uniform(0, pi, 3 if dimension == 3 else 1)
    corner, limited = np.array(patch), np.minimum(angles, RIGHT)
    if dimension == 3:
        turns = [coordinates.rotate_coords_3d(corner, *row) for row in np.diag(limited)]
    else:
        turns = [coordinates.rotate_coords_2d(corner, limited[0])]
    largest = np.max([corner, *np.abs(turns)], axis=0)
    assert generator_patch_size(patch, list(angles)) == tuple((largest / 0.85).astype(int))


@seeds
@channel_counts
@dimensions
def test_noise_is_batchgenerators_with_a_standard_deviation(
    dimension: int, channels: int, seed: int
) -> None:
    rng, image = example(seed, channels, dimension)
    sd = rng.uniform(0, 0.1)
    field = intensity.noise(np.zeros_like(image), 1, np.random.default_rng(seed))
    expected = theirs(noises.GaussianNoiseTransform(p_per_sample=0.1), image, [sd], field)
    assert_close(intensity.noise(image, sd, np.random.default_rng(seed)), expected, image)


@seeds
@channel_counts
@dimensions
def test_blur_is_batchgenerators(dimension: int, channels: int, seed: int) -> None:
    rng, image = example(seed, channels, dimension)
    sigmas = list(rng.uniform(0.5, 1, channels))
    blur = noises.GaussianBlurTransform(
        (0.5, 1.0), different_sigma_per_channel=True, p_per_sample=0.2, p_per_channel=0.5
    )
    expected = theirs(blur, image, sigmas)
    assert_close(per_channel(intensity.blur, image, sigmas), expected, image)


@seeds
@channel_counts
@dimensions
def test_brightness_is_batchgenerators(dimension: int, channels: int, seed: int) -> None:
    rng, image = example(seed, channels, dimension)
    factors = list(rng.uniform(*RANGES["brightness"], channels))
    brightness = colours.BrightnessMultiplicativeTransform((0.75, 1.25), p_per_sample=0.15)
    expected = theirs(brightness, image, [UNUSED, *factors])
    assert_close(per_channel(intensity.brightness, image, factors), expected, image)


@seeds
@channel_counts
@dimensions
def test_contrast_is_batchgenerators(dimension: int, channels: int, seed: int) -> None:
    rng, image = example(seed, channels, dimension)
    factors = on_either_side(rng, RANGES["contrast"], channels)
    expected = theirs(colours.ContrastAugmentationTransform(p_per_sample=0.15), image, factors)
    assert_close(per_channel(intensity.contrast, image, factors), expected, image)


@seeds
@channel_counts
@pytest.mark.parametrize(("dimension", "in_plane"), [(2, False), (3, False), (3, True)])
def test_low_resolution_is_batchgenerators(
    dimension: int, in_plane: bool, channels: int, seed: int
) -> None:
    rng, image = example(seed, channels, dimension)
    zooms = list(rng.uniform(0.5, 1, channels))
    lower = low_resolution(ignore_axes=(0,) if in_plane else None)
    ours = per_channel(
        lambda c, zoom: intensity.low_resolution(c, zoom, in_plane=in_plane), image, zooms
    )
    assert_close(ours, theirs(lower, image, zooms), image)


@seeds
@channel_counts
@dimensions
@pytest.mark.parametrize("inverted", [False, True])
def test_gamma_is_batchgenerators(inverted: bool, dimension: int, channels: int, seed: int) -> None:
    rng, image = example(seed, channels, dimension)
    exponents = on_either_side(rng, RANGES["gamma"], channels)
    bend = colours.GammaTransform((0.7, 1.5), inverted, True, retain_stats=True, p_per_sample=0.3)
    ours = per_channel(lambda c, g: intensity.gamma(c, g, inverted=inverted), image, exponents)
    assert_close(ours, theirs(bend, image, exponents), image)


@seeds
@channel_counts
@dimensions
def test_mirroring_is_batchgenerators(dimension: int, channels: int, seed: int) -> None:
    rng, image = example(seed, channels, dimension)
    label = rng.integers(-1, 3, image.shape[1:]).astype(np.int16)
    axes = [axis for axis in range(dimension) if rng.uniform() < 0.5] or [0]
    with drawing(Draws([])):
        both = spatials.MirrorTransform(tuple(axes))(
            data=image[None].copy(), seg=label[None, None].copy()
        )
    np.testing.assert_array_equal(mirror(image, axes, lead=1), both["data"][0])
    np.testing.assert_array_equal(mirror(label, axes), both["seg"][0, 0])


@seeds
@channel_counts
@dimensions
def test_what_we_draw_in_v1s_order_is_what_batchgenerators_would_do(
    dimension: int, channels: int, seed: int
) -> None:
    """Everything fires; the steps follow one another as in nnU-Net v1, labels end at 0 or more."""
    rng, image = example(seed, channels, dimension)
    label = rng.integers(-1, 3, image.shape[1:]).astype(np.int16)
    axes = tuple(range(dimension))
    changes = policies.draw(always(axes), channels, rng)
    chain = library("transforms.abstract_transforms").Compose(v1s_chain(axes))
    field = intensity.noise(np.zeros_like(image), 1, np.random.default_rng(seed))
    with drawing(Draws(drawn(changes), field)):
        both = chain(data=image[None].copy(), seg=label[None, None].astype(np.float32))
    ours = policies.change_intensities(image, changes, np.random.default_rng(seed))
    ours, new_label = policies.finish(ours, label, changes, {})
    assert_close(ours, both["data"][0], image)
    np.testing.assert_array_equal(new_label, both["seg"][0, 0])


def always(axes: tuple[int, ...]) -> AugmentationPolicy:
    """Our policy with every probability 1."""
    policy = AugmentationPolicy(angles=((-ANGLE, ANGLE),) * len(axes), mirror_axes=axes)
    return replace(policy, **{name: 1.0 for name in vars(policy) if name.endswith("probability")})


def drawn(changes: Changes) -> list[Any]:
    """What was drawn, in the order in which the library asks for it."""
    return [
        changes.noise_sd,
        *changes.blur_sigmas,
        UNUSED,
        *changes.brightness_factors,
        *changes.contrast_factors,
        *changes.zooms,
        *changes.inverted_gammas,
        *changes.gammas,
    ]


def v1s_chain(axes: tuple[int, ...]) -> list[Any]:
    """What `get_moreDA_augmentation` appends after the spatial transform."""
    return [
        noises.GaussianNoiseTransform(p_per_sample=0.1),
        noises.GaussianBlurTransform((0.5, 1.0), True, p_per_sample=0.2, p_per_channel=0.5),
        colours.BrightnessMultiplicativeTransform((0.75, 1.25), p_per_sample=0.15),
        colours.ContrastAugmentationTransform(p_per_sample=0.15),
        low_resolution(ignore_axes=None),
        colours.GammaTransform((0.7, 1.5), True, True, retain_stats=True, p_per_sample=0.1),
        colours.GammaTransform((0.7, 1.5), False, True, retain_stats=True, p_per_sample=0.3),
        spatials.MirrorTransform(axes),
        utilities.RemoveLabelTransform(-1, 0),
    ]


def low_resolution(ignore_axes: tuple[int, ...] | None) -> Any:
    return resamplings.SimulateLowResolutionTransform(
        zoom_range=(0.5, 1),
        per_channel=True,
        p_per_channel=0.5,
        order_downsample=0,
        order_upsample=3,
        p_per_sample=0.25,
        ignore_axes=ignore_axes,
    )
