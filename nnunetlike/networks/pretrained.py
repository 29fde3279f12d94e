"""Starting from the weights of another training (`-pretrained_weights`)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from nnunetlike.core.errors import DataError
from nnunetlike.networks.v1_weights import state_dict_to_v1

REQUIRED = "conv_blocks"
_SHOWN = 6


def copy_pretrained(network: nn.Module, weights: Mapping[str, Tensor]) -> list[str]:
    """Copy all tensors that fit into `network`, in place, and return their names.

    Args:
        network: a network with names in nnU-Net v1.
        weights: tensors by v1's names, without `module.`.

    Returns:
        Names of what was copied; heads are among them when their shapes fit.

    Raises:
        DataError: a tensor whose name contains `conv_blocks` is missing or has another shape; the
            network is unchanged.

    Source: nnU-Net v1. Of a UNet++, only the encoder has such names.
    """
    own = state_dict_to_v1(network)
    fitting = [n for n in own if n in weights and weights[n].shape == own[n].shape]
    lacking = sorted(n for n in set(own) - set(fitting) if REQUIRED in n)
    if lacking:
        shown = "; ".join(_fault(name, own, weights) for name in lacking[:_SHOWN])
        more = f", and {len(lacking) - _SHOWN} more" if len(lacking) > _SHOWN else ""
        raise DataError(
            f"the pretrained weights do not fit this network: {shown}{more}. Train both with the "
            "same plans (nnUNet_plan_and_preprocess -overwrite_plans)"
        )
    with torch.no_grad():
        for name in fitting:
            own[name].copy_(weights[name])
    return fitting


def _fault(name: str, own: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> str:
    if name not in weights:
        return f"{name} is missing"
    return f"{name} has the shape {tuple(weights[name].shape)}, not {tuple(own[name].shape)}"
