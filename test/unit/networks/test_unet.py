"""The plain U-Net."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from nnunetlike.networks.unet import UNetSpec
from nnunetlike.plans.topology import Topology


def test_heads_follow_the_poolings() -> None:
    spec, task = UNetSpec.tiny(3)
    topology = Topology.of([[1, 2, 2], [2, 2, 2], [2, 2, 2]], [[3] * 3] * 4)
    heads = spec.build(replace(task, topology=topology))(torch.randn(1, 1, 8, 16, 16))
    assert [tuple(head.shape[2:]) for head in heads] == [(8, 16, 16), (8, 8, 8), (4, 4, 4)]


@pytest.mark.parametrize("depth", range(1, 7))
def test_any_depth_can_be_built(depth: int) -> None:
    spec, task = UNetSpec.tiny(2)
    topology = Topology.of([[2, 2]] * depth, [[3, 3]] * (depth + 1))
    network = spec.build(replace(task, topology=topology, base_features=2))
    assert len(network(torch.randn(1, 1, 2 * 2**depth, 2 * 2**depth))) == depth
