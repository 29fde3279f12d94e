"""Weights under nnU-Net v1's names."""

from __future__ import annotations

from collections import OrderedDict

import pytest
import torch
from torch import Tensor, nn

from nnunetlike.core.errors import DataError
from nnunetlike.networks.blocks import Architecture
from nnunetlike.networks.unet import UNet, UNetSpec
from nnunetlike.networks.unet_plus_plus import UNetPlusPlus, UNetPlusPlusSpec
from nnunetlike.networks.v1_weights import (
    load_v1_state_dict,
    network_from_v1,
    parameters_in_v1_order,
    state_dict_to_v1,
    v1_kind,
)
from nnunetlike.plans.topology import Topology

SPECS = {"Generic_UNet": UNetSpec, "Generic_UNetPlusPlus": UNetPlusPlusSpec}
KINDS = list(SPECS)
TOPOLOGY = Topology.of([[2, 2]] * 2, [[3, 3]] * 3)


def network_of(kind: str) -> nn.Module:
    spec, task = SPECS[kind].tiny(2)
    return spec.build(task)


def read(kind: str, weights: dict[str, Tensor], **changes: object) -> nn.Module:
    settings = {
        "pool_op_kernel_sizes": TOPOLOGY.pool_op_kernel_sizes,
        "conv_kernel_sizes": TOPOLOGY.conv_kernel_sizes,
        "num_classes": 3,
        **changes,
    }
    return network_from_v1(kind, weights, **settings)


def copy_of(weights: OrderedDict[str, Tensor]) -> OrderedDict[str, Tensor]:
    return OrderedDict((name, value.clone()) for name, value in weights.items())


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("kind", KINDS)
def test_weights_come_back_from_v1s_names(kind: str, prefix: str) -> None:
    network = network_of(kind)
    weights = {prefix + name: value for name, value in state_dict_to_v1(network).items()}
    again = read(kind, weights)
    image = torch.randn(1, 1, 8, 8)
    assert v1_kind(weights) == kind
    assert all(torch.equal(a, b) for a, b in zip(network(image), again(image), strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_the_type_of_the_weights_is_kept(kind: str) -> None:
    weights = state_dict_to_v1(network_of(kind).double())
    assert {p.dtype for p in read(kind, weights).parameters()} == {torch.float64}


@pytest.mark.parametrize("kind", KINDS)
def test_a_loaded_network_does_not_share_memory_with_the_file(kind: str) -> None:
    weights = state_dict_to_v1(network_of(kind))
    before = copy_of(weights)
    loaded = read(kind, weights)
    with torch.no_grad():
        for parameter in loaded.parameters():
            parameter.zero_()
    assert all(torch.equal(weights[name], before[name]) for name in before)


@pytest.mark.parametrize("kind", KINDS)
def test_loading_draws_no_random_numbers(kind: str) -> None:
    weights = state_dict_to_v1(network_of(kind))
    before = torch.get_rng_state()
    read(kind, weights)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("network_class", [UNet, UNetPlusPlus])
def test_features_are_read_off_the_tensors(network_class: type[UNet] | type[UNetPlusPlus]) -> None:
    architecture = Architecture(
        channels=2, classes=4, features=(3, 7, 5), topology=TOPOLOGY, conv_per_stage=3
    )
    weights = state_dict_to_v1(network_class(architecture))
    loaded = read(v1_kind(weights), weights, num_classes=4, conv_per_stage=3)
    assert loaded.architecture == architecture


@pytest.mark.parametrize("kind", KINDS)
def test_parameters_come_in_v1s_order_and_each_once(kind: str) -> None:
    network = network_of(kind)
    ordered = parameters_in_v1_order(network)
    named = state_dict_to_v1(network)
    assert [p.data_ptr() for p in ordered] == [value.data_ptr() for value in named.values()]
    assert {id(p) for p in ordered} == {id(p) for p in network.parameters()}
    assert len(ordered) == len(list(network.parameters()))


def test_the_places_of_a_unet_count_from_the_bottleneck_up() -> None:
    names = state_dict_to_v1(network_of("Generic_UNet"))
    assert next(iter(names)) == "conv_blocks_localization.0.0.blocks.0.conv.weight"
    assert list(names)[-4:] == ["tu.0.weight", "tu.1.weight", "seg_outputs.0.weight",
                                "seg_outputs.1.weight"]  # fmt: skip
    assert names["tu.0.weight"].shape == (16, 8, 2, 2)
    assert names["seg_outputs.1.weight"].shape == (3, 4, 1, 1)


def test_the_diagonals_of_a_unet_plus_plus_count_from_the_deepest() -> None:
    network = network_of("Generic_UNetPlusPlus")
    names = state_dict_to_v1(network)
    groups = list(dict.fromkeys(name.split(".")[0] for name in names))
    assert groups == ["loc0", "loc1", "conv_blocks_context", "up0", "up1", "seg_outputs"]
    pairs = {"up0.0": "1_1", "up0.1": "0_2", "up1.0": "0_1"}
    for place, node in pairs.items():
        ours = network.nodes[node].up.weight
        assert names[f"{place}.weight"].data_ptr() == ours.data_ptr()
    deepest = network.heads[-1].weight
    assert names["seg_outputs.0.weight"].data_ptr() == deepest.data_ptr()


def test_missing_unknown_and_misshapen_tensors_are_named() -> None:
    network = network_of("Generic_UNet")
    weights = copy_of(state_dict_to_v1(network))
    before = copy_of(weights)
    del weights["tu.1.weight"]
    weights["tu.9.weight"] = torch.zeros(1)
    weights["seg_outputs.0.weight"] = torch.zeros(5, 8, 1, 1)
    with pytest.raises(DataError) as caught:
        load_v1_state_dict(network, weights)
    text = str(caught.value)
    assert "tu.1.weight is missing" in text
    assert "tu.9.weight is unknown" in text
    assert "seg_outputs.0.weight has the shape (5, 8, 1, 1) instead of (3, 8, 1, 1)" in text
    assert all(torch.equal(v, before[n]) for n, v in state_dict_to_v1(network).items())


def test_weights_of_another_depth_are_refused() -> None:
    weights = state_dict_to_v1(network_of("Generic_UNet"))
    with pytest.raises(DataError, match="3 poolings"):
        read(
            "Generic_UNet",
            weights,
            pool_op_kernel_sizes=[[2, 2]] * 3,
            conv_kernel_sizes=[[3, 3]] * 4,
        )


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(DataError, match="Generic_UNetPlusPlus"):
        read("Generic_VNet", {})


def test_weights_of_another_network_are_refused() -> None:
    with pytest.raises(DataError, match="stem"):
        v1_kind({"stem.weight": torch.zeros(1)})


def test_a_network_that_v1_does_not_have_keeps_its_names() -> None:
    network = nn.Sequential(nn.Linear(2, 1), nn.BatchNorm1d(1))
    assert list(state_dict_to_v1(network)) == list(network.state_dict())
    assert [id(p) for p in parameters_in_v1_order(network)] == [id(p) for p in network.parameters()]
    with pytest.raises(DataError, match=r"1\.running_mean is missing"):
        load_v1_state_dict(network, {"0.weight": torch.zeros(1, 2), "0.bias": torch.zeros(1)})
