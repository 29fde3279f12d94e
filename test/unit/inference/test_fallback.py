"""A device whose memory runs out: once more with the sums in main memory, and never for less."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nnunetlike.core.errors import ResourceError
from nnunetlike.inference.fallback import predict_image, predict_slabs
from nnunetlike.inference.strategies import Request
from nnunetlike.inference.strategies.sliding_window import sliding_window

IMAGE = np.random.default_rng(0).normal(size=(1, 6, 8, 8)).astype(np.float32)
REQUEST = Request(patch_size=(4, 8, 8), device=torch.device("cpu"), accumulate_on_device=True)


class Stub(nn.Module):
    """Two classes from one channel; raises the given errors first."""

    classes = 2

    def __init__(self, *errors: Exception) -> None:
        super().__init__()
        self.errors = list(errors)
        self.calls = 0

    def forward(self, image: Tensor) -> Tensor:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return torch.cat([image, -image], dim=1)


def test_the_labels_are_the_same_after_the_fallback(caplog: pytest.LogCaptureFixture) -> None:
    expected = predict_image(sliding_window, Stub(), IMAGE, REQUEST)
    network = Stub(torch.cuda.OutOfMemoryError("CUDA out of memory"))
    found = predict_image(sliding_window, network, IMAGE, REQUEST)
    assert np.array_equal(found, expected) and not network.errors
    assert caplog.messages == [
        "the memory of cpu ran out on an image of (1, 6, 8, 8) voxels (C, D, H, W); predicting it "
        "again with the sums in main memory"
    ]


def test_the_second_attempt_sums_in_main_memory() -> None:
    asked: list[bool | None] = []

    def strategy(network: nn.Module, image: np.ndarray, request: Request) -> np.ndarray:
        asked.append(request.accumulate_on_device)
        if len(asked) == 1:
            raise torch.cuda.OutOfMemoryError
        return image

    predict_image(strategy, Stub(), IMAGE, REQUEST)
    assert asked == [True, False]


def test_memory_that_runs_out_twice_is_an_error_with_a_way_out() -> None:
    network = Stub(*(torch.cuda.OutOfMemoryError() for _ in range(9)))
    with pytest.raises(ResourceError, match=r"window of \(4, 8, 8\) voxels.*--device cpu"):
        predict_image(sliding_window, network, IMAGE, REQUEST)
    assert network.calls == 2


def test_another_error_is_raised_as_it_is_and_not_tried_again() -> None:
    network = Stub(RuntimeError("x"))
    with pytest.raises(RuntimeError, match=r"^x$"):
        predict_image(sliding_window, network, IMAGE, REQUEST)
    assert network.calls == 1


@pytest.mark.parametrize("calls", [0, 1, 3])
def test_slabs_go_on_where_they_were_when_the_memory_ran_out(calls: int) -> None:
    image = np.random.default_rng(0).normal(size=(1, 14, 8, 8)).astype(np.float32)
    expected = predict_image(sliding_window, Stub(), image, REQUEST)

    class Later(Stub):
        def forward(self, image: Tensor) -> Tensor:
            if self.calls < calls:
                self.calls += 1
                return torch.cat([image, -image], dim=1)
            return super().forward(image)

    network = Later(torch.cuda.OutOfMemoryError("CUDA out of memory"))
    slabs = list(predict_slabs(sliding_window, network, image, REQUEST))
    assert len(slabs) > 3 and not network.errors
    assert np.array_equal(np.concatenate(slabs, 1), expected)


def test_slabs_of_a_device_that_is_too_small_are_an_error_with_a_way_out() -> None:
    network = Stub(*(torch.cuda.OutOfMemoryError() for _ in range(9)))
    with pytest.raises(ResourceError, match=r"window of \(4, 8, 8\) voxels.*--device cpu"):
        list(predict_slabs(sliding_window, network, IMAGE, REQUEST))
    assert network.calls == 2
