"""Checkpoints that nnU-Net v1 wrote load, value by value, without executing anything."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from nnunetlike.networks.model_files import find_checkpoint, load_model_file
from nnunetlike.networks.v1_weights import state_dict_to_v1
from nnunetlike.training.state import TrainState

MODELS = {
    "3d": "3d_fullres/Task071_CTISO/nnUNetTrainerV2__nnUNetPlans_tiny",
    "2d": "2d/Task071_CTISO/nnUNetTrainerV2__nnUNetPlans_tiny",
    "upp": "3d_fullres/Task071_CTISO/nnUNetPlusPlusTrainerV2__nnUNetPlans_upp",
}


@pytest.fixture(params=MODELS)
def checkpoint(request: pytest.FixtureRequest, golden: Path) -> Path:
    folder = golden / "model" / "RESULTS_FOLDER" / "nnUNet" / MODELS[request.param] / "fold_0"
    return find_checkpoint(folder)


def test_weights_are_those_of_the_file(checkpoint: Path) -> None:
    truth = torch.load(checkpoint, map_location="cpu", weights_only=False)["state_dict"]
    model = load_model_file(checkpoint)
    assert list(model.state_dict) == list(truth)
    rebuilt = state_dict_to_v1(model.build())
    assert list(rebuilt) == list(truth)
    for name, value in truth.items():
        assert torch.equal(model.state_dict[name], value)
        assert torch.equal(rebuilt[name], value)


def test_network_predicts_full_resolution_alone(checkpoint: Path) -> None:
    model = load_model_file(checkpoint)
    stage = model.plans.stages[model.stage]
    network = model.build()
    with torch.no_grad():
        logits = network(torch.zeros(1, model.plans.num_channels, *stage.patch_size))
    assert logits.shape == (1, model.plans.num_classes, *stage.patch_size)


def test_state_of_a_real_training_is_read(golden: Path) -> None:
    folder = golden / "model" / "RESULTS_FOLDER" / "nnUNet" / MODELS["3d"] / "fold_0"
    state = TrainState.from_checkpoint(load_model_file(find_checkpoint(folder)).content)
    assert state.epoch == 2
    assert state.train_losses == pytest.approx([0.986596405506134, 0.9493813514709473])
    assert state.best_val_average == pytest.approx(0.1242438455163828)
    assert state.best_train_average == state.train_average
    assert state.best_train_average == pytest.approx(0.9839913517236709)
    assert state.val_average == pytest.approx(0.9 * 0.1242438455163828 + 0.1 * 0.11951710039575009)
