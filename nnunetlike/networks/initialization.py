"""How new weights are drawn."""

from __future__ import annotations

import torch
from torch import nn

SLOPE = 0.01
"""Slope of LeakyReLU below zero, in every unit."""


def initialize(network: nn.Module, generator: torch.Generator | None = None) -> None:
    """Draw all convolutions of `network` anew, in place; their biases become 0, norms 1 and 0.

    Args:
        network: weights of (transposed) convolutions become normal with the variance
            2 / ((1 + slope²) fan_in), which keeps the size of activations from layer to layer.
            A network without memory (torch's `meta` device) has nothing to draw.
        generator: source of the draws; torch's global one when absent.

    Source: He et al., "Delving Deep into Rectifiers", ICCV 2015, arXiv:1502.01852; nnU-Net v1.
    """
    if any(parameter.is_meta for parameter in network.parameters()):
        return
    convolutions = (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d)
    for module in network.modules():
        if isinstance(module, convolutions):
            nn.init.kaiming_normal_(module.weight, a=SLOPE, generator=generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, (nn.InstanceNorm2d, nn.InstanceNorm3d)):
            module.reset_parameters()
