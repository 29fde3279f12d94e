"""Clips: which frames, which labels count, and that a batch is a function of its number."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nnunetlike.core.errors import DataError
from nnunetlike.data.record import CaseRecord
from nnunetlike.data.store import CaseStore, Form
from nnunetlike.data.video import VideoFacts
from nnunetlike.plans.plans import StagePlan, VideoPlan
from nnunetlike.plans.topology import Topology
from nnunetlike.training.augmentation.clips import FrameNoise, disturb_frames, lose_frames, speckle
from nnunetlike.training.augmentation.policies import AugmentationPolicy
from nnunetlike.training.sources.clips import ClipSource, frames_around, frames_of_cycle

FACTS = VideoFacts(patient="p", labelled_frames=(2, 9), ed=2, es=9)
STILL = AugmentationPolicy(
    angles=((0, 0),), mirror_axes=(), in_plane=True, rotation_probability=0, scale_probability=0,
    noise_probability=0, blur_probability=0, brightness_probability=0, contrast_probability=0,
    low_resolution_probability=0, inverted_gamma_probability=0, gamma_probability=0,
)  # fmt: skip
QUIET = FrameNoise(speckle_probability=0, loss_probability=0)


def a_stage(length: int = 4, sampling: str = "stride", **changes: object) -> StagePlan:
    video = VideoPlan(
        clip_length=length, memory_stride=8, network_size="small", supervision="sparse",
        frame_sampling=sampling,  # type: ignore[arg-type]
    )  # fmt: skip
    return StagePlan(
        spacing=(999.0, 1.0, 1.0), original_spacing=(999.0, 1.0, 1.0), median_shape=(12, 16, 16),
        patch_size=(16, 16), batch_size=2, dummy_2d_augmentation=False,
        topology=Topology.of([[2, 2]] * 4, [[3, 3]] * 5), num_pool_per_axis=(4, 4),
        video=replace(video, **changes),  # type: ignore[arg-type]
    )  # fmt: skip


def write_video(
    store: CaseStore, case_id: str, frames: int = 12, facts: VideoFacts = FACTS, size: int = 16
) -> None:
    """Frame t holds t + 1, but for the corner outside the sector; labelled ones have a square."""
    shape = (frames, size, size)
    image = (
        np.broadcast_to(np.arange(1, frames + 1)[:, None, None], shape).astype(np.float32).copy()
    )
    label = np.full(shape, 2, np.float32)
    for t in facts.labelled_frames:
        label[t] = 0
        label[t, 4:9, 5:11] = 1
        label[t, :3, :3] = -1
    image[:, :3, :3] = 0
    record = CaseRecord(
        original_size=shape, original_spacing=(999.0, 1.0, 1.0), image_files=(), label_file=None,
        itk_origin=(0.0,) * 3, itk_spacing=(1.0,) * 3,
        itk_direction=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0),
        crop_box=((0, frames), (0, size), (0, size)), classes=(-1.0, 0.0, 1.0, 2.0),
        size_after_cropping=shape, video=facts,
    )  # fmt: skip
    store.write(case_id, np.stack([image, label]), record)


@pytest.fixture
def store(tmp_path: Path) -> CaseStore:
    made = CaseStore(tmp_path)
    for case in "ab":
        write_video(made, case)
    return made


def a_source(store: CaseStore, *, augmented: bool = False, **changes: object) -> ClipSource:
    settings: dict[str, object] = {
        "batch_size": 3, "seed": 5, "augmented": augmented, "policy": STILL, "noise": QUIET,
        "use_mask_for_norm": {0: True},
    }  # fmt: skip
    stage = changes.pop("stage", a_stage())
    return ClipSource(store, ("a", "b"), stage, (1,), **(settings | changes))  # type: ignore[arg-type]


def shown_frames(image: np.ndarray) -> list[int]:
    return [int(frame.max()) - 1 for frame in image[0]]


def test_a_cycle_keeps_its_ends_and_needs_as_many_frames_as_the_clip() -> None:
    found = frames_of_cycle(FACTS, 4, 12)
    assert found is not None
    assert (found.frames[0], found.frames[-1], found.shown) == (2, 9, 4)
    assert frames_of_cycle(FACTS, 9, 12) is None
    assert frames_of_cycle(replace(FACTS, es=None), 4, 12) is None
    wrapped = frames_of_cycle(replace(FACTS, ed=9, es=2), 4, 12)
    assert wrapped is not None
    assert (wrapped.frames[0], wrapped.frames[-1]) == (9, 2)
    half = frames_of_cycle(replace(FACTS, ed=11, es=0), 4, 12)  # half a cycle, stored from its end
    assert half is not None
    assert (half.frames[0], half.frames[-1]) == (0, 11)


def test_a_part_of_a_video_lies_in_it_and_has_a_labelled_frame() -> None:
    rng = np.random.default_rng(0)
    steps = set()
    for _ in range(500):
        frames, length = int(rng.integers(2, 30)), int(rng.integers(1, 9))
        labelled = tuple(sorted({int(t) for t in rng.integers(0, frames, 2)}))
        facts = VideoFacts(patient="p", labelled_frames=labelled)
        found = frames_around(facts, length, frames, rng)
        assert len(found.frames) == length or frames < length
        assert all(0 <= t < frames for t in found.frames)
        assert set(labelled) & set(found.frames[: found.shown])
        steps |= set(np.diff(found.frames[: found.shown]))
    assert len(steps) > 3


def test_a_short_video_is_filled_with_its_last_frame_which_then_has_no_label(
    tmp_path: Path,
) -> None:
    store = CaseStore(tmp_path)
    facts = VideoFacts(patient="p", labelled_frames=(0, 1, 2))
    for case in "ab":
        write_video(store, case, frames=3, facts=facts)
    made = a_source(store, stage=a_stage(5)).batch(0)
    assert shown_frames(made["image"][0]) == [0, 1, 2, 2, 2]
    assert [bool((frame == 2).all()) for frame in made["label"][0]] == [False] * 3 + [True] * 2


def test_unlabelled_frames_hold_the_ignore_label_and_others_only_their_classes(
    store: CaseStore,
) -> None:
    made = a_source(store, stage=a_stage(4, "uniform_ed_es")).batch(0)
    assert shown_frames(made["image"][0]) == [2, 4, 7, 9]
    assert np.all(made["label"][:, 1:3] == 2)
    assert set(np.unique(made["label"][:, [0, 3]])) == {0, 1}


def test_frames_that_are_not_to_train_are_ignored(tmp_path: Path) -> None:
    store = CaseStore(tmp_path)
    facts = VideoFacts(patient="p", labelled_frames=tuple(range(12)), ed=2, es=9)
    for case in "ab":
        write_video(store, case, facts=facts)
    stage = a_stage(4, "uniform_ed_es", supervision="edes")
    label = a_source(store, stage=stage).batch(0)["label"]
    assert [bool((frame == 2).all()) for frame in label[0]] == [False, True, True, False]


def test_batches_are_a_function_of_seed_and_number_and_survive_pickling(store: CaseStore) -> None:
    source = a_source(store, augmented=True)
    again = pickle.loads(pickle.dumps(source))
    for index in (0, 3):
        one, two = source.batch(index), again.batch(index)
        assert np.array_equal(one["image"], two["image"])
        assert np.array_equal(one["label"], two["label"])
        assert one["case_ids"] == source.cases(index)
    assert not np.array_equal(source.batch(1)["image"][0, 0, 0], source.batch(2)["image"][0, 0, 0])


def test_clips_of_a_training_batch_have_one_random_length(store: CaseStore) -> None:
    source = a_source(store, augmented=True, stage=a_stage(6))
    lengths = {source.batch(i)["image"].shape[2] for i in range(30)}
    assert lengths == {3, 4, 5, 6}
    assert {a_source(store, stage=a_stage(6)).batch(i)["image"].shape[2] for i in range(5)} == {6}


def test_all_frames_of_a_clip_are_placed_alike(tmp_path: Path) -> None:
    store = CaseStore(tmp_path)
    facts = VideoFacts(patient="p", labelled_frames=tuple(range(4)))
    for case in "ab":
        write_video(store, case, frames=4, facts=facts)
    turns = replace(STILL, angles=((-0.5, 0.5),), rotation_probability=1.0, scale_probability=1.0)
    source = a_source(store, augmented=True, policy=turns)
    labels = [label for i in range(5) for label in source.batch(i)["label"]]
    assert all(np.array_equal(frame, label[0]) for label in labels for frame in label)
    assert len({label[0].tobytes() for label in labels}) > 5


def test_the_surroundings_of_the_sector_are_0_in_every_frame(store: CaseStore) -> None:
    noisy = replace(STILL, noise_probability=1.0, noise_sd=(1.0, 1.0))
    made = a_source(store, augmented=True, policy=noisy).batch(0)
    assert np.all(made["image"][:, :, :, :3, :3] == 0)
    assert np.all(made["image"][:, :, :, 4:, 4:] != 0)


@pytest.mark.parametrize("size", [10, 24])
def test_frames_smaller_or_larger_than_planned_become_the_planned_size(
    tmp_path: Path, size: int
) -> None:
    store = CaseStore(tmp_path)
    for case in "ab":
        write_video(store, case, size=size)
    turns = replace(STILL, angles=((-0.5, 0.5),), rotation_probability=0.5)
    for augmented in (True, False):
        source = a_source(store, augmented=augmented, policy=turns)
        for index in range(4):
            made = source.batch(index)
            assert made["image"].shape[3:] == made["label"].shape[2:] == (16, 16)
            assert made["label"].min() == 0


def test_nothing_is_mirrored_and_no_frame_is_mixed_with_another() -> None:
    policy = ClipSource.__dataclass_fields__["policy"].default
    assert policy.mirror_axes == ()
    assert policy.blur_probability == 0
    assert policy.in_plane


def test_speckle_multiplies_and_has_the_mean_1() -> None:
    image = np.full((1, 4, 64, 64), 3.0, np.float32)
    image[:, :, 0, 0] = -1
    found = speckle(image, 0.2, np.random.default_rng(0))
    bright = found[image == 3]
    assert np.all(found[image == -1] == -1)
    assert bright.mean() == pytest.approx(3, abs=0.02)
    assert bright.std() == pytest.approx(4 * 0.2, rel=0.05)


def test_a_lost_frame_shows_nothing_and_the_others_are_as_they_were() -> None:
    rng = np.random.default_rng(0)
    image = np.zeros((1, 5, 64, 64), np.float32)
    image[:, :, 20:40] = 1
    found = lose_frames(image, np.array([2]), rng)
    assert np.array_equal(np.delete(found, 2, 1), np.delete(image, 2, 1))
    lost, shown = found[0, 2], image[0, 2]
    assert lost.mean() == pytest.approx(shown.mean(), abs=0.05)
    assert abs(np.corrcoef(lost.ravel(), shown.ravel())[0, 1]) < 0.1


def test_the_first_frame_is_never_lost_and_a_share_of_the_others_at_most() -> None:
    rng = np.random.default_rng(0)
    image = np.ones((1, 10, 4, 4), np.float32) * np.linspace(0, 1, 4, dtype=np.float32)
    noise = FrameNoise(speckle_probability=0, loss_probability=1)
    counts = set()
    for _ in range(60):
        changed = (disturb_frames(image, noise, rng) != image).any(axis=(0, 2, 3))
        assert not changed[0]
        counts.add(int(changed.sum()))
    assert counts == {1, 2, 3}


def test_no_videos_and_images_are_refused(store: CaseStore) -> None:
    with pytest.raises(DataError, match="no videos to draw clips from"):
        ClipSource(store, (), a_stage(), (1,), batch_size=1, seed=0, augmented=False)
    store.write_record("a", replace(store.record("a"), video=None))
    store.write_record("b", replace(store.record("b"), video=None))
    with pytest.raises(DataError, match="holds it as an image"):
        a_source(store).batch(0)


@pytest.mark.parametrize("form", ["npy", "blosc2", "fp16"])
@pytest.mark.parametrize("augmented", [True, False])
def test_clips_are_the_same_from_every_form(
    store: CaseStore, tmp_path: Path, form: Form, augmented: bool
) -> None:
    if form == "blosc2":
        pytest.importorskip("blosc2")
    other = CaseStore(tmp_path / form, form, (16, 16))
    for case in "ab":
        write_video(other, case)
    for index in range(6):
        expected = a_source(store, augmented=augmented).batch(index)
        found = a_source(other, augmented=augmented).batch(index)
        assert np.array_equal(found["image"], expected["image"])
        assert np.array_equal(found["label"], expected["label"])
