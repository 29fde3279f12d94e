"""Networks against those of the package that nnU-Net v1 and UNet++ were trained with."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from nnunetlike.core.typing import FloatArray
from nnunetlike.networks import NetworkTask
from nnunetlike.networks.unet import UNetSpec
from nnunetlike.networks.unet_plus_plus import UNetPlusPlusSpec
from nnunetlike.networks.v1_weights import (
    network_from_v1,
    parameters_in_v1_order,
    state_dict_to_v1,
    v1_kind,
)
from nnunetlike.plans.topology import Topology

SPECS = {"Generic_UNet": UNetSpec(), "Generic_UNetPlusPlus": UNetPlusPlusSpec()}
LARGE = {"upp_liver3d_1ch_3cls_b32", "unet_liver3d_1ch_3cls_b32", "upp_aniso3d_2ch_4cls_b32"}
NAMES = [
    "upp_liver3d_1ch_3cls_b32", "unet_liver3d_1ch_3cls_b32", "upp_aniso3d_2ch_4cls_b32",
    "unet_aniso3d_2ch_4cls_b32", "upp_plane2d_1ch_3cls_b32", "unet_plane2d_1ch_3cls_b32",
    "upp_small3d_1ch_3cls_b4", "unet_small3d_1ch_3cls_b4", "upp_smallaniso_2ch_2cls_b6",
    "unet_smallaniso_2ch_2cls_b6", "upp_small2d_3ch_2cls_b5", "unet_small2d_3ch_2cls_b5",
    "u_7pool2d_1ch_2cls_b32", "u_3pool3d_1ch_3cls_b32", "u_aniso_single_slice",
    "u_3conv_per_stage",
]  # fmt: skip
BY_COST = [pytest.param(n, marks=pytest.mark.slow if n in LARGE else ()) for n in NAMES]


@pytest.fixture(scope="module")
def facts(golden: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((golden / "networks" / "networks.json").read_text())
    return content


@pytest.fixture(scope="module")
def outputs(golden: Path) -> dict[str, FloatArray]:
    with np.load(golden / "networks" / "forward.npz") as content:
        return dict(content)


@pytest.fixture(scope="module")
def rule(shared: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "weight_rule", shared / "golden" / "weight_rule.py"
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def loaded(about: dict[str, Any], rule: ModuleType, dtype: torch.dtype) -> nn.Module:
    """Return the network with weights by the rule, rounded to float32 as the golden ones were."""
    weights = {
        name: torch.from_numpy(rule.value(name, shape)).float().to(dtype)
        for name, shape in about["state_dict"]
    }
    assert v1_kind(weights) == about["cls"]
    return network_from_v1(
        about["cls"],
        weights,
        pool_op_kernel_sizes=about["pool_op_kernel_sizes"],
        conv_kernel_sizes=about["conv_kernel_sizes"],
        num_classes=about["num_classes"],
        conv_per_stage=about["num_conv_per_stage"],
    )


def task_of(about: dict[str, Any]) -> NetworkTask:
    return NetworkTask(
        channels=about["input_channels"],
        classes=about["num_classes"],
        topology=Topology.of(about["pool_op_kernel_sizes"], about["conv_kernel_sizes"]),
        base_features=about["base_num_features"],
        conv_per_stage=about["num_conv_per_stage"],
    )


def image_of(about: dict[str, Any]) -> torch.Tensor:
    random = np.random.RandomState(about["input"]["seed"])
    return torch.from_numpy(random.standard_normal(about["input"]["shape"]))


def test_every_golden_network_is_compared(facts: dict[str, Any]) -> None:
    assert sorted(facts["networks"]) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_names_shapes_and_their_order_are_v1s(facts: dict[str, Any], name: str) -> None:
    about = facts["networks"][name]
    with torch.device("meta"):
        network = SPECS[about["cls"]].build(task_of(about))
    tensors = state_dict_to_v1(network)
    assert [[n, list(value.shape)] for n, value in tensors.items()] == about["state_dict"]
    assert len(tensors) == about["n_tensors"]
    assert sum(p.numel() for p in network.parameters()) == about["n_params"]
    shapes = [list(p.shape) for p in parameters_in_v1_order(network)]
    assert shapes == [shape for _, shape in about["state_dict"]]
    assert list(network.input_divisor) == about["input_shape_must_be_divisible_by"]


@pytest.mark.parametrize("name", BY_COST)
def test_every_head_gives_v1s_numbers(
    facts: dict[str, Any], outputs: dict[str, FloatArray], rule: ModuleType, name: str
) -> None:
    about = facts["networks"][name]
    network = loaded(about, rule, torch.float64)
    with torch.no_grad():
        heads = network(image_of(about))
    assert [list(head.shape) for head in heads] == [known["shape"] for known in about["heads"]]
    for head, known in zip(heads, about["heads"], strict=True):
        values = head.numpy().ravel()
        expected = outputs[f"{name}__head{known['index']}"]
        error = np.abs(values[:: known["flat_stride"]] - expected).max()
        assert error < 1e-9 * np.abs(expected).max()
        noise = np.random.RandomState(7).standard_normal(values.size)
        tolerance = 1e-9 * np.sqrt(values.size)
        assert values @ noise == pytest.approx(known["dot_with_RandomState7_normal"], abs=tolerance)
        assert values.std() == pytest.approx(known["std"], rel=1e-9)


@pytest.mark.parametrize("name", BY_COST)
def test_single_precision_is_as_near_as_v1s(
    facts: dict[str, Any], outputs: dict[str, FloatArray], rule: ModuleType, name: str
) -> None:
    about = facts["networks"][name]
    network = loaded(about, rule, torch.float32)
    with torch.no_grad():
        heads = network(image_of(about).float())
    deviations = about["float32_max_abs_dev_per_head"]
    for head, known, deviation in zip(heads, about["heads"], deviations, strict=True):
        values = head.numpy().ravel()[:: known["flat_stride"]]
        expected = outputs[f"{name}__head{known['index']}"]
        assert np.abs(values - expected).max() < max(1e-5 * np.abs(expected).max(), 3 * deviation)


@pytest.mark.parametrize("name", ["upp_small2d_3ch_2cls_b5", "unet_small2d_3ch_2cls_b5"])
def test_new_weights_have_v1s_spread(facts: dict[str, Any], name: str) -> None:
    about = facts["networks"][name]
    torch.manual_seed(0)
    tensors = state_dict_to_v1(SPECS[about["cls"]].build(task_of(about)))
    known = about["init_check"]
    for weight, spread in known["conv_weight_std_times_sqrt_fanin"].items():
        values = tensors[weight]
        ours = float(values.std()) * values[0].numel() ** 0.5
        assert ours == pytest.approx(spread, rel=0.05), weight


def test_the_original_unet_plus_plus_exists_for_five_poolings_and_ours_for_all(
    facts: dict[str, Any],
) -> None:
    supported = facts["unetplusplus_supported_pool_counts"]
    working = {name for name, text in supported.items() if text.startswith("constructs and runs")}
    assert working == {"2D num_pool=5", "3D num_pool=5"}
    for name in supported:
        dimension, pools = int(name[0]), int(name.rpartition("=")[2])
        topology = Topology.of([[2] * dimension] * pools, [[3] * dimension] * (pools + 1))
        task = NetworkTask(channels=1, classes=2, topology=topology, base_features=2)
        with torch.device("meta"):
            heads = UNetPlusPlusSpec().build(task)(torch.empty(1, 1, *[2 * 2**pools] * dimension))
        assert len(heads) == pools


def test_the_original_loss_reached_five_parts_and_ours_reaches_all(facts: dict[str, Any]) -> None:
    about = facts["networks"]["upp_small2d_3ch_2cls_b5"]
    fork = facts["fork_single_gpu_loss"]
    network = UNetPlusPlusSpec().build(task_of(about))
    heads = network(torch.randn(1, about["input_channels"], 64, 64))
    groups = dict(zip(parameters_in_v1_order(network), named(network), strict=True))
    heads[-1].square().sum().backward(retain_graph=True)
    reached = {name for parameter, name in groups.items() if parameter.grad is not None}
    assert reached == set(fork["modules_with_gradient"])
    torch.stack([head.square().sum() for head in heads]).sum().backward()
    assert all(parameter.grad is not None for parameter in groups)
    assert set(groups.values()) == reached | set(fork["modules_without_any_gradient"])


def named(network: nn.Module) -> list[str]:
    """Return for each parameter the part of the original that a table of gradients lists."""
    names = [name.split(".") for name in state_dict_to_v1(network)]
    numbered = ("conv_blocks_context", "seg_outputs")
    return [f"{n[0]}.{n[1]}" if n[0] in numbered else n[0] for n in names]
