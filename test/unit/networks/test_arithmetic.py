"""Arithmetic of a training step, against a count by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from nnunetlike.networks import NetworkTask
from nnunetlike.networks.arithmetic import training_operations
from nnunetlike.networks.unet import UNetSpec
from nnunetlike.networks.unet_plus_plus import UNetPlusPlusSpec

CONVOLUTIONS = (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def by_hand(spec: Any, task: NetworkTask, patch: tuple[int, ...]) -> int:
    """Twice the products of each convolution: forward, and backward to weights and to its input.

    The input of the first is the image, which needs no gradient.
    """
    found: list[int] = []

    def note(module: Any, inputs: Any, output: torch.Tensor) -> None:
        grid = inputs[0] if isinstance(module, CONVOLUTIONS[2:]) else output
        channels = module.in_channels * module.out_channels
        found.append(2 * math.prod(grid.shape[2:]) * math.prod(module.kernel_size) * channels)

    network = spec.build(task)
    for module in network.modules():
        if isinstance(module, CONVOLUTIONS):
            module.register_forward_hook(note)
    network(torch.zeros(1, task.channels, *patch))
    return 3 * sum(found) - found[0]


@pytest.mark.parametrize("dimension", [2, 3])
@pytest.mark.parametrize("kind", [UNetSpec, UNetPlusPlusSpec])
def test_operations_are_those_of_all_convolutions_forward_and_backward(
    kind: Any, dimension: int
) -> None:
    spec, task = kind.tiny(dimension)
    patch = (16,) * dimension
    assert training_operations(spec, task, patch) == by_hand(spec, task, patch)


def test_nodes_that_are_computed_twice_count_twice() -> None:
    spec, task = UNetPlusPlusSpec.tiny(3)
    kept, again = (replace(spec, checkpoint_nodes=value) for value in (False, True))
    assert training_operations(again, task, (8, 8, 8)) > training_operations(kept, task, (8, 8, 8))
