"""How new weights are drawn."""

from __future__ import annotations

import math

import torch

from nnunetlike.networks.initialization import initialize
from nnunetlike.networks.unet_plus_plus import UNetPlusPlusSpec


def test_weights_have_the_variance_that_leaky_relu_asks_for() -> None:
    spec, task = UNetPlusPlusSpec(base_features=32), UNetPlusPlusSpec.tiny(2)[1]
    network = spec.build(task)
    for name, weight in network.named_parameters():
        if weight.ndim > 2 and weight.numel() > 20_000:
            fan_in = weight[0].numel()
            gain = float(weight.detach().std()) * math.sqrt(fan_in)
            assert abs(gain - math.sqrt(2 / (1 + 0.01**2))) < 0.03, name


def test_biases_are_0_and_norms_are_1_and_0() -> None:
    spec, task = UNetPlusPlusSpec.tiny(2)
    network = spec.build(task)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(7)
    initialize(network)
    for name, parameter in network.named_parameters():
        if name.endswith("bias"):
            assert (parameter == 0).all(), name
        elif "norm" in name:
            assert (parameter == 1).all(), name
        else:
            assert parameter.std() > 0, name


def test_the_same_generator_draws_the_same_weights() -> None:
    spec, task = UNetPlusPlusSpec.tiny(2)
    networks = [spec.build(task) for _ in range(2)]
    for network in networks:
        initialize(network, torch.Generator().manual_seed(3))
    first, second = (network.state_dict() for network in networks)
    assert all(torch.equal(first[name], second[name]) for name in first)
