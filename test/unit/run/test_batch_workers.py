"""How many processes make batches where memory is short."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import pytest

from nnunetlike.core.parallel import WORKER_BYTES
from nnunetlike.plans.plans import Plans
from nnunetlike.run import batch_workers
from nnunetlike.run.batch_workers import (
    COPIES,
    batch_bytes,
    how_to_wait_less,
    part_of_free,
    with_workers_that_fit,
)


@dataclass(frozen=True)
class Run:
    workers: int
    use_compressed_data: bool = False
    augment_on: str = "cpu"


@dataclass(frozen=True)
class FakeFold:
    run: Run
    stage: Any
    share: Any = field(default_factory=lambda: SimpleNamespace(samples=2))
    network_task: Any = field(default_factory=lambda: SimpleNamespace(channels=3))
    notes: tuple[str, ...] = ("first",)
    store: Any = field(default_factory=lambda: SimpleNamespace(folder="STAGE"))


@pytest.fixture
def fold(tiny_plans: Callable[[int], Plans]) -> Callable[[int], Any]:
    return lambda workers: FakeFold(Run(workers), tiny_plans(3).stages[0])


def give(monkeypatch: pytest.MonkeyPatch, free: int | None) -> None:
    monkeypatch.setattr(batch_workers, "free_memory", lambda: free)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)


def test_a_batch_takes_its_images_and_labels(fold: Callable[[int], Any]) -> None:
    assert batch_bytes(fold(1)) == 2 * (8 * 16 * 16) * (3 * 4 + 2)


@pytest.mark.parametrize("free", [None, 2**40])
def test_workers_are_those_asked_for_where_memory_suffices(
    fold: Callable[[int], Any], free: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    give(monkeypatch, free)
    for workers in (0, 1, 12):
        assert with_workers_that_fit(fold(workers)) == fold(workers)


def test_fewer_workers_run_where_memory_is_short(
    fold: Callable[[int], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    each = WORKER_BYTES + COPIES * batch_bytes(fold(1))
    give(monkeypatch, 2 * 6 * each)
    assert with_workers_that_fit(fold(4)) == fold(4)  # four, and two for validation
    found = with_workers_that_fit(fold(12))
    assert found.run.workers == 4
    assert found.notes == (
        "first",
        "batches are made by 4 instead of 12 worker processes, since each needs about 250.2 MiB "
        "and they may take 1.5 GiB of the free memory",
    )


def test_one_worker_remains_and_none_stays_none(
    fold: Callable[[int], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    give(monkeypatch, 1000)
    assert with_workers_that_fit(fold(12)).run.workers == 1
    assert with_workers_that_fit(fold(1)) == fold(1)
    assert with_workers_that_fit(fold(0)) == fold(0)


def test_processes_that_train_together_share_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    give(monkeypatch, 800)
    assert part_of_free(0.5) == 400
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert part_of_free(0.5) == 100


def test_the_advice_when_batches_are_waited_for_fits_the_run(
    fold: Callable[[int], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    monkeypatch.setattr(batch_workers, "available_cores", lambda: 8)
    assert how_to_wait_less(fold(3)) == (
        "3 processes make them and 8 cores may be used; try --num_workers"
    )
    packed = replace(fold(8), run=Run(8, use_compressed_data=True))
    assert how_to_wait_less(packed).startswith("leave out --use_compressed_data")
    assert how_to_wait_less(fold(8)).startswith("all 8 cores that this process may use make them")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert "all 4 cores" in how_to_wait_less(fold(4))
