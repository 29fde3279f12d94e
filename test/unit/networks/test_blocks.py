"""Sizes of an encoder-decoder and its parts."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from nnunetlike.core.errors import PlanError
from nnunetlike.networks import NetworkTask
from nnunetlike.networks.blocks import Architecture, Node, conv_units
from nnunetlike.plans.topology import Topology


def task_of(dimension: int, pools: int, base: int = 32, conv_per_stage: int = 2) -> NetworkTask:
    topology = Topology.of([[2] * dimension] * pools, [[3] * dimension] * (pools + 1))
    return NetworkTask(
        channels=2,
        classes=3,
        topology=topology,
        base_features=base,
        conv_per_stage=conv_per_stage,
    )


def test_features_double_up_to_320_in_3d() -> None:
    assert Architecture.of(task_of(3, 5)).features == (32, 64, 128, 256, 320, 320)


def test_features_double_up_to_480_in_2d() -> None:
    assert Architecture.of(task_of(2, 6)).features == (32, 64, 128, 256, 480, 480, 480)


def test_base_features_of_the_spec_replace_those_of_the_plans() -> None:
    assert Architecture.of(task_of(2, 2), base_features=5).features == (5, 10, 20)


@pytest.mark.parametrize(("conv_per_stage", "encoder", "node"), [(1, 1, 2), (2, 2, 2), (3, 3, 3)])
def test_nodes_and_bottleneck_never_have_a_single_unit(
    conv_per_stage: int, encoder: int, node: int
) -> None:
    architecture = Architecture.of(task_of(2, 2, base=2, conv_per_stage=conv_per_stage))
    assert [len(level) for level in architecture.encoder()] == [encoder, encoder, node]
    made = architecture.node(0, 1, up_first=True, checkpointed=False)
    assert len(made.convs) == node


def test_a_network_without_pooling_is_refused() -> None:
    with pytest.raises(PlanError, match="at least one pooling"):
        Architecture.of(task_of(3, 0))


def test_features_must_be_given_for_every_level() -> None:
    topology = task_of(2, 2).topology
    with pytest.raises(PlanError, match="3 levels"):
        Architecture(channels=1, classes=2, features=(4, 8), topology=topology)


def test_only_axes_with_kernel_3_are_padded() -> None:
    units = conv_units(1, 2, (1, 3, 3), (1, 1, 1), 2)
    assert [unit.conv.padding for unit in units] == [(0, 1, 1)] * 2
    assert units(torch.randn(1, 1, 2, 5, 7)).shape == (1, 2, 2, 5, 7)


def test_the_decoder_takes_the_kernel_of_the_level_below() -> None:
    topology = Topology.of([[1, 2, 2], [2, 2, 2]], [[1, 3, 3], [3, 3, 3], [3, 3, 1]])
    task = NetworkTask(channels=1, classes=2, topology=topology, base_features=2)
    architecture = Architecture.of(task)
    kernels = [
        architecture.node(i, 1, up_first=True, checkpointed=False).convs[0].conv.kernel_size
        for i in range(2)
    ]
    assert kernels == [(3, 3, 3), (3, 3, 1)]


def test_a_unit_is_convolution_instance_norm_and_leaky_relu() -> None:
    (unit,) = conv_units(1, 1, (3, 3), (1, 1), 1)
    image = torch.randn(1, 1, 6, 6)
    convolved = unit.conv(image)
    deviation = convolved.var(unbiased=False) + 1e-5
    normal = (convolved - convolved.mean()) / deviation.sqrt()
    expected = torch.where(normal > 0, normal, 0.01 * normal)
    torch.testing.assert_close(unit(image), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("up_first", [True, False])
def test_a_node_joins_in_the_order_asked_for(up_first: bool) -> None:
    node = Node(
        below=2, features=1, skips=1, stride=(2, 2), kernel=(3, 3), count=1,
        up_first=up_first, checkpointed=False,
    )  # fmt: skip
    below, skip = torch.randn(1, 2, 2, 2), torch.randn(1, 1, 4, 4)
    joined = [node.up(below), skip] if up_first else [skip, node.up(below)]
    assert torch.equal(node(below, skip), node.convs(torch.cat(joined, 1)))


def _gradients(unit: nn.Module, image: Tensor, by_parts: bool) -> list[Tensor]:
    """Return the result of a unit and all gradients, by the unit or by its parts in turn."""
    unit.zero_grad(set_to_none=True)
    image = image.clone().requires_grad_()
    found = unit.activation(unit.norm(unit.conv(image))) if by_parts else unit(image)
    (found * torch.linspace(-1, 1, found.numel()).view(found.shape)).sum().backward()
    return [found, image.grad, *(parameter.grad for parameter in unit.parameters())]


@pytest.mark.parametrize("dimension", [2, 3])
@pytest.mark.parametrize("autocast", [False, True])
def test_a_unit_learns_bit_by_bit_what_its_parts_do(dimension: int, autocast: bool) -> None:
    torch.manual_seed(0)
    (unit,) = conv_units(2, 5, (3,) * dimension, (2,) * dimension, 1)
    image = torch.randn(3, 2, *[8] * dimension)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        ours, parts = (_gradients(unit, image, by_parts) for by_parts in (False, True))
    assert all(torch.equal(a, b) for a, b in zip(ours, parts, strict=True))


def test_the_backward_pass_of_a_unit_clones_nothing() -> None:
    (unit,) = conv_units(2, 5, (3, 3), (1, 1), 1)
    loss = unit(torch.randn(3, 2, 8, 8)).sum()
    with torch.autograd.profiler.profile() as seen:
        loss.backward()
    assert not {"aten::clone", "aten::new_zeros"} & {event.name for event in seen.function_events}
