"""Networks of nnU-Net v2: the plain and the residual-encoder U-Net of a package of their authors.

The package `dynamic-network-architectures` is optional (`pip install "nnunetlike[v2]"`). What plans
name is looked up in lists here and never imported by name, so plans cannot have code executed.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from nnunetlike.core.errors import PlanError, UsageError
from nnunetlike.plans.v2 import V2Model

PACKAGE = "dynamic_network_architectures"
CLASSES = ("PlainConvUNet", "ResidualEncoderUNet")
LAYER_ARGUMENTS = ("conv_op", "norm_op", "dropout_op", "nonlin")
_LAYERS: Mapping[str, type[nn.Module]] = {
    kind.__name__: kind
    for kind in (
        nn.Conv2d, nn.Conv3d, nn.InstanceNorm2d, nn.InstanceNorm3d, nn.BatchNorm2d,
        nn.BatchNorm3d, nn.Dropout2d, nn.Dropout3d, nn.LeakyReLU, nn.ReLU, nn.GELU, nn.SiLU,
    )
}  # fmt: skip


def build_v2_network(model: V2Model) -> nn.Module:
    """Return the network of a model of nnU-Net v2, with whatever weights memory holds.

    It gives the full resolution only. No random numbers are drawn.

    Raises:
        UsageError: the package with the networks is not installed.
        PlanError: the class, a layer or an argument is not known.
    """
    name, plans = model.network.class_name, model.plans
    if name not in CLASSES:
        raise PlanError(
            f"the model is a {name!r}; of nnU-Net v2's networks {' and '.join(CLASSES)} are known "
            "here. Predict with the nnU-Net v2 it was trained with"
        )
    arguments = {key: _layer(key, value) for key, value in model.network.arguments.items()}
    arguments["deep_supervision"] = False
    try:
        with torch.device("meta"):
            network: nn.Module = getattr(_architectures(), name)(
                input_channels=plans.num_channels, num_classes=plans.num_classes, **arguments
            )
            network = network.to_empty(device="cpu").eval()
    except (TypeError, ValueError, AssertionError, IndexError, RuntimeError) as error:
        raise PlanError(f"{name} cannot be built as plans.json describes it: {error}") from None
    facts = {
        "classes": plans.num_classes,
        "input_divisor": plans.stages[0].topology.divisor,
        "deep_supervision": False,
    }
    for attribute, value in facts.items():
        setattr(network, attribute, value)
    return network


def _layer(key: str, value: Any) -> Any:
    """Return an argument; of those that are layers, the class of that name."""
    if key not in LAYER_ARGUMENTS or value is None:
        return value
    home, _, name = str(value).rpartition(".")
    if not home.startswith("torch.nn") or name not in _LAYERS:
        raise PlanError(
            f"plans.json asks for the layer {value!r} as {key}; known are torch.nn's "
            f"{', '.join(_LAYERS)}"
        )
    return _LAYERS[name]


def _architectures() -> Any:
    try:
        return importlib.import_module(f"{PACKAGE}.architectures.unet")
    except ImportError:
        raise UsageError(
            "models of nnU-Net v2 need the package dynamic-network-architectures, which holds "
            'their networks. Install it: pip install "nnunetlike[v2]"'
        ) from None
