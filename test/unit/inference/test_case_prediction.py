"""Cases settled slab by slab: labels and probabilities of the whole array, no file left over."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from nnunetlike.core.errors import ResourceError
from nnunetlike.core.parallel import Budget
from nnunetlike.data.imageio import format_of
from nnunetlike.data.record import CaseRecord
from nnunetlike.inference.averaging import mean_over_folds, mean_slabs
from nnunetlike.inference.background import Behind
from nnunetlike.inference.case_prediction import _export, settle_case
from nnunetlike.inference.export import (
    Destination,
    ExportSettings,
    export_label,
    label_within_box,
    probabilities_within_box,
)
from nnunetlike.inference.model_bundle import ModelBundle, load_bundle
from nnunetlike.inference.settings import Mode, PredictionSettings
from nnunetlike.inference.streaming import settled
from nnunetlike.plans.plans import Plans
from nnunetlike.preprocessing.label_export import resampled_argmax

SETTINGS = PredictionSettings(device=torch.device("cpu"), mirror=False)
NETWORK_SIZE, SOURCE_SIZE = (30, 18, 17), (21, 44, 20)
"""Source (D, H, W); the network sees its axes as (H, W, D)."""

LoadBundle = Callable[..., ModelBundle]


@pytest.fixture
def bundle(
    tmp_path: Path, tiny_plans: Callable[[int], Plans], save_tiny_model: Callable[..., Path]
) -> LoadBundle:
    """Load a model of windows of 8 x 16 x 16 (or 16 x 16) voxels, whose axes are permuted."""

    def load(folds: int = 1, dimension: int = 3, **extra: Any) -> ModelBundle:
        plans = replace(
            tiny_plans(dimension), transpose_forward=(1, 2, 0), transpose_backward=(2, 0, 1),
            extra=extra,
        )  # fmt: skip
        for seed in range(folds):
            save_tiny_model(tmp_path / "model", plans, seed)
        found = load_bundle(tmp_path / "model")
        for weights in found.weights:  # no label is to have all voxels
            for name, value in weights.items():
                if "seg_outputs" in name:
                    value.mul_(50)
        return found

    return load


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(1, *NETWORK_SIZE)).astype(np.float32)


@pytest.fixture
def record(tmp_path: Path) -> CaseRecord:
    spacing = (30 / 21, 18 / 44, 17 / 20)
    return CaseRecord(
        original_size=SOURCE_SIZE,
        original_spacing=spacing,
        image_files=("a_0000.nii.gz",),
        label_file=None,
        itk_origin=(0.0, 0.0, 0.0),
        itk_spacing=(spacing[2], spacing[1], spacing[0]),
        itk_direction=(1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0),
        crop_box=tuple((0, n) for n in SOURCE_SIZE),
        classes=(0.0, 1.0, 2.0),
        size_after_cropping=SOURCE_SIZE,
        size_after_resampling=NETWORK_SIZE,
        spacing_after_resampling=(1.0, 1.0, 1.0),
    )


@pytest.fixture
def predict(tmp_path: Path, image: np.ndarray, record: CaseRecord) -> Callable[..., np.ndarray]:
    """Predict the image as `nnUNet_predict` does and return the labels that were written."""

    def written(bundle: ModelBundle, settings: PredictionSettings) -> np.ndarray:
        destination = Destination(path=tmp_path / "out" / "a.nii.gz", save_npz=settings.save_npz)
        destination.path.parent.mkdir(exist_ok=True)
        found = settle_case(bundle, image, record, settings, destination)
        with Behind(Budget(0)) as behind:
            _export(behind, found, bundle, settings, "a")
        assert not behind.errors
        return np.asarray(format_of(destination.path).read_label(destination.path)[0])

    return written


@pytest.mark.parametrize("folds", [1, 3])
@pytest.mark.parametrize("dimension", [2, 3])
@pytest.mark.parametrize("regions", [None, [3, 1, 2]])
def test_labels_are_those_of_all_probabilities_together(
    bundle: LoadBundle, predict: Callable[..., np.ndarray], image: np.ndarray, record: CaseRecord,
    folds: int, dimension: int, regions: list[int] | None,
) -> None:  # fmt: skip
    extra = {} if regions is None else {"regions_class_order": regions}
    model = bundle(folds, dimension, **extra)
    whole = mean_over_folds(model, image, SETTINGS)
    expected = label_within_box(whole, record, ExportSettings.of(model.plans))
    assert len(np.unique(expected)) > 1
    assert np.array_equal(predict(model, SETTINGS), expected)


def test_the_mean_of_folds_in_slabs_is_bit_for_bit_that_of_arrays(
    bundle: LoadBundle, image: np.ndarray, tmp_path: Path
) -> None:
    model = bundle(3)
    slabs = list(mean_slabs(model, image, SETTINGS, tmp_path / "sums"))
    assert len(slabs) > 3
    assert np.array_equal(np.concatenate(slabs, 1), mean_over_folds(model, image, SETTINGS))
    assert not (tmp_path / "sums").exists()


@pytest.mark.parametrize("order", [1, 3])
@pytest.mark.parametrize("folds", [1, 2])
def test_saved_probabilities_are_those_of_the_array(
    bundle: LoadBundle, predict: Callable[..., np.ndarray], image: np.ndarray, record: CaseRecord,
    tmp_path: Path, folds: int, order: int,
) -> None:  # fmt: skip
    model = bundle(folds, segmentation_export_params={"interpolation_order": order})
    whole = mean_over_folds(model, image, SETTINGS)
    settings = ExportSettings.of(model.plans)
    assert settings.order == order
    label = predict(model, replace(SETTINGS, save_npz=True))
    assert np.array_equal(label, label_within_box(whole, record, settings))
    with np.load(tmp_path / "out" / "a.npz") as found:
        expected = probabilities_within_box(whole, record, settings, np.float16)
        assert found["softmax"].dtype == np.float16
        assert np.array_equal(found["softmax"], expected)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a.nii.gz", "a.npz", "a.pkl"]


@pytest.mark.parametrize(("mode", "order"), [("fast", 1), ("fastest", 0)])
def test_fast_modes_resample_the_label_of_the_networks_grid(
    bundle: LoadBundle, predict: Callable[..., np.ndarray], image: np.ndarray, record: CaseRecord,
    tmp_path: Path, mode: Mode, order: int,
) -> None:  # fmt: skip
    model = bundle()
    label = resampled_argmax(mean_over_folds(model, image, SETTINGS), NETWORK_SIZE)
    settings = replace(ExportSettings.of(model.plans), order=order)
    export_label(label, record, settings, Destination(path=tmp_path / "expected.nii.gz"))
    found = predict(model, replace(SETTINGS, mode=mode))
    path = tmp_path / "expected.nii.gz"
    assert np.array_equal(found, format_of(path).read_label(path)[0])


class Failing:
    """A target that cannot go on."""

    def see(self, slab: np.ndarray) -> None:
        raise ResourceError("enough")

    def label(self) -> np.ndarray:
        raise AssertionError


def test_an_error_beside_the_network_ends_the_case_and_closes_its_source() -> None:
    closed = []

    def slabs() -> Iterator[np.ndarray]:
        try:
            while True:
                yield np.zeros((2, 1, 2**10, 2**10), np.float32)
        finally:
            closed.append(True)

    with pytest.raises(ResourceError, match="enough"):
        settled(slabs(), Failing())
    assert closed == [True]


def test_a_case_that_fails_leaves_no_file(
    bundle: LoadBundle, image: np.ndarray, record: CaseRecord, tmp_path: Path
) -> None:
    model = bundle(2)

    class Broken(nn.Module):
        classes = 3
        calls = 0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            Broken.calls += 1
            if Broken.calls > 20:
                raise RuntimeError("broken")
            return x.repeat(1, 3, 1, 1, 1)

    object.__setattr__(model, "network", Broken())
    object.__setattr__(model, "weights", ({}, {}))
    destination = Destination(path=tmp_path / "out" / "a.nii.gz", save_npz=True)
    destination.path.parent.mkdir()
    with pytest.raises(RuntimeError, match="broken"):
        settle_case(model, image, record, SETTINGS, destination)
    assert Broken.calls > 20 and not list(destination.path.parent.iterdir())
