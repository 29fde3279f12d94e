"""Every trainer: its recipe resolves, describes itself, and learns."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from nnunetlike.networks.v1_weights import parameters_in_v1_order
from nnunetlike.training.loop import TrainLoop
from nnunetlike.training.recipes import TRAINERS
from nnunetlike.training.runtime import SingleProcess
from nnunetlike.training.sources import ArrayBatch


@pytest.fixture(params=TRAINERS.names())
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_name_of_a_recipe_is_the_one_it_is_found_by(name: str) -> None:
    assert TRAINERS.get(name).name == name


def test_description_is_plain_json(name: str) -> None:
    description = json.loads(json.dumps(TRAINERS.get(name).describe(), allow_nan=False))
    assert description["network"]["name"]
    assert description["epochs"] == TRAINERS.get(name).epochs


@pytest.mark.parametrize("dimension", [2, 3])
@pytest.mark.parametrize("batch_dice", [False, True])
def test_two_steps_lower_the_loss(name: str, dimension: int, batch_dice: bool) -> None:
    torch.manual_seed(0)
    recipe = replace(TRAINERS.get(name), epochs=3, iterations=1, val_iterations=1)
    spec, task = type(recipe.network).tiny(dimension)
    network = spec.build(task)
    objective = recipe.objective.build(network, batch_dice=batch_dice)
    optimizer = recipe.optimizer.build(parameters_in_v1_order(network))
    assert {id(p) for g in optimizer.param_groups for p in g["params"]} == {
        id(p) for p in network.parameters()
    }
    loop = TrainLoop(recipe, objective, optimizer, SingleProcess(torch.device("cpu")))
    axes = 3 if recipe.source == "clips" else dimension  # clips of frames
    batch = _batch(axes, task.channels, task.classes)
    state = loop.fit(iter([batch] * 3), iter([batch] * 3))
    assert state.train_losses[2] < state.train_losses[0]
    assert all(0 <= metric <= 1 for metric in state.metrics)


def _batch(dimension: int, channels: int, classes: int) -> ArrayBatch:
    rng = np.random.default_rng(1)
    shape = (16,) * dimension
    label = np.zeros((2, *shape), np.int16)
    label[:, 4:12] = rng.integers(1, classes, label[:, 4:12].shape)
    image = rng.normal(size=(2, channels, *shape)).astype(np.float32) + label[:, None]
    return {"image": image.astype(np.float32), "label": label, "case_ids": ["a", "b"]}
