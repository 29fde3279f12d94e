"""Batches on their way to a device, with a stream of a device that is not there."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Any

import numpy as np
import pytest
import torch

from nnunetlike.training.feeding import Feeder, feeder, pinned
from nnunetlike.training.runtime import SingleProcess


class FakeStream:
    """Writes down what is begun in it and what waits for it."""

    def __init__(self, log: list[Any]) -> None:
        self.log = log

    def prepare(self, make):
        batch = make()
        self.log.append(("prepare", batch["case_ids"]))
        return batch

    def hand_over(self, batch):
        self.log.append(("hand over", batch["case_ids"]))
        return batch


def numbered(log: list[Any]) -> Iterator[Any]:
    for i in count():
        log.append(("taken", i))
        yield {"image": np.zeros((1, 1, 2)), "label": np.zeros((1, 2)), "case_ids": i}


def test_the_next_batch_is_under_way_before_the_network_begins_with_one():
    log: list[Any] = []
    batches = Feeder(numbered(log), lambda batch: batch, FakeStream(log))
    next(batches)
    assert log == [
        ("taken", 0), ("prepare", 0), ("hand over", 0), ("taken", 1), ("prepare", 1),
    ]  # fmt: skip


def test_a_batch_is_handed_over_before_another_is_queued_behind_it():
    log: list[Any] = []
    batches = Feeder(numbered(log), lambda batch: batch, FakeStream(log))
    assert [next(batches)["case_ids"] for _ in range(3)] == [0, 1, 2]
    assert log.index(("hand over", 1)) < log.index(("taken", 2))


def test_a_cpu_makes_no_batch_ahead():
    log: list[Any] = []
    batches = feeder(numbered(log), lambda batch: batch, torch.device("cpu"))
    assert next(batches)["case_ids"] == 0
    assert log == [("taken", 0)]


def test_a_cpu_takes_batches_as_they_lie():
    batch = next(numbered([]))
    assert SingleProcess(torch.device("cpu")).arrived(batch) is batch


def test_all_arrays_of_a_batch_are_pinned(monkeypatch: pytest.MonkeyPatch):
    seen: list[tuple[int, ...]] = []

    def pin(tensor: torch.Tensor) -> torch.Tensor:
        seen.append(tuple(tensor.shape))
        return tensor.clone()

    monkeypatch.setattr(torch.Tensor, "pin_memory", pin)
    read = {
        "image": [np.ones((1, 4)), np.ones((1, 5))], "label": [np.ones(4), np.ones(5)],
        "orders": ["a", "b"], "case_ids": ["x", "y"],
    }  # fmt: skip
    found: Any = pinned(read)  # type: ignore[arg-type]
    assert seen == [(1, 4), (1, 5), (4,), (5,)]
    assert found["orders"] == ["a", "b"] and found["case_ids"] == ["x", "y"]
    assert torch.equal(found["image"][1], torch.ones(1, 5, dtype=torch.float64))
    assert isinstance(read["image"][0], np.ndarray)
    plain: Any = pinned({"image": np.ones((1, 4)), "label": np.ones(4), "case_ids": []})
    assert torch.equal(plain["label"], torch.ones(4, dtype=torch.float64))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_batches_on_cuda_are_those_of_the_host():
    device = torch.device("cuda")
    runtime = SingleProcess(device)

    def random() -> Iterator[Any]:
        for i in count():
            rng = np.random.default_rng(i)
            image = rng.normal(size=(2, 1, 64, 64, 64)).astype(np.float32)
            yield {"image": image, "label": (image[:, 0] > 0).astype(np.int16), "case_ids": [i]}

    expected = random()
    batches = runtime.feed(random())
    for _ in range(5):
        batch, host = next(batches), next(expected)
        torch.mm(torch.randn(2000, 2000, device=device), torch.randn(2000, 2000, device=device))
        np.testing.assert_array_equal(batch["image"].cpu().numpy(), host["image"])
        np.testing.assert_array_equal(batch["label"].cpu().numpy(), host["label"])
