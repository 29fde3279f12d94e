"""Networks of nnU-Net v2, built of what plans say and of nothing else."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from nnunetlike.core.errors import PlanError, UsageError
from nnunetlike.core.serialization import save_json
from nnunetlike.networks import v2_networks
from nnunetlike.networks.v2_networks import build_v2_network
from nnunetlike.plans.v2 import V2Model, load_v2_plans

Model = Callable[..., V2Model]
NAMES = ("PlainConvUNet", "ResidualEncoderUNet")


@pytest.fixture
def model(tmp_path: Path, v2_models: ModuleType) -> Model:
    """Makes a model's plans with changed arguments of the network."""

    def make(dimension: int = 3, name: str = "PlainConvUNet", **changes: Any) -> V2Model:
        plans = v2_models.plans_json()
        block = v2_models.architecture(dimension, name)
        block["arch_kwargs"] |= changes
        configuration = {2: "2d", 3: "3d_fullres"}[dimension]
        plans["configurations"][configuration]["architecture"] = block
        save_json(plans, tmp_path / "plans.json")
        save_json(v2_models.dataset_json(), tmp_path / "dataset.json")
        return load_v2_plans(tmp_path, configuration)

    return make


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dimension", [2, 3])
def test_networks_of_the_package_give_the_full_resolution(
    model: Model, name: str, dimension: int
) -> None:
    pytest.importorskip(v2_networks.PACKAGE, reason="dynamic-network-architectures is absent")
    before = torch.get_rng_state()
    network = build_v2_network(model(dimension, name))
    assert torch.equal(torch.get_rng_state(), before)
    assert network.classes == 2 and network.input_divisor == (2,) * dimension
    for tensor in network.state_dict().values():
        tensor.fill_(0.01)
    with torch.inference_mode():
        found = network(torch.ones(1, 1, *(8,) * dimension))
    assert found.shape == (1, 2, *(8,) * dimension)


def test_layers_are_looked_up_and_never_imported(
    model: Model, monkeypatch: pytest.MonkeyPatch, v2_models: ModuleType
) -> None:
    monkeypatch.setattr(v2_networks, "_architectures", v2_models.stand_in)
    network = build_v2_network(model())
    assert network.made == (1, 2)
    assert network.arguments["conv_op"] is torch.nn.Conv3d  # type: ignore[index]
    assert network.arguments["deep_supervision"] is False  # type: ignore[index]
    for hostile in ("os.system", "torch.nn.modules.os", "torch.hub.load", "Conv3d"):
        with pytest.raises(PlanError, match=f"asks for the layer '{hostile}' as conv_op"):
            build_v2_network(model(conv_op=hostile))


def test_another_network_is_refused_by_name(model: Model) -> None:
    made = model(name="Primus")
    with pytest.raises(PlanError, match=r"the model is a 'Primus'; .* PlainConvUNet and Res"):
        build_v2_network(made)


def test_an_argument_that_the_network_does_not_take_is_told(
    model: Model, monkeypatch: pytest.MonkeyPatch, v2_models: ModuleType
) -> None:
    def strict(input_channels: int, num_classes: int) -> None:
        raise AssertionError

    monkeypatch.setattr(v2_networks, "_architectures", lambda: v2_models.stand_in(strict))
    with pytest.raises(PlanError, match=r"PlainConvUNet cannot be built as plans\.json"):
        build_v2_network(model())


def test_without_the_package_the_message_names_it(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", absent)
    with pytest.raises(UsageError, match=r'pip install "nnunetlike\[v2\]"'):
        build_v2_network(model())
