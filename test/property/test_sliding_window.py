"""Predictions of a constant network are constant, whatever the grid."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from nnunetlike.inference.strategies import Request
from nnunetlike.inference.strategies.sliding_window import sliding_window


class Constant(nn.Module):
    """Answers every voxel with the logits 0, 1, 2."""

    classes = 3
    input_divisor = (2, 2, 2)

    def forward(self, image: Tensor) -> Tensor:
        return (
            torch.arange(3.0)
            .reshape(1, 3, *[1] * (image.ndim - 2))
            .expand(len(image), 3, *image.shape[2:])
        )


@settings(max_examples=40, deadline=None)
@given(
    shape=st.tuples(*[st.integers(1, 14)] * 3),
    patch=st.one_of(st.tuples(*[st.integers(1, 6)] * 3), st.tuples(*[st.integers(1, 6)] * 2)),
    step=st.floats(0.3, 1),
    gaussian=st.booleans(),
    tiled=st.booleans(),
    mirror=st.booleans(),
)
def test_a_constant_network_predicts_a_constant(
    shape: tuple[int, int, int],
    patch: tuple[int, ...],
    step: float,
    gaussian: bool,
    tiled: bool,
    mirror: bool,
) -> None:
    network = Constant()
    network.input_divisor = (2,) * len(patch)  # type: ignore[assignment]
    request = Request(
        patch_size=patch,
        device=torch.device("cpu"),
        step_size=step,
        gaussian=gaussian,
        tiled=tiled,
        mirror_axes=tuple(range(len(patch))) if mirror else (),
    )
    found = sliding_window(network, np.zeros((1, *shape), np.float32), request)
    expected = np.exp(np.arange(3.0)) / np.exp(np.arange(3.0)).sum()
    assert found == pytest.approx(
        np.broadcast_to(expected[:, None, None, None], (3, *shape)), abs=1e-5
    )
