"""The sliding window with networks whose output is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nnunetlike.inference.strategies import STRATEGIES, Request

CPU = torch.device("cpu")
predict = STRATEGIES.get("sliding_window")


class Pointwise(nn.Module):
    """Logits (v, -v, 0) of the first channel v: every voxel for itself."""

    classes = 3
    input_divisor = (4, 4, 4)

    def forward(self, image: Tensor) -> Tensor:
        first = image[:, :1]
        return torch.cat([first, -first, torch.zeros_like(first)], 1)


class Slanted(Pointwise):
    """Adds to class 0 what grows along the last axis of the patch."""

    def forward(self, image: Tensor) -> Tensor:
        logits = super().forward(image)
        slope = torch.linspace(-1, 1, image.shape[-1])
        return logits + torch.cat([slope.expand_as(image[:, :1])] + [image[:, :1] * 0] * 2, 1)


def _image(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def _softmax(image: np.ndarray) -> np.ndarray:
    powers = np.exp(np.stack([image[0], -image[0], np.zeros_like(image[0])]))
    return powers / powers.sum(0)


@pytest.mark.parametrize("gaussian", [True, False])
@pytest.mark.parametrize("mirror", [(), (0, 1, 2)])
@pytest.mark.parametrize("shape", [(8, 8, 8), (5, 19, 13), (3, 3, 3)])
def test_windows_of_a_pointwise_network_give_its_output_everywhere(
    shape: tuple[int, ...], mirror: tuple[int, ...], gaussian: bool
) -> None:
    image = _image(2, *shape)
    request = Request(patch_size=(8, 8, 8), device=CPU, mirror_axes=mirror, gaussian=gaussian)
    found = predict(Pointwise(), image, request)
    assert found.shape == (3, *shape) and found.dtype == np.float32
    assert found == pytest.approx(_softmax(image), abs=1e-6)


def test_a_network_of_two_axes_predicts_slice_by_slice() -> None:
    image = _image(1, 3, 11, 13)
    request = Request(patch_size=(8, 8), device=CPU, mirror_axes=(0, 1))
    whole = predict(Slanted(), image, request)
    alone = [predict(Slanted(), image[:, d : d + 1], request) for d in range(3)]
    assert whole == pytest.approx(np.concatenate(alone, 1), abs=1e-6)


def test_mirroring_makes_a_prediction_blind_to_orientation() -> None:
    image = _image(1, 8, 8, 8)
    request = Request(patch_size=(8, 8, 8), device=CPU, mirror_axes=(2,))
    found = predict(Slanted(), image, request)
    turned = predict(Slanted(), np.ascontiguousarray(image[..., ::-1]), request)
    assert turned[..., ::-1] == pytest.approx(found, abs=1e-6)


def test_without_mirroring_orientation_counts() -> None:
    image = _image(1, 8, 8, 8)
    request = Request(patch_size=(8, 8, 8), device=CPU)
    found = predict(Slanted(), image, request)
    turned = predict(Slanted(), np.ascontiguousarray(image[..., ::-1]), request)
    assert np.abs(turned[..., ::-1] - found).max() > 0.1


def test_untiled_prediction_is_one_pass_over_the_padded_image() -> None:
    seen: list[tuple[int, ...]] = []

    class Recording(Pointwise):
        def forward(self, image: Tensor) -> Tensor:
            seen.append(tuple(image.shape))
            return super().forward(image)

    image = _image(1, 9, 8, 5)
    request = Request(patch_size=(8, 8, 8), device=CPU, tiled=False)
    found = predict(Recording(), image, request)
    assert seen == [(1, 1, 12, 8, 8)]
    assert found == pytest.approx(_softmax(image), abs=1e-6)


def test_the_image_is_left_as_it_was() -> None:
    image = _image(1, 9, 9, 9)
    before = image.copy()
    predict(Pointwise(), image, Request(patch_size=(8, 8, 8), device=CPU, mirror_axes=(0,)))
    assert np.array_equal(image, before)


def test_autocast_computes_in_the_type_asked_for() -> None:
    kinds = []

    class Convolution(nn.Module):
        classes = 3
        input_divisor = (1, 1, 1)

        def __init__(self) -> None:
            super().__init__()
            self.convolution = nn.Conv3d(1, 3, 1)

        def forward(self, image: Tensor) -> Tensor:
            logits = self.convolution(image)
            kinds.append(logits.dtype)
            return logits

    request = Request(patch_size=(8, 8, 8), device=CPU, autocast=torch.bfloat16)
    found = predict(Convolution().eval(), _image(1, 8, 8, 8), request)
    assert kinds == [torch.bfloat16]
    assert found.dtype == np.float32
