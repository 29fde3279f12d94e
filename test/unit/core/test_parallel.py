"""Work in worker processes: results, failures told, budgets kept, no worker left behind."""

from __future__ import annotations

import importlib
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from nnunetlike.core import parallel, workers
from nnunetlike.core.errors import (
    DataError,
    ResourceError,
    UsageError,
    WorkerBugError,
    WorkerError,
)
from nnunetlike.core.parallel import Budget, budget_for, default_processes, process_map
from nnunetlike.core.resources import available_cores
from nnunetlike.core.workers import WorkerPool

# Worker processes import functions by name, and a test module has none they could find.
FUNCTIONS = """
import errno, os, signal, sys, time
from pathlib import Path
from nnunetlike.core.errors import DataError

def double(value):
    return 2 * value

def refuse_odd(value):
    if value % 2:
        raise DataError("it is odd")
    return value

def die_at_two(value):
    if value == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return value

def exit_at_two(value):
    if value == 2:
        os._exit(7)
    return value

class Strange(Exception):
    def __init__(self, one, two):
        super().__init__(one)

def raise_strange(value):
    if value == 2:
        raise Strange("odd", lambda: None)
    return value

def unpicklable_result(value):
    return (lambda: None) if value == 2 else value

def die_once(path):
    if path.name == "two":
        if not path.exists():
            path.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        path.write_text("done")
    return path.name

def memory_runs_out_at_two(value):
    if value == 2:
        raise MemoryError("Unable to allocate 5 GiB")
    return value

def fill_the_disk(value):
    raise OSError(errno.ENOSPC, "No space left on device", "/somewhere/case.npz")

def start_method(value):
    import multiprocessing
    return type(multiprocessing.current_process()).__name__

def together(folder):
    mine = folder / str(os.getpid())
    mine.touch()
    time.sleep(0.05)
    number = len(list(folder.iterdir()))
    mine.unlink()
    return number

def sleep_long(path):
    path.write_text(str(os.getpid()))
    try:
        time.sleep(600)
    finally:
        path.with_suffix(".cleaned").touch()

def ask_for_more_processes(value):
    from nnunetlike.core.parallel import process_map
    return process_map(double, [value, value], processes=2)

def large(value):
    return bytes(3_000_000)

def remark(value):
    import logging
    logger = logging.getLogger("nnunetlike.remarks")
    logger.debug("nobody asked")
    logger.info("%s.png: alpha is left out", value)
    if value % 10 == 3:
        logger.warning("%s.png: too dark", value)
    return value
"""


@pytest.fixture(autouse=True)
def no_worker_is_left_behind() -> Iterator[None]:
    before = {process.pid for process in multiprocessing.active_children()}
    yield
    assert {process.pid for process in multiprocessing.active_children()} == before


@pytest.fixture(autouse=True)
def four_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "available_cores", lambda: 4)


@pytest.fixture
def functions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    (tmp_path / "functions_of_workers.py").write_text(FUNCTIONS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.delitem(sys.modules, "functions_of_workers", raising=False)
    return importlib.import_module("functions_of_workers")


@pytest.mark.parametrize("processes", [0, 1, 2])
def test_results_come_in_the_order_of_the_items(functions: ModuleType, processes: int) -> None:
    found = process_map(functions.double, range(7), processes=processes)
    assert found == [0, 2, 4, 6, 8, 10, 12]


@pytest.mark.parametrize("method", ["spawn", "forkserver", "fork"])
def test_every_start_method_works(
    functions: ModuleType, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    monkeypatch.setenv("nnUNet_start_method", method)
    kinds = set(process_map(functions.start_method, range(3), processes=2))
    assert kinds == {
        {"spawn": "Spawn", "forkserver": "ForkServer", "fork": "Fork"}[method] + "Process"
    }


def test_an_unknown_start_method_is_an_error_of_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("nnUNet_start_method", "spawm")
    with pytest.raises(UsageError, match=r"nnUNet_start_method is 'spawm'.*spawn"):
        workers.process_context()


@pytest.mark.parametrize("processes", [0, 2])
def test_wrong_data_are_told_for_all_cases_at_once(functions: ModuleType, processes: int) -> None:
    with pytest.raises(DataError) as caught:
        process_map(functions.refuse_odd, range(5), processes=processes, name="case_{}".format)
    assert str(caught.value) == (
        "2 of 5 cases failed, the others are done:\n  case_1: it is odd\n  case_3: it is odd"
    )


@pytest.mark.parametrize("processes", [0, 2])
def test_an_error_names_the_case(functions: ModuleType, processes: int) -> None:
    with pytest.raises(DataError, match=r"^1 of 2 .* done:\n  case_3: it is odd$"):
        process_map(functions.refuse_odd, [2, 3], processes=processes, name="case_{}".format)


def test_the_case_of_a_killed_worker_is_done_again_alone(
    functions: ModuleType, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    items = [tmp_path / name for name in ("one", "two", "three", "four")]
    with caplog.at_level(logging.INFO, "nnunetlike"):
        found = process_map(functions.die_once, items, processes=2, name=lambda path: path.name)
    assert found == ["one", "two", "three", "four"]
    assert (tmp_path / "two").read_text() == "done"
    first, second = (record.getMessage() for record in caplog.records[-2:])
    assert first.startswith("two: its worker (process ") and "was killed by SIGKILL" in first
    assert second == "two: done at the second attempt"


def test_a_worker_killed_twice_is_told_with_case_signal_and_memory(functions: ModuleType) -> None:
    with pytest.raises(
        WorkerError,
        match=r"case_2: tried twice, the second time alone: its worker \(process \d+\) was killed "
        r"by SIGKILL; .*of memory are free now\. .*use fewer processes",
    ) as caught:
        process_map(functions.die_at_two, range(4), processes=2, name="case_{}".format)
    assert caught.value.exit_code == 4


def test_a_worker_that_leaves_is_told_with_its_exit_code(functions: ModuleType) -> None:
    with pytest.raises(WorkerError, match=r"case_2: .*ended with exit code 7"):
        process_map(functions.exit_at_two, range(4), processes=2, name="case_{}".format)


@pytest.mark.parametrize("processes", [0, 2])
def test_the_traceback_of_a_bug_is_the_last_thing_shown(
    functions: ModuleType, processes: int
) -> None:
    with pytest.raises(WorkerBugError) as caught:
        process_map(functions.raise_strange, range(4), processes=processes, name="case_{}".format)
    lines = str(caught.value).splitlines()
    assert "  case_2: " in lines[1] and "a fault of the program" in lines[1]
    assert lines[2] == "Traceback (most recent call last):"
    assert lines[-1] == "functions_of_workers.Strange: odd"
    assert caught.value.exit_code == 1


def test_a_result_that_cannot_be_sent_is_an_error_and_not_a_hang(functions: ModuleType) -> None:
    with pytest.raises(WorkerBugError, match=r"(?s)case_2.*pickle"):
        process_map(functions.unpicklable_result, range(3), processes=2, name="case_{}".format)


def test_lack_of_memory_is_tried_again_alone(functions: ModuleType) -> None:
    with pytest.raises(WorkerError, match=r"case_2: tried twice.*memory ran out.*5 GiB"):
        process_map(functions.memory_runs_out_at_two, [1, 2], processes=2, name="case_{}".format)


@pytest.mark.parametrize("processes", [0, 2])
def test_a_full_disk_ends_the_work_at_once(functions: ModuleType, processes: int) -> None:
    with pytest.raises(ResourceError, match=r"the disk is full: /somewhere/case\.npz") as caught:
        process_map(functions.fill_the_disk, range(100), processes=processes)
    assert "cases failed" not in str(caught.value)


def test_workers_may_not_start_others_and_work_alone(functions: ModuleType) -> None:
    found = process_map(functions.ask_for_more_processes, [1, 2], processes=2)
    assert found == [[2, 2], [4, 4]]


def test_cases_too_large_to_stand_side_by_side_run_alone(
    functions: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(parallel, "free_memory", lambda: 2**30)
    at_work = tmp_path / "at_work"
    at_work.mkdir()
    with caplog.at_level(logging.INFO, "nnunetlike"):
        found = process_map(
            functions.together,
            [at_work] * 4,
            processes=3,
            title="cropping",
            name=lambda _: "giant",
            cost=lambda _: 2**30,
        )
    assert found == [1, 1, 1, 1]
    assert [record.getMessage() for record in caplog.records] == [
        "cropping: fewer than 3 at a time, since the largest case, giant, needs about 1.2 GiB of "
        "921.6 MiB free memory; it runs alone"
    ]


def test_a_budget_admits_small_cases_beside_a_large_one() -> None:
    budget = Budget(processes=3, memory=10)
    assert budget.admits(50, [])
    assert budget.admits(3, [6]) and not budget.admits(5, [6])
    assert not budget.admits(0, [1, 1, 1])


def test_no_more_at_a_time_than_cores_and_one_line_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.INFO, "nnunetlike"):
        budget = budget_for(8, [0.0] * 20, ["case"] * 20, "cropping")
    assert budget.processes == 4
    assert caplog.messages == ["cropping: 4 of 8 processes, since 4 cores may be used"]


def test_never_more_than_asked(caplog: pytest.LogCaptureFixture) -> None:
    assert budget_for(3, [0.0] * 20, ["case"] * 20).processes == 3
    assert not caplog.messages


def test_default_processes_are_no_more_than_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("nnUNet_def_n_proc", "1000")
    assert default_processes() == 4
    monkeypatch.setenv("nnUNet_def_n_proc", "1")
    assert default_processes() == 1


def test_an_error_outside_ends_workers_at_once(functions: ModuleType, tmp_path: Path) -> None:
    note = tmp_path / "note"
    begin = time.monotonic()

    def interrupted() -> None:
        with WorkerPool(functions.sleep_long, 1) as pool:
            pool.begin(0, note)
            wait_for(note)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert time.monotonic() - begin < 30
    assert note.with_suffix(".cleaned").exists()  # `finally` clauses ran, temporary files are gone


def test_large_answers_of_a_killed_worker_do_not_hang(functions: ModuleType) -> None:
    with WorkerPool(functions.large, 1) as pool:
        pool.begin("case", 0)
        worker = pool._workers[0]
        time.sleep(0.3)  # it is in the middle of sending
        os.kill(worker.process.pid, signal.SIGKILL)
        [(key, outcome)] = pool.collect()
    assert key == "case" and isinstance(outcome, WorkerError)


def test_a_dead_worker_whose_pipe_another_process_holds_open_is_noticed(
    functions: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = multiprocessing.get_context("spawn")
    held: list[int] = []

    def pipe_held_elsewhere() -> tuple[Any, Any]:
        ours, theirs = context.__class__.Pipe(context)
        held.append(os.dup(theirs.fileno()))
        return ours, theirs

    monkeypatch.setattr(context, "Pipe", pipe_held_elsewhere, raising=False)
    monkeypatch.setattr(workers, "process_context", lambda: context)
    with WorkerPool(functions.die_at_two, 1) as pool:
        pool.begin("case", 2)
        [(_, outcome)] = pool.collect()
    os.close(*held)
    assert isinstance(outcome, WorkerError) and "SIGKILL" in str(outcome)


@pytest.mark.parametrize("method", ["spawn", "forkserver", "fork"])
def test_what_a_call_logs_is_logged_by_its_owner(
    functions: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    method: str,
) -> None:
    monkeypatch.setenv("nnUNet_start_method", method)
    with caplog.at_level(logging.INFO, "nnunetlike"):
        process_map(functions.remark, [1, 2, 3], processes=2)
    found = sorted((r.name, r.levelname, r.getMessage()) for r in caplog.records)
    assert found == [
        ("nnunetlike.remarks", "INFO", "1.png: alpha is left out"),
        ("nnunetlike.remarks", "INFO", "2.png: alpha is left out"),
        ("nnunetlike.remarks", "INFO", "3.png: alpha is left out"),
        ("nnunetlike.remarks", "WARNING", "3.png: too dark"),
    ]


def test_of_many_notes_of_one_kind_a_few_are_logged_and_the_others_counted(
    functions: ModuleType, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "nnunetlike"):
        process_map(functions.remark, range(30), processes=2)
    notes = [text for text in caplog.messages if "alpha" in text]
    assert len(notes) == 6 and notes[-1].startswith("25 more like this: ")
    assert sum("too dark" in text for text in caplog.messages) == 3


def test_notes_of_a_worker_reach_the_console_as_lines_of_the_command(
    functions: ModuleType, tmp_path: Path
) -> None:
    script = tmp_path / "command.py"
    script.write_text(
        "import functions_of_workers as f\n"
        "from nnunetlike.core.logs import set_up_console\n"
        "from nnunetlike.core.parallel import process_map\n"
        "if __name__ == '__main__':\n"
        "    set_up_console()\n"
        "    process_map(f.remark, [3, 4], processes=2)\n"
    )
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=60, check=True
    )
    assert sorted(done.stdout.splitlines()) == [
        "3.png: alpha is left out", "4.png: alpha is left out", "warning: 3.png: too dark",
    ]  # fmt: skip
    assert not done.stderr


def test_collecting_ends_when_woken(functions: ModuleType, tmp_path: Path) -> None:
    ours, theirs = multiprocessing.Pipe()

    def woken() -> None:
        with WorkerPool(functions.sleep_long, 1) as pool:
            pool.begin(0, tmp_path / "note")
            theirs.send(None)
            assert pool.collect(wake=ours) == []
            raise KeyError

    with ours, theirs, pytest.raises(KeyError):
        woken()


def test_a_call_after_a_failure_gets_a_fresh_process(functions: ModuleType) -> None:
    with WorkerPool(functions.raise_strange, 1) as pool:
        pool.begin("a", 2)
        pool.collect()
        assert not pool._workers
        pool.begin("b", 1)
        assert pool.collect() == [("b", 1)]


@pytest.mark.parametrize("method", ["forkserver", "fork"])
def test_workers_end_when_their_owner_is_killed(
    functions: ModuleType, tmp_path: Path, method: str
) -> None:
    code = (
        "from pathlib import Path; import sys, functions_of_workers as f\n"
        "from nnunetlike.core.workers import WorkerPool\n"
        "if __name__ == '__main__':\n"
        "    with WorkerPool(f.sleep_long, 2) as pool:\n"
        "        for name in sys.argv[1:]:\n"
        "            pool.begin(name, Path(name))\n"
        "        pool.collect()\n"
    )
    notes = [tmp_path / "a", tmp_path / "b"]
    script = tmp_path / "owner.py"
    script.write_text(code)
    environment = {**os.environ, "nnUNet_start_method": method}
    owner = subprocess.Popen([sys.executable, str(script), *map(str, notes)], env=environment)
    pids = [int(wait_for(note)) for note in notes]
    owner.kill()
    owner.wait(10)
    end = time.monotonic() + 20
    while any(alive(pid) for pid in pids):
        assert time.monotonic() < end, "a worker outlived its owner"
        time.sleep(0.05)


def test_a_script_without_main_guard_is_told_so(functions: ModuleType, tmp_path: Path) -> None:
    script = tmp_path / "unguarded.py"
    script.write_text(
        "import functions_of_workers as f\n"
        "from nnunetlike.core.parallel import process_map\n"
        "process_map(f.double, [1, 2], processes=2)\n"
    )
    environment = {**os.environ, "nnUNet_start_method": "spawn"}
    done = subprocess.run(
        [sys.executable, str(script)], env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode != 0
    assert "if __name__ == '__main__':" in done.stderr


def wait_for(note: Path) -> str:
    end = time.monotonic() + 30
    while not (note.exists() and note.read_text()):
        assert time.monotonic() < end, f"{note} was not written"
        time.sleep(0.02)
    return note.read_text()


def alive(pid: int) -> bool:
    """Tell whether a process runs; one that ended and waits to be reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_the_cores_are_those_of_this_machine() -> None:
    assert available_cores() >= 1
