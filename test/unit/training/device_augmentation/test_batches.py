"""Batches that are augmented by torch against those that the workers augment."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from nnunetlike.data.record import CaseRecord
from nnunetlike.data.store import CaseStore
from nnunetlike.plans.plans import StagePlan
from nnunetlike.plans.topology import Topology
from nnunetlike.training.augmentation.policies import policy_for
from nnunetlike.training.device_augmentation.batches import (
    augmented,
    augmented_patch,
    device_bytes,
)
from nnunetlike.training.runtime import SingleProcess
from nnunetlike.training.sources.patches import PatchSource
from nnunetlike.training.sources.workers import stream

CPU = torch.device("cpu")
KINDS = [((8, 12, 10), False), ((4, 14, 13), True), ((14, 12), False)]
BATCHES = 12
"""Of four patches each: every change occurs in them."""


def write_case(store: CaseStore, case_id: str, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(len(store.case_ids()))
    smooth = gaussian_filter(rng.normal(size=shape), 2)
    label = np.digitize(smooth, [-0.03, 0.03]).astype(np.float32) - (smooth < -0.06)
    image = rng.normal(size=(2, *shape)).astype(np.float32)
    record = CaseRecord(
        original_size=shape, original_spacing=(1.0,) * 3, image_files=(), label_file=None,
        itk_origin=(0.0,) * 3, itk_spacing=(1.0,) * 3, itk_direction=tuple(np.eye(3).ravel()),
        crop_box=tuple((0, n) for n in shape), classes=(0.0, 2.0), size_after_cropping=shape,
        class_locations={2: np.argwhere(label == 2)},
    )  # fmt: skip
    store.write(case_id, np.concatenate([image, label[None]]), record)
    store.unpack(case_id)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> CaseStore:
    made = CaseStore(Path(tmp_path_factory.mktemp("cases")))
    for i, shape in enumerate([(20, 24, 22), (6, 30, 10)]):
        write_case(made, f"case_{i}", shape)
    return made


def a_source(
    store: CaseStore, patch: tuple[int, ...], dummy: bool, *, on_device: bool, noise: bool = False
) -> PatchSource:
    stage = StagePlan(
        spacing=(1.0,) * 3, original_spacing=(1.0,) * 3, median_shape=(32,) * 3, patch_size=patch,
        batch_size=4, dummy_2d_augmentation=dummy, num_pool_per_axis=(0,) * len(patch),
        topology=Topology.of([], [[3] * len(patch)]),
    )  # fmt: skip
    policy = policy_for(stage)
    if not noise:  # its field is another one on a device
        object.__setattr__(policy, "noise_probability", 0.0)
    return PatchSource(
        store, store.case_ids(), stage, [0, 2], batch_size=4, seed=3, augmentation=policy,
        use_mask_for_norm={0: True, 1: False}, on_device=on_device,
    )  # fmt: skip


@pytest.mark.parametrize(("patch", "dummy"), KINDS)
def test_patches_are_those_that_workers_augment(store, patch, dummy):
    host = a_source(store, patch, dummy, on_device=False)
    device = a_source(store, patch, dummy, on_device=True)
    for index in range(BATCHES):
        expected, found = host.batch(index), augmented(device.batch(index), CPU)
        assert found["image"].dtype == torch.float32 and found["label"].dtype == torch.int16
        np.testing.assert_array_equal(found["label"].numpy(), expected["label"])
        for one, other in zip(found["image"], expected["image"], strict=True):
            extent = float(np.ptp(other))
            np.testing.assert_allclose(one.numpy(), other, atol=1e-5 * extent)
        assert found["case_ids"] == expected["case_ids"] == device.cases(index)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize(("patch", "dummy"), KINDS)
def test_patches_on_cuda_are_those_that_workers_augment(store, patch, dummy):
    host = a_source(store, patch, dummy, on_device=False)
    device = a_source(store, patch, dummy, on_device=True)
    batches = SingleProcess(torch.device("cuda")).feed(map(device.batch, range(BATCHES + 1)))
    for index in range(BATCHES):
        expected, found = host.batch(index), next(batches)
        np.testing.assert_array_equal(found["label"].cpu().numpy(), expected["label"])
        for one, other in zip(found["image"].cpu().numpy(), expected["image"], strict=True):
            np.testing.assert_allclose(one, other, atol=1e-5 * float(np.ptp(other)))


def test_a_batch_depends_on_its_number_alone(store):
    source = a_source(store, (8, 12, 10), False, on_device=True, noise=True)
    runtime = SingleProcess(CPU)
    noisy = next(i for i in range(50) if any(o.changes.noise_sd for o in source.batch(i)["orders"]))
    first = runtime.to_device(source.batch(noisy))
    torch.manual_seed(99)
    again = runtime.to_device(pickle.loads(pickle.dumps(source)).batch(noisy))
    assert torch.equal(first["image"], again["image"])
    assert torch.equal(first["label"], again["label"])


def test_only_patches_that_are_rotated_or_scaled_are_read_larger(store):
    source = a_source(store, (8, 12, 10), False, on_device=True)
    for index in range(BATCHES):
        batch = source.batch(index)
        for image, label, order in zip(
            batch["image"], batch["label"], batch["orders"], strict=True
        ):
            assert image.shape[1:] == label.shape
            if order.changes.affine is None:
                assert label.shape == (8, 12, 10)
            assert all(n <= most for n, most in zip(label.shape, order.source, strict=True))


def test_workers_hand_over_what_they_read(store):
    source = a_source(store, (8, 12, 10), False, on_device=True)
    with stream(source, workers=1) as batches:
        found = [augmented(next(batches), CPU) for _ in range(3)]
    for index, batch in enumerate(found):
        assert torch.equal(batch["image"], augmented(source.batch(index), CPU)["image"])


def test_batches_of_workers_arrive_by_the_given_way(store):
    source = a_source(store, (8, 12, 10), False, on_device=True)
    arrived = []

    def arrive(batch):
        arrived.append(batch["case_ids"])
        return {**batch, "case_ids": ["arrived"]}

    with stream(source, workers=1, arrived=arrive) as batches:
        assert next(batches)["case_ids"] == ["arrived"]
    assert source.cases(0) in arrived


def test_validation_is_not_augmented(store):
    source = a_source(store, (8, 12, 10), False, on_device=True)
    object.__setattr__(source, "augmentation", None)
    assert source.batch(0)["image"].shape == (4, 2, 8, 12, 10)


def test_the_network_s_autocast_does_not_reach_the_augmentation(store):
    source = a_source(store, (8, 12, 10), False, on_device=True)
    plain = augmented(source.batch(2), CPU)["image"]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(augmented(source.batch(2), CPU)["image"], plain)


class _Held(torch.utils._python_dispatch.TorchDispatchMode):
    """The most bytes that tensors made under it held at once."""

    def __init__(self) -> None:
        super().__init__()
        self.most = self.now = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        import weakref

        result = func(*args, **(kwargs or {}))
        for leaf in torch.utils._pytree.tree_leaves(result):
            if not isinstance(leaf, torch.Tensor) or leaf.untyped_storage()._cdata in self._known:
                continue
            storage = leaf.untyped_storage()
            key, size = storage._cdata, storage.nbytes()
            self._known.add(key)
            self.now += size
            self.most = max(self.most, self.now)
            weakref.finalize(storage, self._part, key, size).atexit = False
        return result

    def _part(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


@pytest.mark.parametrize(("patch", "dummy"), [((32, 40, 40), False), ((8, 64, 60), True)])
def test_memory_stays_below_what_is_counted(store, patch, dummy):
    source = a_source(store, patch, dummy, on_device=True)
    counted = device_bytes(2, source.grid.read, patch, 4)
    for index in range(6):
        batch = source.batch(index)
        with _Held() as held:
            augmented(batch, CPU)
        assert held.most <= counted


@pytest.mark.parametrize(("patch", "dummy"), KINDS)
def test_nothing_is_read_back_from_a_device(store, patch, dummy):
    """Tensors that have a device but no values: what needs a value, or mixes devices, fails."""
    source = a_source(store, patch, dummy, on_device=True)
    for index in range(BATCHES):
        batch = source.batch(index)
        for image, label, order in zip(
            batch["image"], batch["label"], batch["orders"], strict=True
        ):
            there = (torch.from_numpy(part).to("meta") for part in (image, label))
            new_image, new_label = augmented_patch(*there, order)
            assert new_image.is_meta and new_image.shape == (2, *patch)
            assert new_label.is_meta and new_label.shape == patch
