"""What is taken of pretrained weights, and what is said of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from nnunetlike.core.errors import DataError, UsageError
from nnunetlike.networks import NetworkTask
from nnunetlike.networks.pretrained import FIRST, PretrainedWeights
from nnunetlike.networks.transfer import freeze, require_share, transfer
from nnunetlike.networks.unet import UNet, UNetSpec
from nnunetlike.networks.unet_plus_plus import UNetPlusPlusSpec
from nnunetlike.plans.topology import Topology

TASK = NetworkTask.tiny(3)


def _weights(
    network: nn.Module, channels: Sequence[str] | None = None, labels: Sequence[str] | None = None
) -> PretrainedWeights:
    return PretrainedWeights(
        path=Path("a.model"),
        tensors={name: value.clone() for name, value in network.state_dict().items()},
        channels=None if channels is None else tuple(channels),
        labels=None if labels is None else tuple(labels),
    )


def _unet(**changes: object) -> UNet:
    return UNetSpec().build(replace(TASK, **changes))  # type: ignore[arg-type]  # names of fields


def test_all_fitting_tensors_are_loaded_heads_included() -> None:
    source, target = _unet(), _unet()
    found = transfer(target, _weights(source))
    assert found.counts() == {"loaded": len(source.state_dict()), "adapted": 0, "skipped": 0}
    assert found.share == 1
    for a, b in zip(source.parameters(), target.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_new_channel_takes_the_mean_and_a_named_one_its_own() -> None:
    source, target = _unet(channels=2), _unet(channels=4)
    theirs = source.state_dict()[FIRST]
    found = transfer(target, _weights(source, ("T1", "T2")), channels=("T2", "FLAIR", "t1", "ADC"))
    mean = theirs.mean(dim=1) * 2 / 4
    own = target.state_dict()[FIRST]
    assert torch.equal(own[:, 0], theirs[:, 1]) and torch.equal(own[:, 2], theirs[:, 0])
    assert torch.equal(own[:, 1], mean) and torch.equal(own[:, 3], mean)
    assert found.counts()["adapted"] == 1 and found.share == 1
    assert "2 image channel(s) by name, 2 the mean of 2" in found.table()


def test_without_names_all_channels_take_the_mean_and_activations_keep_their_size() -> None:
    source, target = _unet(channels=1), _unet(channels=2)
    transfer(target, _weights(source))
    image = torch.randn(1, 1, 8, 8, 8)
    again = target.encoder[0][0].conv(torch.cat([image, image], dim=1))
    assert torch.allclose(again, source.encoder[0][0].conv(image), atol=1e-5)


def test_channels_in_another_order_are_put_right() -> None:
    source, target = _unet(channels=2), _unet(channels=2)
    transfer(target, _weights(source, ("T1", "T2")), channels=("T2", "T1"))
    assert torch.equal(target.state_dict()[FIRST], source.state_dict()[FIRST].flip(1))


def test_names_that_repeat_are_not_gone_by() -> None:
    source, target = _unet(channels=2), _unet(channels=2)
    transfer(target, _weights(source, ("MRI", "MRI")), channels=("MRI", "MRI"))
    assert torch.equal(target.state_dict()[FIRST], source.state_dict()[FIRST])


def test_labels_are_copied_by_name_and_others_stay_as_drawn() -> None:
    source, target = _unet(classes=3), _unet(classes=4)
    drawn = target.state_dict()["heads.0.weight"].clone()
    found = transfer(
        target, _weights(source, labels=("background", "liver", "tumour")),
        labels=("Background", "spleen", "Tumour", "liver"),
    )  # fmt: skip
    own, theirs = target.state_dict()["heads.0.weight"], source.state_dict()["heads.0.weight"]
    assert torch.equal(own[[0, 2, 3]], theirs[[0, 2, 1]])
    assert torch.equal(own[1], drawn[1])
    assert "by label: Background, Tumour, liver; others anew" in found.table()


def test_heads_of_other_labels_without_names_stay_as_drawn() -> None:
    source, target = _unet(classes=2), _unet(classes=3)
    before = [head.weight.clone() for head in target.heads]
    found = transfer(target, _weights(source))
    assert all(torch.equal(a, b.weight) for a, b in zip(before, target.heads, strict=True))
    assert "3 labels here, 2 in the file, whose names are not known" in found.table()


def test_equal_heads_whose_labels_have_nothing_in_common_are_loaded_as_v1_does() -> None:
    source, target = _unet(), _unet()
    weights = _weights(source, labels=("background", "a", "b"))
    assert transfer(target, weights, labels=("background", "c", "d")).share == 1
    assert torch.equal(target.heads[0].weight, source.heads[0].weight)


def test_equal_heads_whose_labels_change_places_follow_the_names() -> None:
    source, target = _unet(), _unet()
    transfer(target, _weights(source, labels=("background", "a", "b")), labels=("air", "b", "a"))
    assert torch.equal(target.heads[0].weight, source.heads[0].weight[[0, 2, 1]])


def test_networks_of_other_depth_share_their_upper_levels() -> None:
    deeper = Topology.of([(2,) * 3] * 3, [(3,) * 3] * 4)
    source, target = _unet(topology=deeper), _unet()
    found = transfer(target, _weights(source))
    assert torch.equal(target.encoder[2][0].conv.weight, source.encoder[2][0].conv.weight)
    assert torch.equal(target.decoder[0].up.weight, source.decoder[0].up.weight)
    assert torch.equal(target.heads[1].weight, source.heads[1].weight)
    assert found.share == 1
    assert {name.split(".")[1] for name in found.unused} == {"2", "3"}
    back = transfer(source, _weights(target))
    assert 0.2 < back.share < 1
    assert "encoder.3" in back.table() and "not in the file" in back.table()


def test_other_strides_and_kernels_leave_the_rest_to_be_loaded() -> None:
    flat = Topology.of([(1, 2, 2), (2, 2, 2)], [(1, 3, 3), (3, 3, 3), (3, 3, 3)])
    source, target = _unet(topology=flat), _unet()
    table = transfer(target, _weights(source)).table()
    assert "0.conv.weight is 4×1×3×3×3 here, 4×1×1×3×3 in the file" in table
    assert "up.weight is 8×4×2×2×2 here, 8×4×1×2×2 in the file" in table
    assert torch.equal(target.encoder[2][0].conv.weight, source.encoder[2][0].conv.weight)


def test_the_encoder_of_a_unet_starts_a_nested_one() -> None:
    source, target = _unet(), UNetPlusPlusSpec().build(TASK)
    found = transfer(target, _weights(source))
    assert torch.equal(target.encoder[1][1].conv.weight, source.encoder[1][1].conv.weight)
    require_share(found, _weights(source), 0.3)


def test_too_little_is_refused_with_share_and_ways_out() -> None:
    source, target = _unet(), _unet(base_features=6)
    weights = _weights(source)
    found = transfer(target, weights)
    with pytest.raises(DataError, match=r"fit 0\.0% of this network.*-overwrite_plans"):
        require_share(found, weights, 0.3)
    with pytest.raises(DataError):  # nothing fits
        require_share(found, weights, 0.0)


def test_the_share_that_would_do_is_named() -> None:
    shallow = Topology.of([(2,) * 3], [(3,) * 3] * 2)
    source, target = _unet(topology=shallow), _unet()
    weights = _weights(source)
    found = transfer(target, weights)
    assert 0 < found.share < 0.3
    with pytest.raises(DataError, match=r"--pretrained_share 0\.\d+") as error:
        require_share(found, weights, 0.3)
    named = float(str(error.value).rpartition("--pretrained_share ")[2])
    require_share(found, weights, named)


def test_a_frozen_encoder_takes_no_gradient() -> None:
    network = _unet()
    count = freeze(network, "encoder")
    assert count == sum(p.numel() for p in network.encoder.parameters())
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    network(torch.randn(1, 1, 8, 8, 8))[0].square().mean().backward()
    optimizer.step()
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name]) == (
            name.startswith("encoder.") or name == "heads.1.weight"
        ), name


def test_a_network_without_encoder_cannot_be_frozen() -> None:
    with pytest.raises(UsageError, match="Linear has no encoder"):
        freeze(nn.Linear(2, 2), "encoder")
