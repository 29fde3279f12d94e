"""Order and type of weights for predictions."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from nnunetlike.networks import NETWORKS, NetworkTask
from nnunetlike.networks.blocks import Unit, conv_units
from nnunetlike.networks.memory_format import channels_first, channels_last, lay_out
from nnunetlike.networks.unet import UNetSpec
from nnunetlike.networks.v1_weights import load_v1_state_dict, state_dict_to_v1

CPU = torch.device("cpu")


def made(dimension: int = 3, kind: str = "unet") -> nn.Module:
    torch.manual_seed(0)
    network = NETWORKS.get(kind)().build(NetworkTask.tiny(dimension)).eval()
    network.deep_supervision = False
    return network


def image_for(dimension: int) -> Tensor:
    return torch.randn(1, 1, *[16] * dimension, generator=torch.Generator().manual_seed(1))


def predicted(network: nn.Module, image: Tensor, dtype: torch.dtype | None) -> Tensor:
    with torch.inference_mode(), torch.autocast("cpu", dtype=dtype, enabled=dtype is not None):
        return network(image).float()


@pytest.mark.parametrize("kind", ["unet", "unet_plus_plus"])
@pytest.mark.parametrize("dimension", [2, 3])
def test_bfloat16_laid_out_is_as_near_to_float32_as_autocast_alone(
    dimension: int, kind: str
) -> None:
    network, image = made(dimension, kind), image_for(dimension)
    exact = predicted(network, image, None)
    plain = (predicted(network, image, torch.bfloat16) - exact).square().mean()
    weights = {name: value.clone() for name, value in state_dict_to_v1(network).items()}
    lay_out(network, CPU, torch.bfloat16)
    load_v1_state_dict(network, weights)
    ours = (predicted(network, image, torch.bfloat16) - exact).square().mean()
    assert 0 < ours < 1.5 * plain


def test_float32_after_bfloat16_is_what_it_was_to_the_last_bit() -> None:
    network, image = made(), image_for(3)
    weights = {name: value.clone() for name, value in state_dict_to_v1(network).items()}
    before = predicted(network, image, None)
    for dtype in (torch.bfloat16, None):
        lay_out(network, CPU, dtype)
        load_v1_state_dict(network, weights)
    assert torch.equal(predicted(network, image, None), before)


def test_norms_stay_in_float32() -> None:
    network = made()
    lay_out(network, CPU, torch.bfloat16)
    kinds = {(type(m).__name__, m.weight.dtype) for m in network.modules() if hasattr(m, "weight")}
    assert kinds == {
        ("Conv3d", torch.bfloat16),
        ("ConvTranspose3d", torch.bfloat16),
        ("InstanceNorm3d", torch.float32),
    }


def test_networks_of_others_are_left_as_they_are() -> None:
    network = nn.Sequential(nn.Conv2d(2, 4, 3))
    lay_out(network, CPU, torch.bfloat16)
    assert network[0].weight.dtype == torch.float32
    assert network[0].weight.is_contiguous()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_order_changes_no_weight_and_is_taken_back(dtype: torch.dtype) -> None:
    network = UNetSpec().build(NetworkTask.tiny(3)).to(dtype)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    channels_last(network)
    kernel = network.encoder[1][0].conv.weight
    assert kernel.is_contiguous(memory_format=torch.channels_last_3d)
    assert not kernel.is_contiguous()
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    channels_first(network)
    assert kernel.is_contiguous()


def test_the_order_may_change_amid_a_prediction() -> None:
    network = made()
    channels_last(network)
    with torch.inference_mode():
        channels_first(network)
    weights = state_dict_to_v1(made())
    load_v1_state_dict(network, weights)  # inference tensors cannot be written to
    loaded = state_dict_to_v1(network)
    assert all(torch.equal(loaded[name], value) for name, value in weights.items())


def test_a_unit_in_bfloat16_channels_last_normalises_like_in_float32() -> None:
    torch.manual_seed(0)
    (unit,) = conv_units(3, 5, (3, 3), (1, 1), 1)
    assert isinstance(unit, Unit)
    nn.init.normal_(unit.norm.weight)
    nn.init.normal_(unit.norm.bias)
    image = torch.randn(2, 3, 9, 7)
    exact = unit(image)
    unit.conv.to(torch.bfloat16)
    channels_last(unit)
    found = unit(image.bfloat16())
    assert found.dtype == torch.bfloat16
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert (found - exact).abs().max() < 0.05
