"""Residual encoders, and weights of torchvision."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from nnunetlike.core.errors import DataError
from nnunetlike.networks.gdkvm import GDKVM, GDKVMSpec
from nnunetlike.networks.gdkvm_encoder import FixedNorm, ResNet, load_image_encoder
from nnunetlike.networks.model_files import describe_network, network_from_description


def tiny(channels: int = 1, *, pool: bool = True) -> ResNet:
    return ResNet(channels, 4, (1, 1, 1), bottleneck=True, pool=pool, fixed_norm=True)


def weights_like(encoder: ResNet, seed: int = 0) -> dict[str, Tensor]:
    """Return weights by torchvision's names, with a first kernel for colours and a last stage."""
    generator = torch.Generator().manual_seed(seed)
    weights = {n: torch.rand(v.shape, generator=generator) for n, v in encoder.state_dict().items()}
    colours = (weights["conv1.weight"].shape[0], 3, 7, 7)
    weights["conv1.weight"] = torch.rand(colours, generator=generator)
    weights["bn1.num_batches_tracked"] = torch.tensor(7)
    weights["layer4.0.conv1.weight"] = torch.zeros(2, 2)
    weights["fc.weight"] = torch.zeros(2, 2)
    return weights


@pytest.mark.parametrize(("pool", "strides"), [(True, (4, 8, 16)), (False, (2, 4, 8))])
def test_levels_lie_at_their_strides(pool: bool, strides: tuple[int, ...]) -> None:
    levels = tiny(pool=pool)(torch.zeros(1, 1, 32, 48))
    assert [x.shape[2:] for x in levels] == [(32 // s, 48 // s) for s in strides]


def test_base_has_the_names_and_shapes_of_torchvisions_resnet50() -> None:
    with torch.device("meta"):
        task = replace(GDKVMSpec.tiny()[1], channels=3)
        encoder = GDKVMSpec(size="base").build(task).image_encoder
    shapes = {n: tuple(p.shape) for n, p in encoder.named_parameters()}
    assert shapes["conv1.weight"] == (64, 3, 7, 7)
    assert shapes["layer1.0.downsample.0.weight"] == (256, 64, 1, 1)
    assert shapes["layer2.0.conv2.weight"] == (128, 128, 3, 3)
    assert shapes["layer3.5.bn3.weight"] == (1024,)
    assert sum(p.numel() for p in encoder.parameters()) == 8_543_296


def test_a_weights_file_is_loaded_by_name(tmp_path: Path) -> None:
    encoder = tiny()
    weights = weights_like(encoder)
    torch.save(weights, tmp_path / "resnet50.pth")
    load_image_encoder(encoder, tmp_path / "resnet50.pth")
    for name, tensor in encoder.state_dict().items():
        if name != "conv1.weight":
            assert torch.equal(tensor, weights[name])


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_an_image_in_every_channel_gives_what_a_gray_picture_gives(
    channels: int, tmp_path: Path
) -> None:
    encoder = tiny(channels)
    weights = weights_like(encoder)
    torch.save(weights, tmp_path / "resnet50.pth")
    load_image_encoder(encoder, tmp_path / "resnet50.pth")
    image = torch.rand(1, 1, 16, 16)
    gray = torch.nn.functional.conv2d(
        image.expand(-1, 3, -1, -1), weights["conv1.weight"], stride=2, padding=3
    )
    torch.testing.assert_close(encoder.conv1(image.expand(-1, channels, -1, -1)), gray)


def test_fixed_norms_use_the_statistics_of_the_file_and_keep_them() -> None:
    norm = FixedNorm(2).train()
    norm.running_mean.fill_(3)
    norm.running_var.fill_(4)
    out = norm(torch.full((2, 2, 1, 1), 5.0))
    torch.testing.assert_close(out, torch.ones(2, 2, 1, 1), rtol=1e-4, atol=0)
    assert norm.running_mean.tolist() == [3, 3]


@pytest.mark.parametrize("damage", ["missing", "shape"])
def test_weights_of_another_network_are_refused_by_name(damage: str, tmp_path: Path) -> None:
    encoder = tiny()
    weights = weights_like(encoder)
    if damage == "missing":
        del weights["layer2.0.conv2.weight"]
    else:
        weights["layer2.0.conv2.weight"] = torch.zeros(1)
    torch.save(weights, tmp_path / "resnet50.pth")
    before = {n: v.clone() for n, v in encoder.state_dict().items()}
    with pytest.raises(DataError, match=r"layer2\.0\.conv2\.weight"):
        load_image_encoder(encoder, tmp_path / "resnet50.pth")
    assert all(torch.equal(v, before[n]) for n, v in encoder.state_dict().items())


def test_a_file_that_is_not_there_is_not_downloaded(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="Nothing is downloaded"):
        load_image_encoder(tiny(), tmp_path / "resnet50.pth")


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "resnet50.pth").write_bytes(b"not weights")
    with pytest.raises(DataError, match="cannot be read"):
        load_image_encoder(tiny(), tmp_path / "resnet50.pth")


def test_small_does_not_take_weights_of_a_resnet50(tmp_path: Path) -> None:
    torch.save(weights_like(tiny()), tmp_path / "resnet50.pth")
    spec, task = GDKVMSpec.tiny()
    with pytest.raises(DataError, match="size base"):
        replace(spec, pretrained=str(tmp_path / "resnet50.pth")).build(task)


@pytest.mark.slow
def test_a_checkpoint_is_rebuilt_without_the_file_of_pretrained_weights(tmp_path: Path) -> None:
    task = GDKVMSpec.tiny()[1]
    path = tmp_path / "resnet50.pth"
    spec = GDKVMSpec(size="base", pretrained=str(path))
    torch.save(weights_like(spec.build_empty(task).image_encoder), path)
    net = spec.build(task)
    path.unlink()
    again = network_from_description(describe_network(spec, task))
    assert isinstance(again, GDKVM)
    assert list(again.state_dict()) == list(net.state_dict())
    assert "image_encoder.bn1.running_mean" in net.state_dict()
