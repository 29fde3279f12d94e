"""Files of weights: ours, v1's and v2's, under our names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nnunetlike.core.errors import DataError
from nnunetlike.core.serialization import save_json
from nnunetlike.networks import NetworkTask
from nnunetlike.networks.model_files import save_model_file
from nnunetlike.networks.pretrained import load_pretrained
from nnunetlike.networks.unet import UNet, UNetSpec
from nnunetlike.networks.unet_plus_plus import UNetPlusPlusSpec
from nnunetlike.networks.v1_weights import by_our_names, state_dict_to_v1
from nnunetlike.plans.plans import Plans
from nnunetlike.plans.v1 import plans_to_v1


@pytest.mark.parametrize("spec", [UNetSpec(), UNetPlusPlusSpec()])
@pytest.mark.parametrize("per_stage", [1, 2, 3])
def test_names_of_v1_become_ours(spec: Any, per_stage: int) -> None:
    task = NetworkTask.tiny(2)
    network = spec.build(
        NetworkTask(
            channels=1, classes=3, topology=task.topology, base_features=4,
            conv_per_stage=per_stage,
        )
    )  # fmt: skip
    found = by_our_names({f"module.{n}": v for n, v in state_dict_to_v1(network).items()})
    own = network.state_dict()
    assert set(found) == set(own)
    assert all(torch.equal(found[name], value) for name, value in own.items())


def test_other_networks_keep_their_names() -> None:
    tensors = {"memory.weight": torch.zeros(2)}
    assert by_our_names(tensors) == tensors


def _save(path: Path, network: nn.Module, **info: Any) -> Path:
    save_model_file(path, {"epoch": 1, "state_dict": state_dict_to_v1(network)}, info)
    return path


def test_our_checkpoint_tells_channels_and_labels(
    tmp_path: Path, tiny_plans: Callable[[int], Plans]
) -> None:
    network = UNetSpec().build(NetworkTask.tiny(2))
    plans, labels = plans_to_v1(tiny_plans(2)), {0: "background", 1: "liver", 2: "tumour"}
    path = _save(tmp_path / "a.model", network, plans=plans, labels=labels)
    found = load_pretrained(path)
    assert (found.channels, found.labels) == (("MR",), ("background", "liver", "tumour"))
    assert set(found.tensors) == set(network.state_dict())


def test_weights_alone_tell_neither(tmp_path: Path) -> None:
    network = UNetSpec().build(NetworkTask.tiny(2))
    torch.save({"state_dict": state_dict_to_v1(network)}, tmp_path / "a.model")
    found = load_pretrained(tmp_path / "a.model")
    assert (found.channels, found.labels) == (None, None)
    assert set(found.tensors) == set(network.state_dict())


def test_v1_checkpoint_tells_channels(golden: Path) -> None:
    folder = golden / "model/RESULTS_FOLDER/nnUNet/2d/Task071_CTISO"
    path = folder / "nnUNetTrainerV2__nnUNetPlans_tiny/fold_0/model_final_checkpoint.model"
    found = load_pretrained(path)
    assert (found.channels, found.labels) == (("CT",), None)
    assert "encoder.0.0.conv.weight" in found.tensors and "heads.0.weight" in found.tensors


def v2_content(network: UNet, **facts: Any) -> dict[str, Any]:
    """Return what v2 saves of a plain U-Net, by the names of dynamic-network-architectures.

    They were compared with those of version 0.4.4, see `test_names_are_those_of_the_package`.
    """
    weights: dict[str, Tensor] = {}
    depth = network.architecture.num_pools
    for name, value in network.state_dict().items():
        kind, level, *rest = name.split(".")
        tail = ".".join(rest)
        if kind == "encoder":
            weights[f"encoder.stages.{level}.0.convs.{tail}"] = value
            weights[f"decoder.encoder.stages.{level}.0.convs.{tail}"] = value
            unit, part, of = rest
            place = "0" if part == "conv" else "1"
            weights[f"encoder.stages.{level}.0.convs.{unit}.all_modules.{place}.{of}"] = value
            continue
        stage = depth - 1 - int(level)
        if kind == "heads":
            weights[f"decoder.seg_layers.{stage}.{tail}"] = value
            weights[f"decoder.seg_layers.{stage}.bias"] = torch.zeros(len(value))
        elif rest[0] == "up":
            weights[f"decoder.transpconvs.{stage}.weight"] = value
            weights[f"decoder.transpconvs.{stage}.bias"] = torch.zeros(value.shape[1])
        else:
            weights[f"decoder.stages.{stage}.{tail}"] = value
    return {
        "network_weights": weights,
        "trainer_name": "nnUNetTrainer",
        "init_args": {"configuration": "2d", "fold": 0, "dataset_json": facts},
        "inference_allowed_mirroring_axes": (0, 1),
    }


def test_v2_checkpoint_is_read_by_our_names(tmp_path: Path) -> None:
    network = UNetSpec().build(NetworkTask.tiny(2))
    content = v2_content(
        network, channel_names={"0": "T1"}, labels={"background": 0, "edema": 1, "core": 2}
    )
    torch.save(content, tmp_path / "checkpoint_final.pth")
    found = load_pretrained(tmp_path / "checkpoint_final.pth")
    assert (found.channels, found.labels) == (("T1",), ("background", "edema", "core"))
    own = network.state_dict()
    assert all(torch.equal(found.tensors[name], value) for name, value in own.items())
    assert set(found.tensors) - set(own) == {
        f"{part}.{level}{tail}"
        for level in (0, 1)
        for part, tail in (("heads", ".bias"), ("decoder", ".up.bias"))
    }


def test_names_stand_in_dataset_json_of_v2_where_the_checkpoint_has_none(tmp_path: Path) -> None:
    network = UNetSpec().build(NetworkTask.tiny(2))
    content = v2_content(network)
    del content["init_args"]["dataset_json"]
    (tmp_path / "fold_0").mkdir()
    torch.save(content, tmp_path / "fold_0" / "checkpoint_final.pth")
    facts = {"channel_names": {"0": "T1"}, "labels": {"background": 0, "a": 1, "b": 2}}
    save_json(facts, tmp_path / "dataset.json")
    found = load_pretrained(tmp_path / "fold_0" / "checkpoint_final.pth")
    assert (found.channels, found.labels) == (("T1",), ("background", "a", "b"))


def test_names_are_those_of_the_package() -> None:
    package = pytest.importorskip("dynamic_network_architectures.architectures.unet")
    network = UNetSpec().build(NetworkTask.tiny(2))
    features = network.architecture.features
    theirs = package.PlainConvUNet(
        1, 3, features, nn.Conv2d, 3, (1, 2, 2), 2, 3, 2, conv_bias=True,
        norm_op=nn.InstanceNorm2d, norm_op_kwargs={"affine": True}, nonlin=nn.LeakyReLU,
    )  # fmt: skip
    made: Mapping[str, Tensor] = v2_content(network)["network_weights"]
    shapes = {name: value.shape for name, value in theirs.state_dict().items()}
    assert {name: value.shape for name, value in made.items()}.items() <= shapes.items()


def test_regions_of_v2_have_no_names_here(tmp_path: Path) -> None:
    network = UNetSpec().build(NetworkTask.tiny(2))
    labels = {"background": 0, "whole": [1, 2], "core": 2}
    torch.save(v2_content(network, labels=labels), tmp_path / "c.pth")
    assert load_pretrained(tmp_path / "c.pth").labels is None


def test_a_residual_encoder_of_v2_is_refused(tmp_path: Path) -> None:
    weights = {"encoder.stem.convs.0.conv.weight": torch.zeros(1)}
    torch.save({"network_weights": weights}, tmp_path / "c.pth")
    with pytest.raises(DataError, match="no plain U-Net"):
        load_pretrained(tmp_path / "c.pth")


def test_what_is_no_checkpoint_is_refused_with_its_entries(tmp_path: Path) -> None:
    torch.save({"weights": torch.zeros(1)}, tmp_path / "c.pth")
    with pytest.raises(DataError, match=r"neither state_dict .* it has weights"):
        load_pretrained(tmp_path / "c.pth")
