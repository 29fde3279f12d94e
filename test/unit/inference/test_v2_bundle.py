"""Models of nnU-Net v2 in memory: folds, checkpoints, mirrored axes, faults."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nnunetlike.core.errors import DataError
from nnunetlike.data.record import CaseRecord
from nnunetlike.inference import averaging
from nnunetlike.inference.averaging import mean_over_folds
from nnunetlike.inference.export import (
    ExportSettings,
    label_within_box,
    probabilities_within_box,
)
from nnunetlike.inference.model_bundle import ModelBundle, load_bundle
from nnunetlike.inference.settings import PredictionSettings
from nnunetlike.inference.strategies import Request
from nnunetlike.inference.strategies.sliding_window import sliding_window
from nnunetlike.inference.v2_bundle import is_v2_model
from nnunetlike.networks import v2_networks

CPU = torch.device("cpu")
WEIGHTS = {"weight": torch.tensor([2.0])}


@pytest.fixture
def write(
    tmp_path: Path, v2_models: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Path]:
    """Writes a model whose network gives the logits 0 and `weight` times the image."""
    monkeypatch.setattr(v2_networks, "_architectures", v2_models.stand_in)

    def run(name: str = v2_models.NAME, **options: Any) -> Path:
        weights = options.pop("weights", WEIGHTS)
        return Path(v2_models.write_model(tmp_path / name, weights, **options))

    return run


def test_v2s_folders_are_told_by_checkpoints_or_name(tmp_path: Path) -> None:
    copied = tmp_path / "copied"
    (copied / "fold_0").mkdir(parents=True)
    assert not is_v2_model(copied)
    (copied / "fold_0" / "checkpoint_best.pth").touch()
    assert is_v2_model(copied)
    assert is_v2_model(tmp_path / "nnUNetTrainer__nnUNetPlans__2d")
    ours = tmp_path / "nnUNetTrainerV2__nnUNetPlansv2.1"
    assert not is_v2_model(ours)


@pytest.mark.parametrize(("axes", "mirrored"), [((0, 2), (0, 2)), (None, ()), ((), ())])
def test_the_axes_that_training_mirrored_are_mirrored(
    write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, axes: Any, mirrored: Any
) -> None:
    asked: list[Request] = []

    def record(strategy: Any, network: Any, image: Any, request: Request) -> Any:
        asked.append(request)
        return np.zeros((2, *image.shape[1:]), np.float32)

    monkeypatch.setattr(averaging, "predict_image", record)
    bundle = load_bundle(write(inference_allowed_mirroring_axes=axes))
    for mirror in (True, False):
        image = np.zeros((1, 4, 8, 8), np.float32)
        mean_over_folds(bundle, image, PredictionSettings(device=CPU, mirror=mirror))
    assert [request.mirror_axes for request in asked] == [mirrored, ()]
    assert all(request.logits for request in asked)


def test_logits_of_folds_are_averaged_and_become_probabilities_last(
    write: Callable[..., Path],
) -> None:
    folder = write(folds=("fold_0", "fold_1"))
    torch.save(
        torch.load(folder / "fold_0" / "checkpoint_final.pth", weights_only=False)
        | {"network_weights": {"module._orig_mod.weight": torch.tensor([4.0])}},
        folder / "fold_1" / "checkpoint_final.pth",
    )
    bundle = load_bundle(folder)
    assert bundle.folds == ("fold_0", "fold_1") and len(bundle.weights) == 2
    image = np.full((1, 4, 8, 8), 0.5, np.float32)
    found = mean_over_folds(bundle, image, PredictionSettings(device=CPU))
    assert np.allclose(found[0], 0) and np.allclose(found[1], (2 + 4) / 2 * 0.5)
    probabilities = probabilities_within_box(found, _record(), ExportSettings.of(bundle.plans))
    assert np.allclose(probabilities[1], 1 / (1 + np.exp(-1.5)), atol=1e-6)
    assert np.allclose(probabilities.sum(axis=0), 1)


def test_logits_and_probabilities_of_mirrored_views_are_averaged_apart() -> None:
    image = np.zeros((1, 1, 1, 2), np.float32)
    image[..., 1] = 2.0
    asked = {"patch_size": (1, 1, 2), "device": CPU, "mirror_axes": (2,)}
    logits = sliding_window(_LastVoxel(), image, Request(**asked, logits=True))
    shares = sliding_window(_LastVoxel(), image, Request(**asked))
    assert np.allclose(logits[1], 1.0)
    assert np.allclose(shares[1], (1 / (1 + np.exp(-2.0)) + 0.5) / 2)


class _LastVoxel(nn.Module):
    """Gives the logits 0 and the last voxel of the last axis, everywhere."""

    classes = 2

    def forward(self, image: Tensor) -> Tensor:
        last = image[..., -1:].expand_as(image)
        return torch.cat([torch.zeros_like(image), last], dim=1)


def _record() -> CaseRecord:
    return CaseRecord(
        original_size=(4, 8, 8), original_spacing=(2.0, 1.0, 1.0), image_files=("a.nii.gz",),
        label_file=None, itk_origin=(0.0, 0.0, 0.0), itk_spacing=(1.0, 1.0, 2.0),
        itk_direction=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0),
        crop_box=((0, 4), (0, 8), (0, 8)), classes=(), size_after_cropping=(4, 8, 8),
    )  # fmt: skip


def test_the_network_grid_decides_first_which_axis_is_resampled_apart() -> None:
    record = replace(_record(), original_spacing=(5.0, 1.0, 1.0))
    record = replace(record, spacing_after_resampling=(1.0, 1.0, 5.0))
    assert ExportSettings(logits=True).axis(record) == 2
    assert ExportSettings(logits=False).axis(record) == 0


def test_numbered_folds_are_taken_unless_others_are_asked_for(write: Callable[..., Path]) -> None:
    folder = write(folds=("fold_1", "fold_all"))
    assert load_bundle(folder).folds == ("fold_1",)
    assert load_bundle(folder, ["all"]).folds == ("fold_all",)
    with pytest.raises(DataError, match="no checkpoint for fold_3; folds found: fold_1, fold_all"):
        load_bundle(folder, [3])


def test_a_folder_without_checkpoints_is_told(write: Callable[..., Path]) -> None:
    folder = write()
    (folder / "fold_0" / "checkpoint_final.pth").unlink()
    with pytest.raises(DataError, match=r"has no fold_\*/checkpoint_final\.pth; folds found: none"):
        load_bundle(folder)


def test_checkpoints_go_by_v1s_names_and_v2s(
    write: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    folder = write()
    final = folder / "fold_0" / "checkpoint_final.pth"
    best = final.with_name("checkpoint_best.pth")
    best.write_bytes(final.read_bytes())
    for name in ("model_best", "checkpoint_best", "checkpoint_best.pth"):
        assert load_bundle(folder, checkpoint=name).checkpoints == (best,)
    final.unlink()
    with caplog.at_level(logging.WARNING):
        assert load_bundle(folder).checkpoints == (best,)
    assert "has no checkpoint_final.pth; taking checkpoint_best.pth instead" in caplog.text


def test_missing_plans_are_named(write: Callable[..., Path]) -> None:
    folder = write()
    (folder / "plans.json").unlink()
    with pytest.raises(DataError, match=r"plans\.json is missing"):
        load_bundle(folder)


def test_weights_of_a_trainer_with_a_network_of_its_own_are_refused(
    write: Callable[..., Path],
) -> None:
    folder = write(weights={"mamba.weight": torch.ones(3)}, trainer_name="nnUNetTrainerMamba")
    message = "does not fit the PlainConvUNet of plans.json. Its trainer, 'nnUNetTrainerMamba'"
    with pytest.raises(DataError, match=message):
        load_bundle(folder)


def test_mirrored_axes_that_do_not_exist_are_refused(write: Callable[..., Path]) -> None:
    with pytest.raises(DataError, match=r"mirrors the axes \(0, 3\) of a patch with 3 axes"):
        load_bundle(write(inference_allowed_mirroring_axes=(0, 3)))


class _Trap:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_code_in_a_checkpoint_is_refused_and_not_executed(
    write: Callable[..., Path], tmp_path: Path
) -> None:
    folder = write(logging=_Trap(tmp_path / "executed"))
    with pytest.raises(DataError, match=r"checkpoint_final\.pth .* which is refused"):
        load_bundle(folder)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    ("changes", "lacking"),
    [
        ({"init_args": {"fold": 0}}, "configuration"),
        ({"init_args": {}, "network_weights": None}, "network_weights and init_args"),
        ({"network_weights": {"weight": 3}}, "tensors"),
    ],
)
def test_a_checkpoint_of_another_form_is_refused(
    write: Callable[..., Path], changes: dict[str, Any], lacking: str
) -> None:
    folder = write(**changes)
    with pytest.raises(DataError, match=f"not a checkpoint of nnU-Net v2: it lacks {lacking}"):
        load_bundle(folder)


def test_regions_are_decided_by_the_sign_of_their_logits(
    write: Callable[..., Path], v2_models: ModuleType
) -> None:
    dataset = v2_models.dataset_json()
    dataset |= {
        "labels": {"background": 0, "whole": [1, 2], "core": 2}, "regions_class_order": [1, 2],
    }  # fmt: skip
    settings = ExportSettings.of(load_bundle(write(dataset=dataset)).plans)
    logits = np.full((2, 4, 8, 8), -1.0, np.float32)
    logits[0, :, 2:], logits[1, :, 4:] = 0.25, 3.0
    label = label_within_box(logits, _record(), settings)
    rows = [0, 0, 1, 1, 2, 2, 2, 2]
    assert np.array_equal(label, np.broadcast_to(np.array(rows)[:, None], (4, 8, 8)))
    shares = probabilities_within_box(logits, _record(), settings)
    assert np.allclose(shares, 1 / (1 + np.exp(-logits)), atol=1e-6)


@pytest.mark.parametrize("kind", ["PlainConvUNet", "ResidualEncoderUNet"])
def test_weights_of_the_packages_networks_are_loaded(
    tmp_path: Path, v2_models: ModuleType, kind: str
) -> None:
    unet = pytest.importorskip(
        "dynamic_network_architectures.architectures.unet",
        reason="dynamic-network-architectures is absent",
    )
    block = v2_models.architecture(3, kind)
    arguments = dict(block["arch_kwargs"])
    arguments |= {"conv_op": nn.Conv3d, "norm_op": nn.InstanceNorm3d, "nonlin": nn.LeakyReLU}
    torch.manual_seed(0)
    network = getattr(unet, kind)(
        input_channels=1, num_classes=2, deep_supervision=True, **arguments
    ).eval()
    plans = v2_models.plans_json()
    plans["configurations"]["3d_fullres"]["architecture"] = block
    bundle = load_bundle(
        v2_models.write_model(tmp_path / v2_models.NAME, network.state_dict(), plans=plans)
    )
    image = torch.randn(1, 1, 4, 8, 8)
    with torch.inference_mode():
        expected = network(image)[0]
        (found,) = (loaded(image) for loaded in bundle.networks(CPU))
    assert isinstance(bundle, ModelBundle) and torch.equal(found, expected)
