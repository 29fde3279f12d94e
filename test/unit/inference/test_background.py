"""Work in the background: ordered, bounded, errors kept, dead workers noticed.

Worker processes cannot import test modules, so the calls are to functions of the package.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

import pytest

from nnunetlike.core.errors import DataError, NnunetlikeError, WorkerError
from nnunetlike.core.parallel import Budget
from nnunetlike.core.serialization import load_json, save_json, write_text
from nnunetlike.core.workers import WorkerPool
from nnunetlike.inference.background import Behind, ahead


@pytest.mark.parametrize("processes", [0, 2])
def test_results_come_in_order_and_errors_in_their_place(processes: int, tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.json" for number in range(4)]
    for number in (0, 2, 3):
        save_json(number, paths[number])
    found = list(ahead(load_json, paths, budget=Budget(processes)))
    assert [item for item, _ in found] == paths
    assert [r for _, r in found if not isinstance(r, NnunetlikeError)] == [0, 2, 3]
    assert isinstance(found[1][1], DataError)


def test_without_workers_nothing_is_computed_before_it_is_asked_for() -> None:
    computed: list[int] = []
    results = ahead(computed.append, [1, 2], budget=Budget(0))
    next(results)
    assert computed == [1]


@pytest.mark.parametrize("processes", [0, 1])
def test_errors_of_writers_are_collected_with_their_case(processes: int, tmp_path: Path) -> None:
    with Behind(Budget(processes)) as behind:
        behind.submit("first", load_json, tmp_path / "nowhere")
        behind.submit("second", write_text, tmp_path / "written", "text")
    assert {name: str(error) for name, error in behind.errors.items()} == {
        "first": f"first: {tmp_path / 'nowhere'} does not exist"
    }
    assert (tmp_path / "written").exists()


def test_a_dead_reader_takes_only_its_own_case_along() -> None:
    found = list(ahead(os._exit, [1], budget=Budget(1)))
    found += list(ahead(abs, [-1, -2], budget=Budget(1)))
    assert isinstance(found[0][1], WorkerError) and "exit code 1" in str(found[0][1])
    assert [result for _, result in found[1:]] == [1, 2]


def test_a_dead_writer_takes_only_its_own_case_along(tmp_path: Path) -> None:
    with Behind(Budget(1)) as behind:
        behind.submit("liver_4", os._exit, 1)
        behind.submit("liver_5", write_text, tmp_path / "written", "text")
    assert list(behind.errors) == ["liver_4"]
    assert isinstance(behind.errors["liver_4"], WorkerError)
    assert (tmp_path / "written").exists()


def test_what_is_in_hand_is_written_when_the_network_fails(tmp_path: Path) -> None:
    def fail() -> None:
        with Behind(Budget(1)) as behind:
            behind.submit("a", write_text, tmp_path / "written", "text")
            raise RuntimeError("x")

    with pytest.raises(RuntimeError, match="x"):
        fail()
    assert (tmp_path / "written").exists()


def test_an_interruption_ends_writers_at_once() -> None:
    def interrupted() -> None:
        with Behind(Budget(1)) as behind:
            behind.submit("a", time.sleep, 600)
            raise KeyboardInterrupt

    begin = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert time.monotonic() - begin < 30


def test_no_more_results_than_asked_for_are_in_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    most = _largest_number_in_hand(monkeypatch, Budget(3), ())
    assert most == 3


def test_results_that_do_not_fit_into_memory_together_are_made_one_by_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert _largest_number_in_hand(monkeypatch, Budget(3, memory=2**30), [2.0**30] * 6) == 1


def _largest_number_in_hand(
    monkeypatch: pytest.MonkeyPatch, budget: Budget, costs: Sequence[float]
) -> int:
    begun: list[int] = []
    begin = WorkerPool.begin

    def counted(pool: WorkerPool[Any], key: Hashable, item: Any) -> None:
        begun.append(int(str(key)))
        begin(pool, key, item)

    monkeypatch.setattr(WorkerPool, "begin", counted)
    results = ahead(abs, range(6), budget=budget, costs=costs)
    return max(len(begun) - taken for taken, _ in enumerate(results))


def test_workers_do_without_torch() -> None:
    code = (
        "import sys, nnunetlike.inference.cases, nnunetlike.inference.export\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "False"
