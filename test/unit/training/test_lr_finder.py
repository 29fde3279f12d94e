"""The learning-rate range test on a parabola."""

from __future__ import annotations

from itertools import repeat

import numpy as np
import pytest
import torch
from torch import nn

from nnunetlike.training.lr_finder import RangeTest, range_test
from nnunetlike.training.objectives import Batch, StepOutput
from nnunetlike.training.runtime import SingleProcess


class Parabola(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(1.0))

    def forward(self, batch: Batch) -> StepOutput:
        return StepOutput(loss=self.weight**2)


def _run(last: float, steps: int = 50) -> RangeTest:
    objective = Parabola()
    batch = {"image": np.zeros((1, 1, 2), np.float32), "label": np.zeros((1, 2), np.int16)}
    return range_test(
        objective,
        torch.optim.SGD(objective.parameters(), lr=1.0),
        SingleProcess(torch.device("cpu")),
        repeat({**batch, "case_ids": []}),
        steps=steps,
        first=1e-3,
        last=last,
    )


def test_rates_grow_by_a_constant_factor_from_first_to_last() -> None:
    found = _run(last=0.1)
    factors = np.diff(np.log(found.rates))
    assert found.rates[0] == pytest.approx(1e-3)
    assert found.rates[-1] == pytest.approx(0.1)
    np.testing.assert_allclose(factors, factors[0], rtol=1e-9)


def test_the_first_smoothed_loss_is_the_loss() -> None:
    assert _run(last=0.1).losses[0] == pytest.approx(1.0)


def test_a_loss_that_explodes_ends_the_test() -> None:
    found = _run(last=1e6, steps=200)
    assert len(found.rates) < 200


def test_steepest_is_where_the_loss_falls_most() -> None:
    assert RangeTest((0.1, 0.2, 0.4), (1.0, 0.9, 0.1)).steepest == 0.2
