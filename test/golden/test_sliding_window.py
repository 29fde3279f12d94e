"""Windows, importance maps and predictions against nnU-Net v1's."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from nnunetlike.core.serialization import load_json
from nnunetlike.inference.strategies import STRATEGIES, Request
from nnunetlike.inference.windows import importance_map, padded_shape, padding, window_starts
from nnunetlike.networks import NetworkTask
from nnunetlike.networks.unet import UNetSpec
from nnunetlike.networks.v1_weights import load_v1_state_dict, state_dict_to_v1
from nnunetlike.plans.topology import Topology
from nnunetlike.preprocessing.label_export import resampled_argmax


def test_windows_lie_where_v1_puts_them(golden: Path) -> None:
    for row in load_json(golden / "training" / "sliding_window_steps.json"):
        found = [
            window_starts(size, patch, row["step_size"])
            for size, patch in zip(row["image_size"], row["patch_size"], strict=True)
        ]
        assert found == row["steps"], row


def test_importance_maps_are_v1s(golden: Path) -> None:
    with np.load(golden / "training" / "gaussian.npz") as expected:
        for name in expected:
            shape = tuple(int(n) for n in name.removeprefix("g_").split("x"))
            assert importance_map(shape) == pytest.approx(expected[name], rel=1e-6), name


def test_large_importance_maps_are_v1s(golden: Path) -> None:
    for name, row in load_json(golden / "training" / "gaussian_large.json").items():
        found = importance_map(tuple(int(n) for n in name.split("x")))
        assert found.min() == pytest.approx(row["stats"]["min"], rel=1e-6)
        assert found.sum(dtype=np.float64) == pytest.approx(row["stats"]["sum"], rel=1e-6)
        for axis, line in enumerate(row["centre_lines"]):
            place: list[Any] = [n // 2 for n in found.shape]
            place[axis] = slice(None)
            assert found[tuple(place)] == pytest.approx(np.array(line, np.float32), rel=1e-6)


def test_padding_is_v1s(golden: Path) -> None:
    for row in load_json(golden / "arrays" / "pad_nd_image.json"):
        divisor = row["shape_must_be_divisible_by"]
        axes = len(row["new_shape"] or divisor)
        shape = tuple(row["shape"][-axes:])
        target = padded_shape(shape, tuple(row["new_shape"] or shape), divisor and tuple(divisor))
        assert list(target) == row["out_shape"][-axes:]
        before = [a for a, _ in padding(shape, target)]
        assert before == [a for a, _ in row["slicer"][-axes:]]


@pytest.mark.parametrize("number", range(11))
def test_predictions_of_fixed_networks_are_v1s(golden: Path, number: int) -> None:
    content = load_json(golden / "training" / "sliding_window.json")
    case = content["cases"][number]
    call = case["call"]
    network = _network(content["nets"][case["net"]], golden)
    request = Request(
        patch_size=tuple(call["patch_size"]),
        device=torch.device("cpu"),
        step_size=call["step_size"],
        gaussian=call["use_gaussian"],
        mirror_axes=tuple(call["mirror_axes"]) if call["do_mirroring"] else (),
        tiled=call["use_sliding_window"],
    )
    with np.load(golden / "training" / "sliding_window.npz") as arrays:
        image, softmax, seg = (arrays[f"{case['case']}_{k}"] for k in ("x", "softmax", "seg"))
    found = STRATEGIES.get("sliding_window")(network, image, request)
    assert found.dtype == np.float32
    assert np.abs(found - softmax).max() < 2e-5
    label = resampled_argmax(found, found.shape[1:], regions=call["regions_class_order"])
    assert (label == seg).mean() > 0.9999


def _network(row: dict[str, Any], golden: Path) -> nn.Module:
    task = NetworkTask(
        channels=row["input_channels"],
        classes=row["num_classes"],
        topology=Topology.of(row["pool_op_kernel_sizes"], row["conv_kernel_sizes"]),
        base_features=row["base_num_features"],
    )
    network = UNetSpec().build(task)
    rule = _weight_rule(golden.parent / "weight_rule.py")
    values = {
        name: torch.from_numpy(rule.value(name, tensor.shape)).to(tensor.dtype)
        for name, tensor in state_dict_to_v1(network).items()
    }
    load_v1_state_dict(network, values)
    network.deep_supervision = False  # type: ignore[assignment]
    return network.eval()


def _weight_rule(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("weight_rule", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
