"""The sliding window with networks whose output is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nnunetlike.inference.strategies import STRATEGIES, Request, slabs_of

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


@pytest.mark.parametrize("mirror", [(), (0, 1)])
@pytest.mark.parametrize(
    ("shape", "patch"),
    [
        ((29, 11, 9), (8, 8, 8)),
        ((5, 19, 13), (8, 8, 8)),
        ((7, 11, 13), (8, 8)),
        ((8, 9, 9), (8,) * 3),
    ],
)
def test_slabs_put_together_are_the_whole_bit_for_bit(
    shape: tuple[int, ...], patch: tuple[int, ...], mirror: tuple[int, ...]
) -> None:
    image = _image(1, *shape)
    request = Request(patch_size=patch, device=CPU, mirror_axes=mirror)
    slabs = list(slabs_of(predict, Slanted(), image, request))
    assert np.array_equal(np.concatenate(slabs, 1), predict(Slanted(), image, request))


def test_a_slab_comes_as_soon_as_no_further_window_reaches_it() -> None:
    seen = []

    class Counting(Pointwise):
        def forward(self, image: Tensor) -> Tensor:
            seen.append(1)
            return super().forward(image)

    image = _image(1, 16, 8, 8)
    slabs = slabs_of(predict, Counting(), image, Request(patch_size=(8, 8, 8), device=CPU))
    after = [(slab.shape[1], len(seen)) for slab in slabs]  # windows at 0, 4 and 8
    assert after == [(4, 1), (4, 2), (8, 3)]


def test_sums_are_held_of_as_many_slices_as_a_window_is_deep(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shapes = []
    zeros = torch.zeros

    def noted(shape: tuple[int, ...], **words: object) -> Tensor:
        shapes.append(tuple(shape))
        return zeros(shape, **words)  # type: ignore[call-overload]

    monkeypatch.setattr(torch, "zeros", noted)
    image = _image(1, 50, 9, 10)
    for _ in slabs_of(predict, Ones(), image, Request(patch_size=(8, 8, 8), device=CPU)):
        pass
    assert shapes == [(2, 8, 9, 10)]


class Ones(nn.Module):
    """Answers with the same array each time."""

    classes = 2

    def __init__(self) -> None:
        super().__init__()
        self.answer = torch.ones(1, 2, 8, 8, 8)

    def forward(self, image: Tensor) -> Tensor:
        return self.answer.expand(len(image), *self.answer.shape[1:])


@pytest.mark.parametrize("mirror", [(), (0,)])
def test_what_a_network_gives_is_not_written_into(mirror: tuple[int, ...]) -> None:
    network = Ones()
    request = Request(patch_size=(8, 8, 8), device=CPU, mirror_axes=mirror, logits=True)
    predict(network, _image(1, 8, 8, 12), request)
    assert torch.equal(network.answer, torch.ones(1, 2, 8, 8, 8))


def test_between_slabs_torch_is_as_the_caller_left_it() -> None:
    request = Request(patch_size=(8, 8, 8), device=CPU, autocast=torch.bfloat16)
    for _ in slabs_of(predict, Pointwise(), _image(1, 20, 8, 8), request):
        assert not torch.is_inference_mode_enabled() and not torch.is_autocast_enabled("cpu")
