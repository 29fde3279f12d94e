"""Where patches lie, what they hold, and that a batch is a function of its number."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nnunetlike.core.errors import DataError
from nnunetlike.data.record import CaseRecord
from nnunetlike.data.store import CaseStore
from nnunetlike.plans.plans import StagePlan
from nnunetlike.plans.topology import Topology
from nnunetlike.training.augmentation.policies import policy_for
from nnunetlike.training.sources.patches import (
    PatchGrid,
    PatchSource,
    draw_foreground_voxel,
    forced_foreground,
)
from nnunetlike.training.sources.workers import stream


def a_stage(patch, dummy=False):
    n = len(patch)
    return StagePlan(
        spacing=(1.0,) * 3,
        original_spacing=(1.0,) * 3,
        median_shape=(32,) * 3,
        patch_size=patch,
        batch_size=2,
        dummy_2d_augmentation=dummy,
        topology=Topology.of([], [[3] * n]),
        num_pool_per_axis=(0,) * n,
    )


def write_case(store, case_id, shape, seed=0, blob=True):
    """A case whose first channel tells each voxel's number and whose label is one blob of 2."""
    label = np.zeros(shape, np.float32)
    label[0] = -1
    if blob:
        rng = np.random.default_rng(seed)
        corner = [int(rng.integers(1 if d == 0 else 0, n - 1)) for d, n in enumerate(shape)]
        label[tuple(slice(c, c + 2) for c in corner)] = 2
    numbers = np.arange(1, label.size + 1, dtype=np.float32).reshape(shape)
    record = CaseRecord(
        original_size=shape,
        original_spacing=(1.0,) * 3,
        image_files=(),
        label_file=None,
        itk_origin=(0.0,) * 3,
        itk_spacing=(1.0,) * 3,
        itk_direction=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0),
        crop_box=((0, shape[0]), (0, shape[1]), (0, shape[2])),
        classes=(0.0, 2.0),
        size_after_cropping=shape,
        class_locations={1: np.zeros((0, 3), np.int64), 2: np.argwhere(label == 2)},
    )
    store.write(case_id, np.stack([numbers, -numbers, label]), record)
    store.unpack(case_id)


@pytest.fixture
def store(tmp_path):
    store = CaseStore(tmp_path)
    for i, shape in enumerate([(20, 24, 22), (6, 30, 10), (12, 9, 30)]):
        write_case(store, f"case_{i}", shape, seed=i)
    return store


def a_source(store, patch=(8, 12, 10), *, dummy=False, augmented=True, **options):
    stage = a_stage(patch, dummy)
    settings = {"batch_size": 3, "seed": 7, "use_mask_for_norm": {0: True, 1: False}, **options}
    return PatchSource(
        store,
        settings.pop("case_ids", store.case_ids()),
        stage,
        (1, 2),
        augmentation=policy_for(stage) if augmented else None,
        **settings,
    )


def equal(a, b):
    return (
        np.array_equal(a["image"], b["image"])
        and np.array_equal(a["label"], b["label"])
        and a["case_ids"] == b["case_ids"]
    )


@pytest.mark.parametrize("augmented", [True, False])
@pytest.mark.parametrize(
    ("patch", "dummy"), [((8, 12, 10), False), ((4, 16, 12), True), ((12, 10), False)]
)
def test_batches_have_the_patch_size_and_known_labels(store, patch, dummy, augmented):
    source = a_source(store, patch, dummy=dummy, augmented=augmented)
    for index in range(12):
        batch = source.batch(index)
        assert batch["image"].shape == (3, 2, *patch) and batch["image"].dtype == np.float32
        assert batch["label"].shape == (3, *patch) and batch["label"].dtype == np.int16
        assert batch["image"].flags.c_contiguous and batch["label"].flags.c_contiguous
        assert np.isfinite(batch["image"]).all()
        assert set(np.unique(batch["label"])) <= {0, 2}
        assert set(batch["case_ids"]) <= set(store.case_ids())


def test_a_batch_is_a_function_of_seed_and_number(store):
    source = a_source(store)
    first = source.batch(5)
    source.batch(6)
    assert equal(source.batch(5), first)
    assert equal(pickle.loads(pickle.dumps(source)).batch(5), first)
    assert not equal(source.batch(4), first)
    assert not equal(replace(source, seed=8).batch(5), first)


def test_unpacked_and_compressed_cases_give_the_same_batches(store):
    source = a_source(store)
    assert equal(replace(source, unpacked=False).batch(3), source.batch(3))


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="asks Linux what is open")
@pytest.mark.parametrize("unpacked", [True, False])
def test_a_batch_leaves_no_file_open_or_mapped(store, unpacked):
    batch = replace(a_source(store), unpacked=unpacked).batch(0)
    opened = [str(entry.resolve()) for entry in Path("/proc/self/fd").iterdir()]
    assert batch["case_ids"]
    assert str(store.folder) not in Path("/proc/self/maps").read_text() + " ".join(opened)


def test_a_batch_from_bricks_leaves_no_file_open_or_mapped(store):
    pytest.importorskip("blosc2")
    bricks = CaseStore(store.folder, "blosc2")
    for case in store.case_ids():
        bricks.write(case, np.array(store.load(case)), store.record(case))
    test_a_batch_leaves_no_file_open_or_mapped(bricks, unpacked=True)


@pytest.mark.parametrize("patch", [(8, 12, 10), (12, 10)])
def test_plain_patches_are_cut_from_the_case_and_padded(store, patch):
    source = a_source(store, patch, augmented=False, batch_size=1)
    for index in range(20):
        batch = source.batch(index)
        whole = store.load(batch["case_ids"][0])
        image, label = batch["image"][0], batch["label"][0]
        inside = image[0] > 0
        np.testing.assert_array_equal(image[1], -image[0])
        at = np.unravel_index(image[0][inside].astype(int) - 1, whole.shape[1:])
        np.testing.assert_array_equal(label[inside], np.maximum(whole[2][at], 0))
        assert (label[~inside] == 0).all()
        assert inside.any()


@pytest.mark.parametrize("augmented", [True, False])
@pytest.mark.parametrize(
    ("patch", "dummy"), [((8, 12, 10), False), ((4, 16, 12), True), ((12, 10), False)]
)
def test_a_forced_sample_shows_the_class(store, patch, dummy, augmented):
    source = a_source(store, patch, dummy=dummy, augmented=augmented, oversample=1.0)
    if source.augmentation is not None:  # a rotation may turn a corner out of the patch
        plain = replace(source.augmentation, rotation_probability=0.0, scale_probability=0.0)
        source = replace(source, augmentation=plain)
    for index in range(10):
        assert all(2 in label for label in source.batch(index)["label"])


def test_a_case_without_foreground_is_drawn_from_anywhere(tmp_path):
    store = CaseStore(tmp_path)
    write_case(store, "empty", (9, 9, 9), blob=False)
    batch = a_source(store, augmented=False, oversample=1.0).batch(0)
    assert not batch["label"].any()


def test_channels_normalised_in_a_mask_are_zero_outside_it(tmp_path):
    store = CaseStore(tmp_path)
    write_case(store, "case", (8, 12, 10))
    source = a_source(store, batch_size=1, oversample=0.0)
    still = replace(
        policy_for(a_stage((8, 12, 10))),
        rotation_probability=0.0,
        scale_probability=0.0,
        mirror_probability=0.0,
    )
    for index in range(6):
        image = replace(source, augmentation=still).batch(index)["image"][0]
        padding = image[1] == 0
        assert (image[0][padding] == 0).all()
        assert (image[0] == 0).sum() > padding.sum()  # the first slice of the case is masked


def test_every_case_is_drawn_about_equally_often(store):
    source = a_source(store, (4, 4, 4), augmented=False, batch_size=4)
    drawn = [case for index in range(150) for case in source.batch(index)["case_ids"]]
    counts = [drawn.count(case) for case in store.case_ids()]
    assert min(counts) > 150 and sum(counts) == 600


def test_locations_are_remembered_but_not_sent_to_other_processes(store, monkeypatch):
    source = a_source(store, oversample=1.0)
    first = source.batch(0)
    monkeypatch.setattr(CaseStore, "record", lambda *_: pytest.fail("read again"))
    assert equal(source.batch(0), first)
    assert pickle.loads(pickle.dumps(source))._known == {}


def test_a_single_slice_stored_without_its_axis_is_accepted(tmp_path):
    store = CaseStore(tmp_path)
    write_case(store, "flat", (3, 12, 10))
    data = np.load(tmp_path / "flat.npy")
    np.save(tmp_path / "flat.npy", data[:, 1])
    batch = a_source(store, (8, 8), augmented=False, oversample=0.0).batch(0)
    assert batch["image"].shape == (3, 2, 8, 8) and (batch["image"][:, 0] > 0).all()


def test_a_case_without_class_locations_is_reported(store):
    record = replace(store.record("case_0"), class_locations=None)
    store.write_record("case_0", record)
    source = a_source(store, case_ids=["case_0"], oversample=1.0)
    with pytest.raises(DataError, match=r"case_0.*class_locations"):
        source.batch(0)


def test_no_cases_are_reported(store):
    with pytest.raises(DataError, match="no cases"):
        a_source(store, case_ids=[])


def test_the_last_third_of_a_batch_is_forced():
    assert forced_foreground(1, 0.33) == (False,)
    assert forced_foreground(2, 0.33) == (False, True)
    assert forced_foreground(9, 0.33) == (False,) * 6 + (True,) * 3


def test_bounds_are_v1s():
    grid = PatchGrid(read=(14, 14, 14), final=(10, 9, 14))
    # need = (4, 5, 0) for a large case; 14 - 8 = 6 where the case is smaller than that
    assert grid.bounds((30, 30, 30)) == ([-2, -3, 0], [18, 19, 16])
    assert grid.bounds((8, 8, 8)) == ([-3, -3, -3], [-3, -3, -3])


def test_a_patch_around_a_voxel_holds_it_also_after_the_centre_crop():
    rng = np.random.default_rng(0)
    grid = PatchGrid(read=(15, 12, 14), final=(10, 9, 14))
    for _ in range(500):
        shape = rng.integers(1, 40, 3)
        voxel = rng.integers(0, shape)
        start = np.array(grid.around(shape, voxel))
        low, _ = grid.bounds(shape)
        assert (start >= low).all()
        inner = start + (np.array(grid.read) - grid.final) // 2
        assert (inner <= voxel).all() and (voxel < inner + grid.final).all()


def test_starts_anywhere_reach_both_bounds():
    grid = PatchGrid(read=(4, 4, 4), final=(4, 4, 4))
    rng = np.random.default_rng(0)
    starts = np.array([grid.anywhere((6, 4, 3), rng) for _ in range(200)])
    assert starts.min(0).tolist() == [0, 0, -1] and starts.max(0).tolist() == [2, 0, 0]


def test_foreground_voxels_come_from_each_class_and_each_slice_alike():
    rng = np.random.default_rng(0)
    many = np.array([[0, i, 0] for i in range(98)] + [[1, 0, 0], [1, 1, 0]])
    locations = {1: many, 2: np.array([[5, 5, 5]]), 3: np.zeros((0, 3), int)}
    drawn = [draw_foreground_voxel(locations, rng, by_slice=True) for _ in range(1200)]
    slices = [voxel[0] for voxel in drawn]
    assert slices.count(5) == pytest.approx(600, abs=70)
    assert slices.count(1) == pytest.approx(300, abs=60)
    assert draw_foreground_voxel({3: locations[3]}, rng, by_slice=False) is None


@pytest.mark.parametrize("workers", [1, 2])
def test_batches_are_the_same_for_any_number_of_workers(store, workers):
    source = a_source(store)
    with (
        stream(source, workers=0, first=2) as alone,
        stream(source, workers=workers, first=2) as (batches),
    ):
        for _ in range(5):
            assert equal(next(batches), next(alone))


def test_the_cases_of_a_batch_are_known_without_making_it(store):
    source = a_source(store)
    for index in range(5):
        assert source.cases(index) == source.batch(index)["case_ids"]


@pytest.mark.parametrize(
    ("patch", "dummy"), [((8, 12, 10), False), ((4, 16, 12), True), ((12, 10), False)]
)
@pytest.mark.parametrize("form", ["npy", "blosc2"])
@pytest.mark.parametrize("augmented", [True, False])
def test_batches_are_the_same_from_every_exact_form(store, tmp_path, form, patch, dummy, augmented):
    if form == "blosc2":
        pytest.importorskip("blosc2")
    other = CaseStore(tmp_path / form, form, patch)
    for case in store.case_ids():
        other.write(case, np.array(store.load(case)), store.record(case))
    settings = {"patch": patch, "dummy": dummy, "augmented": augmented}
    expected, found = a_source(store, **settings), a_source(other, **settings)
    assert all(equal(found.batch(index), expected.batch(index)) for index in range(6))
    packed = a_source(store, unpacked=False, **settings)
    assert equal(packed.batch(0), expected.batch(0))


def test_16_bits_change_images_a_little_and_labels_not_at_all(store, tmp_path):
    other = CaseStore(tmp_path / "fp16", "fp16")
    for case in store.case_ids():
        other.write(case, np.array(store.load(case)), store.record(case))
    expected = a_source(store, augmented=False).batch(0)
    found = a_source(other, augmented=False).batch(0)
    assert found["image"].dtype == np.float32
    np.testing.assert_allclose(found["image"], expected["image"], rtol=2**-11)
    assert np.array_equal(found["label"], expected["label"])
