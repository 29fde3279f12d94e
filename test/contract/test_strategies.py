"""Every inference strategy keeps its contract."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nnunetlike.inference.strategies import STRATEGIES, Request


class Stub(nn.Module):
    """A network of three classes that answers with its input."""

    classes = 3
    input_divisor = (1, 1, 1)
    deep_supervision = False

    def forward(self, image: Tensor) -> Tensor:
        return image[:, :1].repeat(1, 3, *[1] * (image.ndim - 2))


class StreamStub(Stub):
    """The same, frame by frame; adds the number of frames it has seen to the first class."""

    input_divisor = (4, 4)

    def init_state(self, batch: int, height: int, width: int, *, device: torch.device) -> int:
        return 0

    def step(self, frame: Tensor, state: int) -> tuple[Tensor, int]:
        logits = self(frame)
        logits[:, 0] += state
        return logits, state + 1


PATCHES = {"sliding_window": [(4, 4, 4), (4, 4)], "frame_stream": [(4, 4)]}
"""Patches that a strategy may be asked for, by its name."""


@pytest.mark.parametrize(
    ("name", "patch"), [(name, patch) for name in STRATEGIES.names() for patch in PATCHES[name]]
)
def test_a_strategy_gives_probabilities_on_the_grid_of_the_image(
    name: str, patch: tuple[int, ...]
) -> None:
    image = np.random.default_rng(0).normal(size=(2, 3, 7, 5)).astype(np.float32)
    before = image.copy()
    request = Request(patch_size=patch, device=torch.device("cpu"))
    stub = StreamStub() if name == "frame_stream" else Stub()
    found = STRATEGIES.get(name)(stub.eval(), image, request)
    assert found.shape == (3, 3, 7, 5) and found.dtype == np.float32
    assert found.sum(0) == pytest.approx(np.ones((3, 7, 5)), abs=1e-5)
    assert np.array_equal(image, before)
