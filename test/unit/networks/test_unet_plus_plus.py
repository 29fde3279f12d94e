"""UNet++ of any depth."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from nnunetlike.networks.unet_plus_plus import UNetPlusPlus, UNetPlusPlusSpec
from nnunetlike.plans.topology import Topology


def network_of(depth: int) -> UNetPlusPlus:
    spec, task = UNetPlusPlusSpec.tiny(2)
    topology = Topology.of([[2, 2]] * depth, [[3, 3]] * (depth + 1))
    return spec.build(replace(task, topology=topology, base_features=2)).double()


def by_the_paper(network: UNetPlusPlus, image: Tensor) -> list[Tensor]:
    """Evaluate equation 1 of the paper node by node, by recursion, without any sharing."""

    def x(i: int, j: int) -> Tensor:
        if j == 0:
            return network.encoder[i](image if i == 0 else x(i - 1, 0))
        return network.nodes[f"{i}_{j}"](x(i + 1, j - 1), *(x(i, k) for k in range(j)))

    depth = len(network.heads)
    return [network.heads[j - 1](x(0, j)) for j in range(depth, 0, -1)]


@pytest.mark.parametrize("depth", range(1, 7))
def test_every_depth_has_a_full_resolution_head_per_pooling(depth: int) -> None:
    image = torch.randn(1, 1, 2 * 2**depth, 2 * 2**depth, dtype=torch.float64)
    heads = network_of(depth)(image)
    assert [head.shape for head in heads] == [(1, 3, *image.shape[2:])] * depth


@pytest.mark.parametrize("depth", range(1, 7))
def test_every_head_and_every_parameter_gets_a_gradient(depth: int) -> None:
    network = network_of(depth)
    image = torch.randn(1, 1, 2 * 2**depth, 2 * 2**depth, dtype=torch.float64)
    torch.stack([head.square().sum() for head in network(image)]).sum().backward()
    for name, parameter in network.named_parameters():
        if name.endswith("conv.bias"):  # instance norm takes their effect away
            assert parameter.grad is not None, name
        else:
            assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_nodes_are_joined_as_the_paper_says(depth: int) -> None:
    network = network_of(depth)
    image = torch.randn(1, 1, 2 * 2**depth, 2 * 2**depth, dtype=torch.float64)
    for ours, expected in zip(network(image), by_the_paper(network, image), strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("depth", range(1, 7))
def test_a_network_of_depth_L_has_L_times_L_plus_1_over_2_nested_nodes(depth: int) -> None:
    network = network_of(depth)
    assert len(network.nodes) == depth * (depth + 1) // 2
    widths = {name: node.convs[0].conv.in_channels for name, node in network.nodes.items()}
    features = network.architecture.features
    assert all(
        width == (int(name.split("_")[1]) + 1) * features[int(name.split("_")[0])]
        for name, width in widths.items()
    )


def test_the_shallowest_head_does_not_read_the_deeper_levels() -> None:
    network = network_of(3)
    image = torch.randn(1, 1, 16, 16, dtype=torch.float64)
    network(image)[-1].sum().backward()
    reached = {
        name.rpartition(".convs")[0] or ".".join(name.split(".")[:2])
        for name, parameter in network.named_parameters()
        if parameter.grad is not None
    }
    assert reached == {"encoder.0", "encoder.1", "nodes.0_1", "heads.0"}
