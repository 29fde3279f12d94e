"""In which order the weights of convolutions lie in memory, and in which type.

Features take the order of the weights they meet first.
"""

from __future__ import annotations

import torch
from torch import nn

from nnunetlike.networks.blocks import Unit

_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


def channels_last(network: nn.Module) -> None:
    """Let the features lie last in memory, in place; no number changes."""
    for weight in network.parameters():
        _order(weight, _LAST.get(weight.dim(), torch.contiguous_format))


def channels_first(network: nn.Module) -> None:
    """Let the features lie before the axes of the patch, as torch has them; no number changes."""
    for weight in network.parameters():
        _order(weight, torch.contiguous_format)


@torch.inference_mode(False)
def _order(weight: nn.Parameter, order: torch.memory_format) -> None:
    """Change the order also amid a prediction, so that weights can be loaded after it."""
    weight.data = weight.data.contiguous(memory_format=order)


def lay_out(network: nn.Module, device: torch.device, dtype: torch.dtype | None) -> None:
    """Prepare a network, in place, for predictions in a type; weights are to be loaded after it.

    In bfloat16 on a CPU weights of convolutions are kept in that type, which autocast would
    convert them to for each window, and channels-last, which the processor's matrix unit wants;
    norms stay as they are. Anything else is undone.

    Args:
        network: other networks than those of `Unit`s stay as they are.
        device: where it predicts.
        dtype: of autocast; None: there is none.
    """
    unit = next((module for module in network.modules() if isinstance(module, Unit)), None)
    if unit is None:
        return
    is_narrow = device.type == "cpu" and dtype == torch.bfloat16
    kind = torch.bfloat16 if is_narrow else unit.norm.weight.dtype
    for module in network.modules():
        if isinstance(module, nn.modules.conv._ConvNd):
            module.to(kind)
    (channels_last if is_narrow else channels_first)(network)
