"""What a cascade's second stage gets as channels, and how that is augmented."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage
from skimage import morphology

from nnunetlike.core.errors import ShapeError
from nnunetlike.data.previous_stage import PreviousStage, one_hot
from nnunetlike.data.record import CaseRecord
from nnunetlike.data.store import CaseStore
from nnunetlike.plans.plans import StagePlan
from nnunetlike.plans.topology import Topology
from nnunetlike.training.augmentation.cascade import (
    CascadePolicy,
    change_shape,
    grown,
    remove_component,
    shrunk,
    spoil,
)
from nnunetlike.training.augmentation.policies import policy_for
from nnunetlike.training.sources.patches import PatchSource

SHAPE = (10, 20, 24)
UNSPOILT = CascadePolicy(morphology_probability=0, removal_probability=0)


def a_stage(*, flat: bool) -> StagePlan:
    return StagePlan(
        spacing=(1.0,) * 3, original_spacing=(1.0,) * 3, median_shape=SHAPE, patch_size=(6, 12, 12),
        batch_size=2, dummy_2d_augmentation=flat, topology=Topology.of([], [[3] * 3]),
        num_pool_per_axis=(0,) * 3,
    )  # fmt: skip


@pytest.fixture
def store(tmp_path: Path) -> CaseStore:
    """Two cases; what the previous stage has found of them is their label."""
    made, previous = CaseStore(tmp_path), PreviousStage(tmp_path / "previous")
    for number, case in enumerate("ab"):
        rng = np.random.default_rng(number)
        label = ndimage.zoom(rng.integers(0, 4, (3, 5, 6)), (10 / 3, 4, 4), order=0)
        record = CaseRecord(
            original_size=SHAPE, original_spacing=(1.0,) * 3, image_files=(), label_file=None,
            itk_origin=(0.0,) * 3, itk_spacing=(1.0,) * 3,
            itk_direction=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0),
            crop_box=((0, SHAPE[0]), (0, SHAPE[1]), (0, SHAPE[2])), classes=(0.0, 1.0, 2.0, 3.0),
            size_after_cropping=SHAPE,
            class_locations={c: np.argwhere(label == c) for c in (1, 2, 3)},
        )  # fmt: skip
        image = rng.normal(size=SHAPE)
        made.write(case, np.stack([image, label]).astype(np.float32), record)
        previous.write(case, label.astype(np.uint8))
    return made


def a_source(store: CaseStore, *, augmented: bool, flat: bool = False) -> PatchSource:
    stage = a_stage(flat=flat)
    return PatchSource(
        store, ("a", "b"), stage, (1, 2, 3), batch_size=4, seed=3,
        augmentation=policy_for(stage) if augmented else None, spoiling=UNSPOILT,
        previous=PreviousStage(store.folder / "previous"),
    )  # fmt: skip


@pytest.mark.parametrize("unpacked", [True, False])
@pytest.mark.parametrize(("augmented", "flat"), [(False, False), (True, False), (True, True)])
def test_a_patch_carries_what_was_found_where_the_patch_lies(
    store: CaseStore, augmented: bool, flat: bool, unpacked: bool
) -> None:
    """Turned, scaled and mirrored like the label, which is what was found here."""
    source = a_source(store, augmented=augmented, flat=flat)
    for case in "ab" if unpacked else "":
        assert source.previous is not None
        source.previous.unpack(case)
    for index in range(8):
        made = source.batch(index)
        assert made["image"].shape == (4, 1 + 3, 6, 12, 12)
        for image, label in zip(made["image"], made["label"], strict=True):
            assert np.array_equal(image[1:], one_hot(label, (1, 2, 3)))


def test_validation_patches_are_not_spoilt(store: CaseStore) -> None:
    always = CascadePolicy(morphology_probability=1, removal_probability=1)
    plain = a_source(store, augmented=False)
    assert np.array_equal(
        plain.batch(0)["image"], replace(plain, spoiling=always).batch(0)["image"]
    )
    trained = a_source(store, augmented=True)
    spoilt = replace(trained, spoiling=always).batch(0)["image"]
    assert not np.array_equal(trained.batch(0)["image"][:, 1:], spoilt[:, 1:])
    assert np.array_equal(trained.batch(0)["image"][:, :1], spoilt[:, :1])


def test_segmentations_of_another_grid_are_refused(store: CaseStore) -> None:
    source = a_source(store, augmented=False)
    assert source.previous is not None
    source.previous.write("a", np.zeros((5, 5, 5), np.uint8))
    with pytest.raises(ShapeError, match="planned anew since"):
        [source.batch(index) for index in range(8)]


@pytest.mark.parametrize("radius", [1.0, 1.5, 2.7, 4.0])
def test_growing_and_shrinking_are_those_by_a_ball(radius: float) -> None:
    rng = np.random.default_rng(int(10 * radius))
    mask = ndimage.gaussian_filter(rng.normal(size=(14, 15, 16)), 1.5) > 0.05
    reach = int(radius)
    grid = np.mgrid[-reach : reach + 1, -reach : reach + 1, -reach : reach + 1]
    ball = (grid**2).sum(0) <= radius**2
    assert np.array_equal(grown(mask, radius), morphology.dilation(mask, ball))
    expected = ndimage.binary_erosion(mask, ball, border_value=1)
    assert np.array_equal(shrunk(mask, radius), expected)


def test_what_a_label_gains_the_others_lose() -> None:
    channels = np.zeros((2, 5, 9, 9), np.float32)
    channels[0, 2, 4, 2:4] = 1
    channels[1, 2, 4, 4:7] = 1
    change_shape(channels, 0, "dilate", 1.0)
    assert channels[0, 2, 4].tolist() == [0, 1, 1, 1, 1, 0, 0, 0, 0]
    assert channels[1, 2, 4].tolist() == [0, 0, 0, 0, 0, 1, 1, 0, 0]
    change_shape(channels, 0, "erode", 3.0)
    assert channels[0].sum() == 0
    assert channels[1, 2, 4].tolist() == [0, 0, 0, 0, 0, 1, 1, 0, 0]


def test_a_small_component_is_removed_and_a_large_one_stays() -> None:
    """In nnU-Net v1 two arguments are swapped, so that nothing is ever removed."""
    channel = np.zeros((10, 10, 10), np.float32)
    channel[:4] = 1
    channel[7, 7, 7] = channel[9, 0, 0] = 1
    rng = np.random.default_rng(0)
    for left in (401, 400, 400):
        remove_component(channel, 0.15, rng)
        assert channel.sum() == left


def test_spoiling_is_a_function_of_the_generator_and_leaves_its_argument() -> None:
    channels = one_hot(np.random.default_rng(0).integers(0, 3, (6, 7, 8)), (1, 2))
    before = channels.copy()
    always = CascadePolicy(morphology_probability=1, removal_probability=1)
    one, two = (spoil(channels, always, np.random.default_rng(4)) for _ in range(2))
    assert np.array_equal(one, two)
    assert np.array_equal(channels, before)
    assert set(np.unique(one)) <= {0, 1}
    assert (one.sum(0) <= 1).all()
