"""Weights under nnU-Net v1's names: the only module that knows them.

A network that v1 does not have keeps its own names.

v1 numbers decoder parts from the bottleneck up, and splits the units of a decoder node and of the
bottleneck into `.0.blocks.*` and `.1.blocks.0`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor, nn

from nnunetlike.core.errors import DataError
from nnunetlike.networks.blocks import Architecture
from nnunetlike.networks.unet import UNet
from nnunetlike.networks.unet_plus_plus import UNetPlusPlus
from nnunetlike.plans.topology import Topology

UNET, UNET_PLUS_PLUS = "Generic_UNet", "Generic_UNetPlusPlus"
_KINDS: dict[str, type[UNet] | type[UNetPlusPlus]] = {UNET: UNet, UNET_PLUS_PLUS: UNetPlusPlus}
_SHOWN = 6


def v1_kind(state_dict: Mapping[str, Tensor]) -> str:
    """Return which network of v1 has these weights: `Generic_UNet` or `Generic_UNetPlusPlus`.

    Raises:
        DataError: neither.
    """
    names = {name.removeprefix("module.").split(".")[0] for name in state_dict}
    if "conv_blocks_localization" in names:
        return UNET
    if "loc0" in names:
        return UNET_PLUS_PLUS
    raise DataError(
        "these are not weights of a U-Net or UNet++ of nnU-Net v1: no tensor is called "
        f"conv_blocks_localization.* or loc0.*; found {', '.join(sorted(names)[:_SHOWN])}"
    )


def network_from_v1(
    kind: str,
    state_dict: Mapping[str, Tensor],
    *,
    pool_op_kernel_sizes: Iterable[Iterable[int]],
    conv_kernel_sizes: Iterable[Iterable[int]],
    num_classes: int,
    conv_per_stage: int = 2,
) -> nn.Module:
    """Return the network that v1's weights belong to, loaded.

    Args:
        kind: `Generic_UNet` or `Generic_UNetPlusPlus`.
        state_dict: tensors by v1's names, with or without a leading `module.`. Input channels,
            features of each level and the type of the weights are read off them.
        pool_op_kernel_sizes: stride from level to level.
        conv_kernel_sizes: kernel of each level.
        num_classes: background included.
        conv_per_stage: units per level.

    Raises:
        DataError: the kind is unknown, or tensors lack, are too many, or have another shape.
    """
    if kind not in _KINDS:
        raise DataError(f"no network of nnU-Net v1 is called {kind!r}; known: {', '.join(_KINDS)}")
    tensors = _without_prefix(state_dict)
    topology = Topology.of(pool_op_kernel_sizes, conv_kernel_sizes)
    first = _first_convolutions(tensors, topology.num_pools)
    architecture = Architecture(
        channels=first[0].shape[1],
        classes=num_classes,
        features=tuple(weight.shape[0] for weight in first),
        topology=topology,
        conv_per_stage=conv_per_stage,
    )
    with torch.device("meta"):
        network = _KINDS[kind](architecture)
    network = network.to(first[0].dtype).to_empty(device="cpu")
    load_v1_state_dict(network, tensors)
    return network


def load_v1_state_dict(network: nn.Module, state_dict: Mapping[str, Tensor]) -> None:
    """Copy v1's weights into `network`, in place.

    Raises:
        DataError: tensors lack, are too many, or have another shape; the message names them, and
            the network is unchanged.
    """
    tensors = _without_prefix(state_dict)
    own = state_dict_to_v1(network)
    faults = [f"{name} is missing" for name in own if name not in tensors]
    faults += [f"{name} is unknown" for name in tensors if name not in own]
    faults += [
        f"{name} has the shape {tuple(tensors[name].shape)} instead of {tuple(own[name].shape)}"
        for name in own
        if name in tensors and tensors[name].shape != own[name].shape
    ]
    if faults:
        more = f", and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
        raise DataError(
            f"the weights do not fit the network: {'; '.join(faults[:_SHOWN])}{more}. The plans "
            "and the weights must come from the same training"
        )
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(tensors[name])


def state_dict_to_v1(network: nn.Module) -> OrderedDict[str, Tensor]:
    """Return the network's weights by v1's names, in v1's order; they share memory with it."""
    tensors = network.state_dict()
    return OrderedDict((name, tensors[ours]) for name, ours in _names(network))


def by_our_names(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return weights of nnU-Net v1 under our names.

    Sizes do not matter, only names do. What is no U-Net or UNet++ of v1 keeps its names.
    """
    tensors = _without_prefix(state_dict)
    levels = {int(n.split(".")[1]) for n in tensors if n.startswith("conv_blocks_context.")}
    if not levels:
        return tensors
    depth = max(levels)
    first = (f"conv_blocks_context.0.blocks.{k}.conv.weight" for k in range(len(tensors)))
    architecture = Architecture(
        channels=1,
        classes=1,
        features=(1,) * (depth + 1),
        topology=Topology.of([(2, 2)] * depth, [(3, 3)] * (depth + 1)),
        conv_per_stage=sum(name in tensors for name in first),
    )
    is_nested = v1_kind(tensors) == UNET_PLUS_PLUS
    names = dict((_unet_plus_plus_names if is_nested else _unet_names)(architecture))
    return {names.get(name, name): tensor for name, tensor in tensors.items()}


def parameters_in_v1_order(network: nn.Module) -> list[nn.Parameter]:
    """Return the parameters in the order of v1's optimizers."""
    parameters = dict(network.named_parameters())
    return [parameters[ours] for _, ours in _names(network) if ours in parameters]


def _without_prefix(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix("module."): tensor for name, tensor in state_dict.items()}


def _first_convolutions(tensors: Mapping[str, Tensor], num_pools: int) -> list[Tensor]:
    """Return the weight of the first convolution of each encoder level."""
    names = [f"conv_blocks_context.{i}.blocks.0.conv.weight" for i in range(num_pools)]
    names.append(f"conv_blocks_context.{num_pools}.0.blocks.0.conv.weight")
    missing = [name for name in names if name not in tensors]
    if missing:
        raise DataError(
            f"the weights do not fit {num_pools} poolings: {', '.join(missing)} is missing. The "
            "plans and the weights must come from the same training"
        )
    return [tensors[name] for name in names]


def _names(network: nn.Module) -> Iterator[tuple[str, str]]:
    """Yield (v1's name, ours) of every parameter and buffer, in v1's order."""
    if isinstance(network, UNet):
        return _unet_names(network.architecture)
    if isinstance(network, UNetPlusPlus):
        return _unet_plus_plus_names(network.architecture)
    return ((name, name) for name in network.state_dict())


def _unet_names(architecture: Architecture) -> Iterator[tuple[str, str]]:
    levels = list(enumerate(reversed(range(architecture.num_pools))))
    count = architecture.node_convs
    for place, level in levels:
        yield from _split("conv_blocks_localization." + str(place), f"decoder.{level}.convs", count)
    yield from _encoder_names(architecture)
    for place, level in levels:
        yield f"tu.{place}.weight", f"decoder.{level}.up.weight"
    for place, level in levels:
        yield f"seg_outputs.{place}.weight", f"heads.{level}.weight"


def _unet_plus_plus_names(architecture: Architecture) -> Iterator[tuple[str, str]]:
    depth = architecture.num_pools
    grid = [(depth - i - j, i, j) for i in range(depth) for j in range(1, depth + 1 - i)]
    grid.sort(key=lambda node: (node[0], node[2]))  # v1's loc{depth - i - j}.{j - 1}
    for diagonal, i, j in grid:
        yield from _split(f"loc{diagonal}.{j - 1}", f"nodes.{i}_{j}.convs", architecture.node_convs)
    yield from _encoder_names(architecture)
    for diagonal, i, j in grid:
        yield f"up{diagonal}.{j - 1}.weight", f"nodes.{i}_{j}.up.weight"
    for place in range(depth):
        yield f"seg_outputs.{place}.weight", f"heads.{depth - 1 - place}.weight"


def _encoder_names(architecture: Architecture) -> Iterator[tuple[str, str]]:
    depth = architecture.num_pools
    for level in range(depth):
        for k in range(architecture.conv_per_stage):
            yield from _unit(f"conv_blocks_context.{level}.blocks.{k}", f"encoder.{level}.{k}")
    yield from _split(f"conv_blocks_context.{depth}", f"encoder.{depth}", architecture.node_convs)


def _split(v1: str, ours: str, count: int) -> Iterator[tuple[str, str]]:
    for k in range(count - 1):
        yield from _unit(f"{v1}.0.blocks.{k}", f"{ours}.{k}")
    yield from _unit(f"{v1}.1.blocks.0", f"{ours}.{count - 1}")


def _unit(v1: str, ours: str) -> Iterator[tuple[str, str]]:
    for part, our_part in (("conv", "conv"), ("instnorm", "norm")):
        for value in ("weight", "bias"):
            yield f"{v1}.{part}.{value}", f"{ours}.{our_part}.{value}"
