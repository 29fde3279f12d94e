"""Videos frame by frame: order, padding and the two directions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nnunetlike.inference.strategies import STRATEGIES, Request


class Counting(nn.Module):
    """Two classes; the logit of the second is the number of frames seen before."""

    classes = 2
    input_divisor = (16, 16)

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[tuple[int, ...]] = []

    def init_state(self, batch: int, height: int, width: int, *, device: torch.device) -> float:
        assert (batch, height % 16, width % 16) == (1, 0, 0)
        return 0.0

    def step(self, frame: Tensor, state: float) -> tuple[Tensor, float]:
        self.sizes.append(tuple(frame.shape))
        logits = torch.zeros(len(frame), 2, *frame.shape[2:])
        logits[:, 1] = state + frame[:, 0]
        return logits, state + 1


def predict(image: np.ndarray, *, bidirectional: bool = False) -> tuple[np.ndarray, Counting]:
    network = Counting().eval()
    request = Request(patch_size=(16, 16), device=torch.device("cpu"), bidirectional=bidirectional)
    return STRATEGIES.get("frame_stream")(network, image, request), network


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def test_each_frame_is_seen_once_in_its_order_and_padded_to_what_the_network_pools() -> None:
    image = np.zeros((1, 5, 20, 33), np.float32)
    image[0, :, 0, 0] = 1
    found, network = predict(image)
    assert network.sizes == [(1, 1, 32, 48)] * 5
    assert found.shape == (2, 5, 20, 33)
    assert found[1, :, 19, 32] == pytest.approx(sigmoid(np.arange(5.0)))
    assert found[1, :, 0, 0] == pytest.approx(sigmoid(np.arange(5.0) + 1))


def test_both_directions_are_averaged() -> None:
    found, network = predict(np.zeros((1, 4, 16, 16), np.float32), bidirectional=True)
    assert len(network.sizes) == 8
    forth, back = sigmoid(np.arange(4.0)), sigmoid(np.arange(3.0, -1, -1))
    assert found[1, :, 3, 3] == pytest.approx((forth + back) / 2)


def test_a_video_of_one_frame_is_predicted() -> None:
    assert predict(np.zeros((1, 1, 16, 16), np.float32))[0].shape == (2, 1, 16, 16)
