"""Work in the background: ordered, bounded, errors kept, dead workers noticed.

Worker processes cannot import test modules, so the calls are to functions of the package.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from nnunetlike.core.errors import DataError, NnunetlikeError, WorkerError
from nnunetlike.core.serialization import load_json, save_json, write_text
from nnunetlike.inference.background import Behind, ahead, worker_pool


@pytest.mark.parametrize("processes", [0, 2])
def test_results_come_in_order_and_errors_in_their_place(processes: int, tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.json" for number in range(4)]
    for number in (0, 2, 3):
        save_json(number, paths[number])
    with worker_pool(processes) as pool:
        found = list(ahead(pool, load_json, paths, at_once=2))
    assert [item for item, _ in found] == paths
    assert [r for _, r in found if not isinstance(r, NnunetlikeError)] == [0, 2, 3]
    assert isinstance(found[1][1], DataError)


def test_without_workers_nothing_is_computed_before_it_is_asked_for() -> None:
    computed: list[int] = []
    results = ahead(None, computed.append, [1, 2], at_once=1)
    next(results)
    assert computed == [1]


@pytest.mark.parametrize("processes", [0, 1])
def test_errors_of_writers_are_collected_with_their_case(processes: int, tmp_path: Path) -> None:
    with worker_pool(processes) as pool, Behind(pool, 1) as behind:
        behind.submit("first", load_json, tmp_path / "nowhere")
        behind.submit("second", write_text, tmp_path / "written", "text")
    assert [str(error) for error in behind.errors] == [
        f"first: {tmp_path / 'nowhere'} does not exist"
    ]
    assert (tmp_path / "written").exists()


def test_a_dead_worker_is_an_error_that_names_the_case() -> None:
    with pytest.raises(WorkerError, match="liver_3"), worker_pool(1) as pool:
        list(ahead(pool, os._exit, [1], at_once=1, name=lambda _: "liver_3"))


def test_a_dead_writer_is_noticed() -> None:
    with (
        pytest.raises(WorkerError, match="liver_4"),
        worker_pool(1) as pool,
        Behind(pool, 1) as behind,
    ):
        behind.submit("liver_4", os._exit, 1)


class Counting(ProcessPoolExecutor):
    """Runs calls here and counts them."""

    def __init__(self) -> None:
        self.submitted = 0

    def submit(self, function: Callable[..., Any], /, *arguments: Any) -> Future[Any]:  # type: ignore[override]
        self.submitted += 1
        call: Future[Any] = Future()
        call.set_result(function(*arguments))
        return call


def test_no_more_results_than_asked_for_are_in_hand() -> None:
    pool = Counting()
    for taken, _ in enumerate(ahead(pool, str, range(10), at_once=3), start=1):
        assert pool.submitted <= taken + 3


def test_workers_do_without_torch() -> None:
    code = (
        "import sys, nnunetlike.inference.cases, nnunetlike.inference.export\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
