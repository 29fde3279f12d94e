"""AdamW with steps: which parameters decay, how fast they learn, when the rate falls."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nnunetlike.training.optimizers import StepAdamW


def test_the_rate_falls_to_a_tenth_after_one_and_two_thirds() -> None:
    rates = [StepAdamW(lr=1e-4).rate(epoch, 60) for epoch in range(60)]
    assert rates == pytest.approx([1e-4] * 20 + [1e-5] * 20 + [1e-6] * 20)


def test_norms_biases_and_marked_parameters_do_not_decay() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.GroupNorm(1, 2), nn.Embedding(3, 4))
    network[2].weight.no_weight_decay = True  # type: ignore[assignment]
    optimizer = StepAdamW(weight_decay=0.5).build(network.parameters())
    decays = {id(p): g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}
    assert len(decays) == 5
    assert {name for name, p in network.named_parameters() if decays[id(p)]} == {"0.weight"}


def test_a_parameter_with_a_rate_factor_learns_at_that_multiple() -> None:
    slow, fast = nn.Parameter(torch.zeros(2, 2)), nn.Parameter(torch.zeros(2, 2))
    slow.rate_factor = 0.1  # type: ignore[attr-defined]
    optimizer = StepAdamW().build([slow, fast])
    factors = {id(g["params"][0]): g["rate_factor"] for g in optimizer.param_groups}
    assert factors == {id(slow): 0.1, id(fast): 1.0}
    assert optimizer.param_groups[0]["rate_factor"] == 1.0  # whose rate is what is reported


def test_the_groups_of_a_saved_state_are_those_of_a_new_optimizer() -> None:
    parameters = [nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2))]
    optimizer = StepAdamW().build(parameters)
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    again = StepAdamW().build(parameters)
    again.load_state_dict(optimizer.state_dict())
    assert [g["rate_factor"] for g in again.param_groups] == [1.0, 1.0]
    assert len(again.state) == 2
